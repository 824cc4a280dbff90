"""Text, whole or still being written -> speech, sentence by sentence, in any voice: the verb `speak`."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ming_omni.errors import InputError
from ming_omni.model.talker import Talker
from ming_omni.speak import output
from ming_omni.speak.loop import Loop, Utterance
from ming_omni.speak.output import Sound
from ming_omni.speech import normalize
from ming_omni.speech.alphabet import END
from ming_omni.speech.breaths import breaths, seconds_of
from ming_omni.speech.plain import has_chinese
from ming_omni.speech.sentences import sentences
from ming_omni.speech.voices import SAMPLE_RATE_HZ, Shelf, Voice

MAX_CHARACTERS = 20_000
"""Half an hour of speech. A longer text is no problem as a stream, but its whole sound is."""
PAUSE_SECONDS = 0.15
FADE_SECONDS = 0.005
KEPT_PROMPTS = 64
# A sentence that takes longer than this has run away: three times as long as slow speech, and some seconds.
RUNAWAY, SPARE_SECONDS = 3.0, 3.0
# A talker that says how long its sentences were is held to its texts more closely: none takes less than a third of slow
# speech, whatever the stop head says, nor more than this.
HELD_RUNAWAY, HELD_SPARE_SECONDS, HELD_SHARE = 2.0, 1.0, 1 / 3


class NothingToSay(InputError):
    """The text holds no word, only marks."""

    def __init__(self):
        super().__init__("the text holds nothing that can be said")


class Speaker:
    """A talker with its tokenizer and its voices. Calls from many threads are spoken together."""

    def __init__(self, talker: Talker, tokenizer, shelf: Shelf | None = None, *, loop: Loop | None = None):
        self.talker, self.tokenizer = talker, tokenizer
        self.shelf = shelf or Shelf()
        self.loop = loop or Loop(talker)
        self.prompts: dict[str, Tensor] = {}  # digest of a voice -> its patches (n, p, Z), the newest ones
        self.lock = threading.Lock()

    @classmethod
    def of(cls, talker: Talker, folder: Path) -> Speaker:
        """A loaded talker with the voices of its model folder."""
        if getattr(talker, "tokenizer", None) is None:
            raise InputError(f"{folder} has a talker but no tokenizer for it (talker/llm/tokenizer.json)")
        return cls(talker, talker.tokenizer, Shelf(built_in=Path(folder) / "voices"))

    @property
    def sample_rate_hz(self) -> int:
        return self.talker.config.vae.sample_rate_hz

    def speak(
        self,
        text: str | Iterable[str],
        voice: str | Voice | None = None,
        *,
        speed: float = 1.0,
        stream: bool = False,
        seed: int | None = None,
        sample_rate_hz: int | None = None,
    ) -> Sound | Iterator[np.ndarray]:
        """Say a text: a Sound, or with `stream` chunks (n,) of samples as soon as there are any.

        text    a string, or pieces of one as a model writes them: each sentence is spoken once it is complete
        voice   a name from `voices`, a Voice, or None for the talker's own
        seed    the same seed gives the same speech, alone or among others
        """
        rate_hz = self.sample_rate_hz if sample_rate_hz is None else sample_rate_hz
        chunks = self._stream(text, voice, speed, seed, rate_hz, is_heard_at_once=stream)
        if stream:
            return chunks
        if isinstance(text, str) and len(text) > MAX_CHARACTERS:
            raise InputError(f"the text has {len(text)} characters; stream it, or say at most {MAX_CHARACTERS} at once")
        return output.gather(chunks, rate_hz)

    @property
    def voices(self) -> list[str]:
        """Names on the shelf, and of the presets that the release brings."""
        return sorted({*self.shelf.names(), *self._presets})

    @property
    def _presets(self) -> dict[str, dict[str, str]]:
        return getattr(self.talker, "preset_voices", {})

    def _voice(self, name: str) -> Voice:
        if name not in self._presets or name in self.shelf.names():
            return self.shelf.get(name)
        from ming_omni.inputs.audio import load_audio

        preset = self._presets[name]
        # Presets may be shorter than a clone may; they were chosen with care.
        samples = load_audio(preset["prompt_wav_path"], sample_rate_hz=SAMPLE_RATE_HZ)
        return Voice(name, samples, preset["prompt_text"])

    def clone(self, name: str, audio, transcript: str | None = None, *, consent: str, replace: bool = False) -> Voice:
        """Keep a voice from 3 to 30 seconds of anyone who agreed; audio is a file, bytes, or (samples, rate)."""
        from ming_omni.inputs.audio import load_audio

        voice = Voice.clone(name, load_audio(audio, sample_rate_hz=SAMPLE_RATE_HZ), transcript, consent=consent)
        self.shelf.add(voice, replace=replace)
        return voice

    def _stream(
        self, text, voice, speed: float, seed: int | None, sample_rate_hz: int, is_heard_at_once: bool
    ) -> Iterator[np.ndarray]:
        """Everything that can be wrong is checked before the first chunk is asked for."""
        if isinstance(text, bytes) or not isinstance(text, Iterable):
            raise InputError(f"a text is a string, or pieces of one, not {type(text).__name__}")
        voice = self._voice(voice) if isinstance(voice, str) else voice
        if not isinstance(voice, Voice | None):
            raise InputError(f"a voice is a name or a Voice, not {voice!r}")
        spoken = self._spoken(text)
        if isinstance(text, str):
            first = next(spoken, None)
            if first is None:
                raise NothingToSay
            spoken = itertools.chain([first], spoken)
        chunks = self._sentences(spoken, voice, generator(seed), is_heard_at_once)
        chunks = output.change_speed(chunks, speed, self.sample_rate_hz)
        return output.resample(chunks, self.sample_rate_hz, sample_rate_hz)

    def _spoken(self, text: str | Iterable[str]) -> Iterator[str]:
        """Sentences as they are said."""
        is_chinese = isinstance(text, str) and has_chinese(text[:MAX_CHARACTERS])
        for sentence in sentences(text if isinstance(text, str) else map(_checked, text)):
            is_chinese = is_chinese or has_chinese(sentence)
            if said := normalize.spoken(sentence, is_chinese):
                yield ended(said)

    def _sentences(
        self, spoken: Iterable[str], voice: Voice | None, noise: torch.Generator, is_heard_at_once: bool
    ) -> Iterator[np.ndarray]:
        """Each sentence, or breath of one, with soft edges, and a pause between two."""
        pause = np.zeros(int(PAUSE_SECONDS * self.sample_rate_hz), np.float32)
        fade = int(FADE_SECONDS * self.sample_rate_hz)
        num_said = 0
        for sentence in spoken:
            speaking = voice or self._default_voice(sentence)
            for breath in breaths(sentence, self.talker.config.sentence_seconds):
                if num_said:
                    yield pause
                num_said += 1
                with closing(self._said(ended(breath), speaking, noise, is_heard_at_once)) as pieces:
                    for chunk in output.fade_edges((piece.float().numpy() for piece in pieces), fade):
                        yield output.soften(chunk)
        if not num_said:
            raise NothingToSay

    def _said(self, text: str, voice: Voice | None, noise: torch.Generator, is_heard_at_once: bool) -> Iterator[Tensor]:
        """Samples (n,) of one breath. Where nobody hears it yet, one that ran away is said again, with other noise."""
        utterance = self._utterance(text, voice, noise)
        utterance.has_another_try = not is_heard_at_once and self.talker.config.sentence_seconds is not None
        with closing(self.loop.speak(utterance)) as pieces:
            if not utterance.has_another_try:
                yield from pieces
                return
            samples = list(pieces)
        if not utterance.found_end:
            samples = self.loop.speak(self._utterance(text, voice, noise))
        yield from samples

    def _utterance(self, text: str, voice: Voice | None, noise: torch.Generator) -> Utterance:
        voice = voice and voice.within(self.talker.config.voice_seconds)
        prompt = self._prompt(voice) if voice else None
        transcript = normalize.spoken(voice.transcript) if voice and voice.transcript else ""
        ids = text_ids(self.tokenizer, text, ended(transcript))
        fewest, most = self._patches(text)
        return Utterance(ids, prompt, noise, most, fewest)

    def _default_voice(self, sentence: str) -> Voice | None:
        name = (self.talker.config.default_voices or {}).get("zh" if has_chinese(sentence) else "en")
        return self._voice(name) if name else None

    def _patches(self, text: str) -> tuple[int, int]:
        """How many a text may take, at least and at most."""
        config, seconds = self.talker.config, seconds_of(text)
        if config.sentence_seconds is None:
            least, most = 0.0, RUNAWAY * seconds + SPARE_SECONDS
        else:
            least, most = HELD_SHARE * seconds, HELD_RUNAWAY * seconds + HELD_SPARE_SECONDS
        return int(least / config.patch_seconds), max(config.min_patches, int(most / config.patch_seconds))

    @torch.inference_mode()
    def _prompt(self, voice: Voice) -> Tensor:
        """The patches (n, p, Z) of a voice: drawn once, with noise that belongs to the voice."""
        with self.lock:
            found = self.prompts.get(voice.digest)
        if found is None:
            noise = torch.Generator().manual_seed(int(voice.digest[:15], 16))
            samples = self._at_model_rate(voice.samples).to(self.talker.device, self.talker.dtype)
            found = self.talker.patches(self.talker.vae.encode(samples[None]).sample(noise)[0])
            with self.lock:
                while len(self.prompts) >= KEPT_PROMPTS:
                    self.prompts.pop(next(iter(self.prompts)))
                self.prompts[voice.digest] = found
        return found

    def _at_model_rate(self, samples: Tensor) -> Tensor:
        chunks = output.resample([samples.numpy()], SAMPLE_RATE_HZ, self.sample_rate_hz)
        return torch.from_numpy(np.concatenate(list(chunks)))


def _checked(piece: object) -> str:
    if not isinstance(piece, str):
        raise InputError(f"a piece of text is a string, not {piece!r}")
    return piece


def ended(said: str) -> str:
    """A sentence with a mark at its end, as all have that a talker has learned from."""
    return said + ("。" if has_chinese(said) else ".") * said[-1:].isalnum()


def text_ids(tokenizer, text: str, transcript: str | None) -> Tensor:
    """Ids (T,) of what the voice said in its recording, then of what it is to say, then the end (spec 7.3)."""
    pieces = [transcript, text] if transcript else [text]
    ids = [i for piece in pieces for i in tokenizer(piece, add_special_tokens=False)["input_ids"]]
    return torch.tensor([*ids, tokenizer.convert_tokens_to_ids(END)])


def generator(seed: int | None) -> torch.Generator:
    """Noise on the CPU; without a seed, from the system's own randomness."""
    if seed is None:
        noise = torch.Generator()
        noise.seed()
        return noise
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise InputError(f"a seed is a 64-bit integer, not {seed!r}")
    return torch.Generator().manual_seed(seed)


def tiny_speaker(shelf: Shelf | None = None) -> Speaker:
    """Random weights that speak noise: for tests."""
    from ming_omni.config import TalkerConfig
    from ming_omni.speech.alphabet import character_tokenizer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        talker = Talker(TalkerConfig(min_patches=5, steps=2)).eval()
    return Speaker(talker, character_tokenizer(), shelf)
