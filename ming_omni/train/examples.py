"""One checked line of a training set -> one example: the tensors that its task learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageOps
from torch import Tensor

from ming_omni.errors import InputError
from ming_omni.inputs.audio import load_audio
from ming_omni.inputs.image import load_image
from ming_omni.inputs.messages import Audio, Image, Message, Text, Video, conversation
from ming_omni.inputs.processor import MingProcessor
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.model.painting import PROMPT_KEYS
from ming_omni.speech import normalize
from ming_omni.speech.plain import has_chinese
from ming_omni.train import words
from ming_omni.train.folder import BadExample, Line
from ming_omni.train.losses import IGNORE
from ming_omni.train.recipe import DataSettings, WordSettings
from ming_omni.train.seeds import mix

MASK_COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
"""As `ming_omni.paint.masks.COLORS`, which reads the masks back."""
MASK_OPACITY = 0.6
"""How strongly a training target paints the mask over; what lies below stays visible."""


@dataclass
class Answer:
    """A conversation and what to say next, after any media."""

    where: str
    inputs: dict[str, Tensor]
    """The processor's keys, one row."""
    targets: Tensor
    """(T,) the id that follows each token, IGNORE where nothing is learned."""


@dataclass
class Painting:
    """A prompt, perhaps with pictures, and the picture to paint from it."""

    where: str
    inputs: dict[str, Tensor]
    pixels: Tensor
    """(3, S, S) in [-1, 1]"""
    reference: Tensor | None
    """(3, S, S) the picture to edit"""
    text: str
    """Letters to draw, in their published wording."""
    seed: int
    """Of its noise, so that an example's loss does not depend on its neighbours."""


@dataclass
class Speech:
    where: str
    ids: Tensor
    """(T,) of the talker's tokenizer"""
    samples: Tensor
    """(n,) a whole number of patches"""


@dataclass
class Picture:
    where: str
    pixels: Tensor
    """(3, S, S) in [-1, 1]"""
    label: str


@dataclass
class Sound:
    where: str
    samples: Tensor
    """(n,)"""


Example = Answer | Painting | Speech | Picture | Sound


