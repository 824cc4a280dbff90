"""Messages -> ModelInputs: ids, mask, patches, mel frames, and what the painter needs; the published call surface.

    processor = MingProcessor.from_pretrained(folder)
    inputs = processor.prepare(messages)

or, as the published scripts do it, in three steps: `apply_chat_template`, `process_vision_info`, then the call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Pillow
from torch import Tensor
from transformers import BatchFeature

from ming_omni.config import MingConfig
from ming_omni.errors import InputError
from ming_omni.inputs import folder as folder_files
from ming_omni.inputs.audio import as_channels, clips, one_channel
from ming_omni.inputs.behaviour import OURS, PUBLISHED, Behaviour
from ming_omni.inputs.canvas import canvas, glyph_text
from ming_omni.inputs.frames import AudioProcessor
from ming_omni.inputs.image import fetch_image
from ming_omni.inputs.media import load_image, load_video, read_audio
from ming_omni.inputs.messages import Audio, Image, Message, Part, Text, Video, conversation, sources
from ming_omni.inputs.patches import ImageProcessor
from ming_omni.inputs.templates import PLACEHOLDERS, TEMPLATES, content, render
from ming_omni.inputs.tokenizer import Tokenizer
from ming_omni.inputs.video import FrameOptions

ModelInputs = BatchFeature
"""The published keys (spec 5.3):

input_ids, attention_mask     (B, T) padded on the left
pixel_values                  (P, 1176) patches of all pictures; image_grid_thw (n, 3)
pixel_values_videos           the same of all videos; video_grid_thw (n, 3)
audio_feats                   (1, F, M) mel frames of all clips; audio_feats_lengths (1, n)
audio_placeholder_loc_lens    (B, n, 2) start and length of each clip's tokens, n the most clips of a row;
                              rows with fewer end in (0, 0)
image_gen_text, image_gen_highres, image_gen_height, image_gen_width, image_gen_pixel_values_reference
                              for the painter: words to write, table of sizes, size, first picture (1, 3, h, w)
