"""`model.talker.omni_audio_generation(...)`: the published call, with the published cutting of the text (spec 7.4, C).

It differs where the release is plainly wrong: explicit prompts win over a preset voice (Q60), a prompt is kept by its
content and not by its path (Q61), channels are mixed (Q62), the end of a sound is never lost (Q70), and places stay
true when a group is cut into several fragments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from ming_omni.errors import InputError
from ming_omni.model.talker import Talker
from ming_omni.speak.loop import Loop, Utterance
from ming_omni.speak.speaker import text_ids
from ming_omni.speech import english, mandarin, published
from ming_omni.speech.plain import has_words, plain

MAX_SENTENCES = 8  # the release keeps a pool of as many workers

Chunk = tuple[Tensor, str, tuple[int, int], float | None]


class PublishedTalker(Talker):
    """A Talker with the release's own way of calling it. `tokenizer` and `preset_voices` come from the model folder."""

    tokenizer = None
    preset_voices: dict[str, dict[str, str]] = {}  # replaced, never changed

    def save_pretrained(self, folder, **options) -> None:
        super().save_pretrained(folder, **options)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)

    @cached_property
    def loop(self) -> Loop:
        return Loop(self, MAX_SENTENCES)

    def omni_audio_generation(
        self,
        tts_text: str | Iterable[str],
        voice_name: str | None = "DB30",
        prompt_text: str | None = None,
        prompt_wav_path: str | None = None,
        max_length: int = 50,
        audio_detokenizer: torch.nn.Module | None = None,
        stream: bool = False,
    ) -> Iterator[Chunk]:
        """Yield (waveform (1, n) float32, text or "", (start, end) in the text, seconds or None).

        Only the first group of sentences streams, as published; a chunk of it has no duration, and only its first
        carries the text. The AudioVAE is part of this talker, so `audio_detokenizer` may only be that one, or None.
        """
        if audio_detokenizer not in (None, self.vae):
            raise InputError("this talker speaks through its own AudioVAE; pass audio_detokenizer=None")
        if self.tokenizer is None:
            raise InputError("this talker was loaded without a tokenizer")
        transcript, prompt = self._voice(voice_name, prompt_text, prompt_wav_path)
        noise = torch.Generator().manual_seed(int(torch.randint(2**62, ())))  # follows torch.manual_seed
        position = 0
        for index, group in enumerate(published.groups(_chunks(tts_text))):
            for fragment in published.cut(group, max_length):
                said = _said(fragment.text)
                if not said:
                    continue
                place = (position + fragment.start, position + fragment.end)
                ids = text_ids(self.tokenizer, said, transcript)
                pieces = self.loop.speak(Utterance(ids, prompt, noise, self.config.max_patches))
                yield from (
                    self._streamed(pieces, fragment.text, place)
                    if stream and index == 0
                    else [self._whole(pieces, fragment.text, place)]
                )
            position += len(group)

    def _voice(self, name: str | None, text: str | None, path: str | None) -> tuple[str | None, Tensor | None]:
        """The prompt's transcript and patches (n, p, Z); sampled anew, as published (Q63)."""
        if path is None and name in self.preset_voices:
            text, path = (self.preset_voices[name][key] for key in ("prompt_text", "prompt_wav_path"))
        if path is None:
            return text, None
        from ming_omni.inputs.audio import load_audio

        samples = load_audio(path, sample_rate_hz=self.config.vae.sample_rate_hz).to(self.device, self.dtype)
        with torch.inference_mode():
            return text, self.patches(self.vae.encode(samples[None]).sample()[0])

    def _streamed(self, pieces: Iterator[Tensor], text: str, place: tuple[int, int]) -> Iterator[Chunk]:
        for i, piece in enumerate(pieces):
            yield piece.float()[None], "" if i else text, place, None

    def _whole(self, pieces: Iterator[Tensor], text: str, place: tuple[int, int]) -> Chunk:
        waveform = torch.cat(list(pieces)).float()[None]
        return waveform, text, place, waveform.shape[1] / self.config.vae.sample_rate_hz


def _chunks(text: str | Iterable[str]) -> Iterable[str]:
    """A list of bare words gets its spaces back (Q65); anything else passes as it is."""
    if isinstance(text, list | tuple) and len(text) > 1 and all(w.isascii() and w.strip() == w != "" for w in text):
        return [f"{word} " for word in text]
    return text


def _said(fragment: str) -> str:
    """A fragment as the published front end words it; where its grammars are not ours, ours stand in (C.4)."""
    chinese = published.is_chinese(fragment)
    if not chinese:
        fragment = published.expand_english_numbers(fragment)
    text = plain(fragment, chinese)
    if not has_words(text):
        return ""
    return (mandarin if chinese else english).spoken(text).removeprefix("，")
