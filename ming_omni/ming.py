"""Words, pictures and sound in, answers out: the object a user holds. It owns a model, its processor and its engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ming_omni import checkpoint
from ming_omni.checkpoint import detect, pretrained
from ming_omni.engine.engine import Engine, Stream
from ming_omni.engine.request import Request, read_prompt
from ming_omni.engine.text import Answer
from ming_omni.errors import InputError
from ming_omni.inputs.messages import UNHEARD, Audio, Image, Message, Text, Video, conversation, sources
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.tokenizer import read_json
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.model.sampling import GREEDY, Sampling
from ming_omni.packed import threads
from ming_omni.packed.thinker import PackedThinker

if TYPE_CHECKING:
    from ming_omni.paint import Picture, Segmentation
    from ming_omni.speak.speaker import Speaker
    from ming_omni.transcribe import Transcript, Update

WORDS_KEPT = 256
"""Sounds whose words are remembered."""
ENCODER = {"image": "vision", "video": "vision", "audio": "audio"}


class Ming:
    """A model to talk to: `Ming.load("nano")` works offline; so do folders and hub ids of the published model."""

    def __init__(
        self,
        model: MingForConditionalGeneration,
        processor: MingProcessor,
        *,
        name: str = "ming",
        sampling: Sampling = GREEDY,
        stop_ids: Iterable[int] = (),
        answers_sound: bool = True,
    ):
        """sampling       what holds when a call says nothing else
        stop_ids       end an answer, besides the processor's own
        answers_sound  False: it only writes down what it hears, so a spoken turn is written down before it is answered
        """
        self.model, self.processor, self.name, self.sampling = model, processor, name, sampling
        self.answers_sound = answers_sound
        self.stop_ids = frozenset([*processor.gen_terminator, *stop_ids])
        self._starting = Lock()
        self._words_of: dict[bytes, str] = {}

    @classmethod
    def load(cls, name: str | Path = "nano", **options: Any) -> Ming:
        """Load "nano", "tiny", a folder or a hub id; options: see `MingForConditionalGeneration.from_pretrained`."""
        model = checkpoint.load(name, **{"packed": None} | options)
        if isinstance(model.thinker, PackedThinker):
            threads.settle()
        if name == "tiny":
            from ming_omni.inputs.tiny import tiny_tokenizer

            return cls(model, MingProcessor.from_config(model.config, tiny_tokenizer()), name="tiny")
        folder = detect.locate(name, **{key: options[key] for key in pretrained.HUB_OPTIONS if key in options})
        settings = read_json(folder / "generation_config.json")
        kept = ("top_k", "top_p", "repetition_penalty")
        sampling = Sampling(
            temperature=settings.get("temperature", 1.0) if settings.get("do_sample") else 0.0,
            penalize_prompt=settings.get("ming_penalize_prompt", True),
            banned=tuple(settings.get("suppress_tokens") or ()),
            **{key: settings[key] for key in kept if settings.get(key) is not None},
        )
        ends = settings.get("eos_token_id") or ()
        return cls(
            model,
            MingProcessor.from_pretrained(folder, config=model.config),
            name=Path(name).name,
            sampling=sampling,
            stop_ids=[ends] if isinstance(ends, int) else ends,
            answers_sound=settings.get("ming_answers_sound", True),
        )

    @property
    def device(self) -> torch.device:
        return self.model.device

    @cached_property
    def speaker(self) -> Speaker:
        """The talker with its tokenizer and voices, loaded on first use."""
        from ming_omni.speak.speaker import Speaker, tiny_speaker

        with self._starting:  # several threads may ask first, and one talker fills enough memory
            if "speaker" in self.__dict__:
                return self.__dict__["speaker"]
            if self.name == "tiny":
                speaker = tiny_speaker()
            else:
                speaker = Speaker.of(self.model.attach("talker"), detect.locate(self.model.config.name_or_path))
            return self.__dict__.setdefault("speaker", speaker)

    @cached_property
    def engine(self) -> Engine:
        """Started on first use; all that is asked of this object shares its pages and its steps."""
        with self._starting:  # since Python 3.12 a cached property lets several threads in
            return self.__dict__.get("engine") or self.__dict__.setdefault("engine", Engine(self.model).start())

    def requires(self, kind: str) -> None:
        """Refuse early what this model cannot take: kind is image, video or audio."""
        self.model.require(ENCODER[kind])

    def paint(self, prompt: str | Sequence[str], **options: Any) -> list[Picture]:
        """Pictures of a prompt; options as `ming_omni.paint.paint` takes them."""
        from ming_omni import paint

        return paint.paint(*self._painting(), prompt, name=self.name, **options)

    def edit(self, images: Any, instruction: str, **options: Any) -> list[Picture]:
        """The first of `images` changed as the instruction says; options as `ming_omni.paint.edit` takes them."""
        from ming_omni import paint

        return paint.edit(*self._painting(), images, instruction, name=self.name, **options)

    def segment(self, image: Any, what: str | None = None, **options: Any) -> Segmentation:
        """Masks of what is named; options as `ming_omni.paint.segment` takes them."""
        from ming_omni import paint

        return paint.segment(*self._painting(), image, what, name=self.name, **options)

    def speak(self, text: str | Iterable[str], voice: Any = None, **options: Any) -> Any:
        """Speech; options as `Speaker.speak` takes them."""
        return self.speaker.speak(text, voice, **options)

    def transcribe(self, audio: Any, **options: Any) -> Transcript | Iterator[Update]:
        """What is said in a recording; options as `ming_omni.transcribe.transcribe` takes them."""
        from ming_omni import transcribe

        return transcribe.transcribe(self, audio, **options)

    def heard(self, messages: Iterable[Message], user: str = "") -> list[Message]:
        """Messages as this model can answer them: where it only writes sound down, a spoken one becomes its words."""
        return [self._words(m, user) if m.is_spoken and not self.answers_sound else m for m in messages]

    def _words(self, message: Message, user: str) -> Message:
        from ming_omni.transcribe.result import joined

        sounds = [sound for part in message.parts(Audio) for sound in sources(part)]
        words = joined(self._said(sound, user) for sound in sounds)
        seen = [part for part in message.content if isinstance(part, Image | Video)]
        return Message("user", [*seen, Text(words or UNHEARD)])

    def _said(self, sound: Any, user: str) -> str:
        """The words of one sound: kept for decoded ones, which a client sends again with every turn that follows."""
        if not isinstance(sound, tuple):
            return self.transcribe(sound, user=user).text
        samples, rate_hz = sound
        name = blake2b(np.ascontiguousarray(samples).data, digest_size=16, person=str(rate_hz).encode()).digest()
        text = self._words_of.get(name)
        if text is None:
            text = self.transcribe(sound, user=user).text
            with self._starting:
                self._words_of = dict([*self._words_of.items(), (name, text)][-WORDS_KEPT:])
        return text

    def _painting(self) -> tuple[MingForConditionalGeneration, MingProcessor]:
        self.model.attach("painter")
        return self.model, self.processor

    def ask(self, prompt: str, **options: Any) -> str:
        """The whole answer; options as `stream` takes them."""
        return "".join(self.stream(prompt, **options))

    def complete(
        self, prompt: str, *, max_tokens: int | None = 512, stop: str | Sequence[str] = (), **sampling: Any
    ) -> str:
        """What goes on where the text ends; nothing is put around it, and special tokens in it are obeyed."""
        ids = torch.tensor([self.processor.tokenizer.encode(prompt)], dtype=torch.long)
        answer = Answer(self.processor.tokenizer.stream(), _several(stop))
        return "".join(self._pieces(self._submit({"input_ids": ids}, max_tokens, sampling), answer))

    def stream(
        self,
        prompt: str,
        *,
        images: Any = (),
        audio: Any = (),
        video: Any = None,
        **options: Any,
    ) -> Iterator[str]:
        """The answer in pieces, as they come; closing the iterator stops the work.

        images, audio, video   paths, bytes, PIL pictures, arrays or data: URLs; they precede the prompt. Several
                               pictures or sounds stand in a list
        options                as `reply` takes them
        """
        if not isinstance(prompt, str):
            raise InputError(f"a prompt is text, not {type(prompt).__name__}")
        content = [Image(source) for source in _several(images)]
        content += [] if video is None else [Video(video)]
        content += [Audio(source) for source in _several(audio)]
        return self.reply([Message("user", [*content, *([Text(prompt)] if prompt else [])])], **options)

    def reply(
        self,
        messages: Any,
        *,
        system: str | None = None,
        max_tokens: int | None = 512,
        stop: str | Sequence[str] = (),
        **sampling: Any,
    ) -> Iterator[str]:
        """The next turn of a conversation, in pieces. Everything that is wrong with it is said before the first one.

        messages   text, our Message objects, published dictionaries or OpenAI chat messages
        stop       the answer ends before any of these strings
        sampling   temperature, top_p, top_k, min_p, repetition_penalty, seed; None keeps the model's default
        """
        stops = _several(stop)
        if not all(isinstance(text, str) for text in stops):
            raise InputError(f"stop is text or a list of texts, not {stop!r}")
        stream = self.submit(messages, system=system, max_tokens=max_tokens, **sampling)
        pieces = self._pieces(stream, Answer(self.processor.tokenizer.stream(), [text for text in stops if text]))
        next(pieces)  # a generator that has not begun would not notice that it is closed
        return pieces

    def submit(
        self, messages: Any, *, system: str | None = None, max_tokens: int | None = 512, **sampling: Any
    ) -> Stream:
        """Hand a conversation to the engine and return its stream of tokens."""
        inputs = self.processor.prepare(self.heard(conversation(messages)), system=system)
        return self._submit(inputs, max_tokens, sampling)

    def _submit(self, inputs: Any, max_tokens: int | None, sampling: dict[str, Any]) -> Stream:
        if max_tokens is not None and not (type(max_tokens) is int and max_tokens >= 1):
            raise InputError(f"max_tokens is a whole number, 1 or more, not {max_tokens!r}")
        chosen = {name: value for name, value in sampling.items() if value is not None}
        if unknown := chosen.keys() - Sampling.__dataclass_fields__.keys():
            raise InputError(f"there is no option {', '.join(sorted(unknown))}")
        prompt = read_prompt(self.model, inputs)
        room = self.engine.longest - len(prompt)
        limit = max_tokens if max_tokens is None or room <= 0 else min(max_tokens, room)
        return self.engine.submit(Request(prompt, replace(self.sampling, **chosen), limit, self.stop_ids))

    @staticmethod
    def _pieces(stream: Stream, answer: Answer) -> Iterator[str]:
        with stream:
            yield ""
            for token in stream:
                piece, _ = answer.push(token)
                if piece:
                    yield piece
                if answer.is_stopped:
                    return
        piece, _ = answer.finish()
        if piece:
            yield piece


def _several(value: Any) -> list:
    """Nothing, one thing, or a list of them -> a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