"""

_ANY_PLACEHOLDER = re.compile("|".join(PLACEHOLDERS.values()))


class MingProcessor:
    def __init__(
        self,
        tokenizer: Tokenizer,
        image_processor: ImageProcessor | None = None,
        audio_processor: AudioProcessor | None = None,
        *,
        video_options: FrameOptions | None = None,
        chat_format: str | None = None,
        system_prompt: str | None = None,
        behaviour: Behaviour = OURS,
    ):
        """chat_format  "ming" or "chatml"; unless given, whichever the tokenizer has the markers of
        system_prompt  said when a conversation says nothing else"""
        self.tokenizer = tokenizer
        self.image_processor = image_processor or ImageProcessor()
        self.audio_processor = audio_processor or AudioProcessor()
        self.video_options = replace(video_options or FrameOptions(), factor=self.image_processor.factor)
        self.chat_format = chat_format or _chat_format(tokenizer)
        if self.chat_format not in TEMPLATES:
            raise InputError(f"the chat format is one of {', '.join(TEMPLATES)}, not {self.chat_format!r}")
        template = TEMPLATES[self.chat_format]
        self.template = replace(template, default_system=system_prompt) if system_prompt is not None else template
        self.behaviour = behaviour

    @classmethod
    def from_config(cls, config: MingConfig, tokenizer: Tokenizer, **options) -> MingProcessor:
        """Sizes from a model's configuration, for a model that has no processor files yet."""
        return cls(tokenizer, folder_files.image_processor(config), folder_files.audio_processor(config), **options)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        config: MingConfig | None = None,
        behaviour: Behaviour | str = OURS,
        trust_remote_code: bool = False,
        **hub,
    ) -> MingProcessor:
        """Reads tokenizer and settings of "nano", a model folder or a hub id.

        config             the model's, for sizes that the settings leave out
        behaviour          a Behaviour, or "published" for all of the release's own ways
        trust_remote_code  whatever it says, no code from the folder runs
        """
        if behaviour != "published" and not isinstance(behaviour, Behaviour):
            raise InputError(f"behaviour is a Behaviour or 'published', not {behaviour!r}")
        folder = folder_files.locate(name_or_folder, hub)
        return cls(**folder_files.read(folder, config), behaviour=PUBLISHED if behaviour == "published" else behaviour)

    def save_pretrained(self, folder: str | Path) -> None:
        folder_files.write(self, Path(folder))

    # One call, for Ming and the server.

    def prepare(
        self,
        messages: Any,
        *,
        system: str | None = None,
        thinking: bool = False,
        answer_start: str = "",
        painting: bool = False,
        image_gen_highres: bool | int = False,
        image_gen_aspect_ratio: float | None = None,
    ) -> ModelInputs:
        """One conversation (or a list of conversations) -> everything the model reads.

        answer_start  first words of the answer, put into the model's mouth: `Chinese\\t` before a transcript
        painting      also what only the painter reads
        """
        batch = _batch(messages)
        images, videos, audios = self.process_vision_info(batch)
        return self(
            text=[self._render(turns, system, thinking) for turns in batch],
            images=images,
            videos=videos,
            audios=audios,
            answer_start=answer_start,
            painting=painting,
            image_gen_highres=image_gen_highres,
            image_gen_aspect_ratio=image_gen_aspect_ratio,
        )

    def prepare_content(self, parts: Sequence[Part]) -> ModelInputs:
        """What a user's message holds, without the marks of its role: a conversation that goes on is read in pieces."""
        message = Message("user", parts)
        images, videos, audios = self.process_vision_info(message)
        return self(content(message, self.behaviour, self._escape), images, videos, audios, painting=False)

    def around_question(self) -> tuple[str, str]:
        """What the prompt of a conversation has before and after its first question."""
        before, _, after = self.apply_chat_template([Message("user", [Text("?")])]).rpartition("?")
        return before, after

    # The published surface: three steps.

    def apply_chat_template(
        self, conversation: Any, sys_prompt_exp: str | None = None, use_cot_system_prompt: bool = False, **_
    ) -> str | list[str]:
        """The prompt as text, media as placeholders; other arguments are swallowed as published (spec Q33)."""
        texts = [self._render(turns, sys_prompt_exp, use_cot_system_prompt) for turns in _batch(conversation)]
        return texts if _is_batch(conversation) else texts[0]

    def process_vision_info(self, conversations: Any) -> tuple[list | None, list | None, list | None]:
        """Pictures after the loader's resize, videos (T, 3, H, W), sounds (samples, rate), in reading order."""
        images, videos, audios = [], [], []
        for part in (part for turns in _batch(conversations) for turn in turns for part in turn.content):
            options = {f.name: getattr(part, f.name) for f in fields(part) if f.name not in ("source", "text")}
            options = {name: value for name, value in options.items() if value is not None}
            if isinstance(part, Image):
                images += [self._fetch(source, **options) for source in sources(part)]
            elif isinstance(part, Video):
                videos.append(load_video(part.source, replace(self.video_options, **options), self.behaviour))
            elif isinstance(part, Audio):
                audios += [read_audio(source) for source in sources(part)]
        return images or None, videos or None, audios or None

    def __call__(
        self,
        text: str | Sequence[str],
        images: Any = None,
        videos: Any = None,
        audios: Any = None,
        *,
        return_tensors: str = "pt",
        audio_kwargs: dict | None = None,
        answer_start: str = "",
        painting: bool = True,
        image_gen_highres: bool | int = False,
        image_gen_aspect_ratio: float | None = None,
    ) -> ModelInputs:
        """Texts with placeholders, and the media they stand for from left to right -> ModelInputs."""
        if return_tensors not in ("pt", None):
            raise InputError(f"tensors are returned as 'pt', not {return_tensors!r}")
        texts = [text] if isinstance(text, str) else text
        if (
            not isinstance(texts, list | tuple)
            or not texts
            or not all(isinstance(t, str) for t in (*texts, answer_start))
        ):
            raise InputError("a processor reads text or a list of texts")
        images = [image if isinstance(image, Pillow.Image) else self._fetch(image) for image in _listed(images)]
        inputs: dict[str, Any] = {}
        expansions: dict[str, list[str]] = {placeholder: [] for placeholder in PLACEHOLDERS.values()}
        if images:
            rows, grids = self.image_processor(images)
            inputs |= {"pixel_values": rows, "image_grid_thw": grids}
            expansions["<IMAGE>"] = self._visual("image", grids)
        if videos is not None and len(videos):
            rows, grids = self.image_processor.videos([torch.as_tensor(video) for video in _listed(videos)])
            inputs |= {"pixel_values_videos": rows, "video_grid_thw": grids}
            expansions["<VIDEO>"] = self._visual("video", grids)
        lengths: list[int] = []
        if audios is not None and len(audios):
            use_whisper = (audio_kwargs or {}).get("use_whisper_encoder", True)
            sounds = [self._clips(*_waveform(audio)) for audio in _listed(audios)]
            features, num_frames = self.audio_processor([clip for sound in sounds for clip in sound], use_whisper)
            inputs |= {"audio_feats": features, "audio_feats_lengths": num_frames}
            lengths = [self.audio_processor.num_tokens(int(n), use_whisper) for n in num_frames[0]]
            spans = iter([f"<audio>{'<audioPatch>' * length}</audio>" for length in lengths])
            expansions["<AUDIO>"] = ["".join(next(spans) for _ in sound) for sound in sounds]

        rows = [self.tokenizer.encode(row) for row in self._expand(texts, expansions)]
        rows = [row + self.tokenizer.encode(self.tokenizer.escape(answer_start)) for row in rows]
        inputs["input_ids"], inputs["attention_mask"] = self._pad(rows)
        if lengths:
            inputs["audio_placeholder_loc_lens"] = self._audio_spans(inputs["input_ids"], lengths)
        if painting:
            inputs["image_gen_text"] = [glyph_text(self.tokenizer.unescape(row)) for row in texts]
            inputs |= canvas(images[0] if images else None, image_gen_highres, image_gen_aspect_ratio)
        return ModelInputs(inputs)

    @property
    def gen_terminator(self) -> list[int]:
        """The ids that end an answer."""
        return [self.tokenizer.token_id(self.template.end)]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False, **kwargs) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens, **kwargs)

    def batch_decode(self, rows: Iterable[Iterable[int]], skip_special_tokens: bool = False, **kwargs) -> list[str]:
        return self.tokenizer.batch_decode(rows, skip_special_tokens, **kwargs)

    # Steps of the above.

    def _render(self, turns: Sequence[Message], system: str | None, thinking: bool) -> str:
        if not isinstance(system, str | None):
            raise InputError(f"a system prompt is text, not {type(system).__name__}")
        return render(
            self.template,
            turns,
            system=system,
            thinking=thinking,
            behaviour=self.behaviour,
            escape=self._escape,
        )

    def _escape(self, text: str) -> str:
        return self.tokenizer.escape(text, *PLACEHOLDERS.values())

    def _fetch(self, source: Any, **options) -> Pillow.Image:
        return fetch_image(load_image(source, self.behaviour), factor=self.image_processor.factor, **options)

    def _clips(self, waveform: Tensor, rate_hz: int) -> list[Tensor]:
        return clips(one_channel(waveform, rate_hz, self.behaviour), self.audio_processor.max_seconds, self.behaviour)

    def _visual(self, kind: str, grids: Tensor) -> list[str]:
        """`<image>` and as many patches as tokens, for each grid; a new line after it, as published (spec Q21)."""
        patch = {"image": "<imagePatch>", "video": "<framePatch>"}[kind]
        self.tokenizer.token_id(patch)  # a model that cannot see says so here
        counts = [self.image_processor.num_tokens(grid) for grid in grids]
        return [f"<{kind}>{patch * count}</{kind}>\n" for count in counts]

    def _expand(self, texts: list[str], expansions: dict[str, list[str]]) -> list[str]:
        """Placeholders, from left to right through all texts, become the tokens of their medium."""
        left: dict[str, Iterator[str]] = {placeholder: iter(texts) for placeholder, texts in expansions.items()}

        def fill(match: re.Match) -> str:
            filled = next(left[match[0]], None)
            if filled is None:
                raise InputError(f"there are more {match[0]} placeholders than media to fill them")
            return filled

        texts = [_ANY_PLACEHOLDER.sub(fill, text) for text in texts]
        # A sound without a placeholder goes to the end, as published; a picture without one is a mistake.
        texts[-1] += "".join(f"{sound}\n" for sound in left["<AUDIO>"])
        for placeholder in ("<IMAGE>", "<VIDEO>"):
            if list(left[placeholder]) and self.behaviour.markers == "escape":
                raise InputError(f"there are fewer {placeholder} placeholders than media")
        return texts

    def _pad(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Ragged rows -> (B, T) ids and mask; the shorter ones begin with padding."""
        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id or 0
        ids = [[pad] * (longest - len(row)) + row for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        return torch.tensor(ids, dtype=torch.long), torch.tensor(mask, dtype=torch.long)

    def _audio_spans(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """(B, n, 2): where each clip's tokens start, and how many they are."""
        start, patch = self.tokenizer.token_id("<audio>"), self.tokenizer.token_id("<audioPatch>")
        opened = (ids[:, :-1] == start) & (ids[:, 1:] == patch)
        spans = torch.zeros(len(ids), int(opened.sum(1).max()), 2, dtype=torch.long)
        remaining = iter(lengths)
        for row, found in enumerate(opened):
            for i, (before, length) in enumerate(zip(found.nonzero()[:, 0].tolist(), remaining, strict=False)):
                spans[row, i] = torch.tensor([before + 1, length])
        return spans


def _chat_format(tokenizer: Tokenizer) -> str:
    for name, template in TEMPLATES.items():
        if tokenizer.core.token_to_id(template.end) is not None:
            return name
    raise InputError("the tokenizer has the end marker of no known chat format")


def _is_batch(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, list | tuple) for item in value)


def _batch(value: Any) -> list[list[Message]]:
    return [conversation(item) for item in value] if _is_batch(value) else [conversation(value)]


def _listed(value: Any) -> list:
    """Nothing, one medium, or a list of them -> a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _waveform(audio: Any) -> tuple[Tensor, int]:
    return (as_channels(audio[0]), audio[1]) if isinstance(audio, tuple) else read_audio(audio)