class Reader:
    """Turns lines of one set into examples; the same line, position and seed always give the same example."""

    def __init__(
        self,
        model: MingForConditionalGeneration,
        processor: MingProcessor,
        settings: DataSettings,
        word_settings: WordSettings,
        lines: Sequence[Line],
        seed: int,
    ):
        self.model, self.processor, self.settings, self.word_settings = model, processor, settings, word_settings
        self.seed = seed
        self.vocabulary = sorted({word for line in lines for word in line.texts("words")})

    def read(self, line: Line, position: int) -> Example:
        """position: the example's place in the endless order, which decides what is random about it."""
        random = Random(mix(self.seed, "example", position))
        try:
            return getattr(self, f"_{line.task}")(line, random)
        except BadExample:
            raise
        except (InputError, OSError, ValueError, TypeError, KeyError) as error:
            raise BadExample(line.where, error) from error

    # Answers.

    def _ask(self, line: Line, random: Random) -> Answer:
        values = line.values
        if "messages" in values:
            messages = [_with_paths(message, line) for message in values["messages"]]
        else:
            media = [Image(path) for path in line.paths("images")] + [Audio(path) for path in line.paths("audio")]
            media += [Video(path) for path in line.paths("video")]
            messages = [Message("user", [*media, Text(values["prompt"])])]
        return self._answer(line, conversation(messages), values["answer"], values.get("system"))

    def _transcribe(self, line: Line, random: Random) -> Answer:
        values = line.values
        listed = words.choose(values["text"], self.vocabulary, self.word_settings, random)
        message = Message("user", [Text(words.prompt(listed)), Audio(line.path("audio"))])
        # The language comes first, so that a wrong one is a mistake of its own and can be forced.
        return self._answer(line, [message], f"{values.get('language', 'English')}\t{values['text']}")

    def _answer(self, line: Line, messages: list[Message], answer: str, system: str | None = None) -> Answer:
        inputs = dict(self.processor.prepare(messages, system=system, answer_start=answer))
        end = torch.tensor([self.processor.gen_terminator])
        ids = torch.cat([inputs["input_ids"], end], 1)
        if ids.shape[1] > self.settings.max_tokens:
            raise BadExample(line.where, f"{ids.shape[1]} tokens are more than max_tokens {self.settings.max_tokens}")
        inputs = inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return Answer(line.where, inputs, self._targets(ids[0]))

    def _targets(self, ids: Tensor) -> Tensor:
        """The next id wherever the assistant speaks, its end mark included; users and media are not learned."""
        tokenizer, template = self.processor.tokenizer, self.processor.template
        start, end = tokenizer.encode(template.answer), tokenizer.token_id(template.end)
        targets = torch.full_like(ids, IGNORE)
        is_speaking, row = False, ids.tolist()
        for place in range(len(row) - 1):
            is_speaking = is_speaking or row[place + 1 - len(start) : place + 1] == start
            if is_speaking:
                targets[place] = row[place + 1]
                is_speaking = row[place + 1] != end
        return targets

    # Pictures to paint.

    def _paint(self, line: Line, random: Random) -> Painting:
        prompt = line.values["prompt"]
        return self._painting(line, [Text(prompt)], _cover(load_image(line.path("image")), self.side), None, random)

    def _edit(self, line: Line, random: Random) -> Painting:
        before = [load_image(path) for path in line.paths("images")]
        after = load_image(line.path("image"))
        content = [*(Image(picture) for picture in before), Text(line.values["instruction"])]
        return self._painting(line, content, _stretch(after, self.side), _stretch(before[0], self.side), random)

    def _segment(self, line: Line, random: Random) -> Painting:
        """An edit that paints the named thing over (spec 6.10)."""
        color = line.values.get("color", "red")
        if color not in MASK_COLORS:
            raise BadExample(line.where, f"a mask is painted in {', '.join(MASK_COLORS)}, not {color!r}")
        picture = load_image(line.path("image")).convert("RGB")
        mask = load_image(line.path("mask")).convert("L").resize(picture.size, Pillow.Resampling.NEAREST)
        shade = mask.point(lambda value: round(255 * MASK_OPACITY) if value > 127 else 0)
        painted = Pillow.composite(Pillow.new("RGB", picture.size, MASK_COLORS[color]), picture, shade)
        content = [Image(picture), Text(f"please segment the {line.values['what']} using {color} mask")]
        example = self._painting(line, content, _stretch(painted, self.side), _stretch(picture, self.side), random)
        return replace(example, text="")  # quotes around a thing ask for no letters

    def _painting(
        self, line: Line, content: list, pixels: Tensor, reference: Tensor | None, random: Random
    ) -> Painting:
        inputs = self.processor.prepare([Message("user", content)], painting=True)
        length = inputs["input_ids"].shape[1]
        if length > self.settings.max_tokens:
            raise BadExample(line.where, f"{length} tokens are more than max_tokens {self.settings.max_tokens}")
        kept = {key: inputs[key] for key in PROMPT_KEYS if key in inputs}
        return Painting(line.where, kept, pixels, reference, inputs["image_gen_text"][0], random.getrandbits(60))

    @property
    def side(self) -> int:
        return self.settings.image_size or self.model.require("painter").config.default_size

    # Speech.

    def _speak(self, line: Line, random: Random) -> Speech:
        """With a voice, its words and sound come first: a longer utterance whose second half continues the first."""
        talker, values = self.model.require("talker"), line.values
        texts, sounds = [values["text"]], [line.path("audio")]
        if "voice" in values:
            texts, sounds = [values.get("voice_text", ""), *texts], [line.path("voice"), *sounds]
        ids = [i for text in texts for i in talker.tokenizer(said(text), add_special_tokens=False)["input_ids"]]
        ids.append(talker.tokenizer.eos_token_id)
        patch = talker.config.patch_frames * talker.config.vae.hop_samples
        rate = talker.config.vae.sample_rate_hz
        parts = [load_audio(sound, sample_rate_hz=rate) for sound in sounds]
        # A voice ends with a whole patch, as it does when it is registered; speech is filled up with silence.
        parts[:-1] = [part[: len(part) // patch * patch] for part in parts[:-1]]
        samples = torch.cat(parts)
        samples = torch.nn.functional.pad(samples, (0, -len(samples) % patch))
        length = len(ids) + len(samples) // patch
        if length > talker.config.max_positions:
            raise BadExample(line.where, f"{length} positions are more than the talker's {talker.config.max_positions}")
        return Speech(line.where, torch.tensor(ids), samples)

    # Autoencoders.

    def _code_image(self, line: Line, random: Random) -> Picture:
        pixels = _cover(load_image(line.path("image")), self.side)
        return Picture(line.where, pixels, str(line.values.get("label", "")))

    def _code_sound(self, line: Line, random: Random) -> Sound:
        config = self.model.require("talker").config.vae
        samples = load_audio(line.path("audio"), sample_rate_hz=config.sample_rate_hz)
        hops = round(self.settings.sound_seconds * config.sample_rate_hz / config.hop_samples)
        wanted = hops * config.hop_samples
        start = random.randint(0, max(0, len(samples) - wanted))
        piece = samples[start : start + wanted]
        return Sound(line.where, torch.nn.functional.pad(piece, (0, wanted - len(piece))))


def said(text: str) -> str:
    """Text as the talker reads it: numbers as words, a full stop at the end."""
    spoken = normalize.spoken(text, has_chinese(text))
    if not spoken:
        raise InputError("the text holds nothing that can be said")
    return spoken if not spoken[-1].isalnum() else spoken + ("。" if has_chinese(spoken) else ".")


def _with_paths(message: dict[str, Any], line: Line) -> dict[str, Any]:
    """Media of a message lie in the folder of the set."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("image", "audio", "video") and isinstance(part.get(kind), str):
            part = part | {kind: line.folder / part[kind]}
        parts.append(part)
    return message | {"content": parts}


def _cover(picture: Pillow.Image, side: int) -> Tensor:
    """The middle of a picture as a square of `side` pixels."""
    return _tensor(ImageOps.fit(picture.convert("RGB"), (side, side), Pillow.Resampling.BILINEAR))


def _stretch(picture: Pillow.Image, side: int) -> Tensor:
    """All of a picture as a square: as the painter sees a picture to edit."""
    return _tensor(picture.convert("RGB").resize((side, side), Pillow.Resampling.BILINEAR))


def _tensor(picture: Pillow.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1
