"""Lines of a training set -> the batches of a step. A batch depends on the seed, the step and the rank alone.

So a run that was stopped needs nothing but its step to go on with the very batches that it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ming_omni.config import TalkerConfig
from ming_omni.errors import InputError
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.train.examples import Answer, Example, Painting, Picture, Reader, Sound, Speech
from ming_omni.train.folder import BadExample, Line
from ming_omni.train.losses import IGNORE
from ming_omni.train.packing import Packed, pack, presence
from ming_omni.train.recipe import DataSettings
from ming_omni.train.seeds import generator


def order(num_lines: int, seed: int, start: int, count: int) -> list[int]:
    """Places start ... start + count of an endless sequence in which every line comes once per round, shuffled anew."""
    shuffles: dict[int, list[int]] = {}
    found = []
    for place in range(start, start + count):
        round_number, within = divmod(place, num_lines)
        if round_number not in shuffles:
            mixed = torch.randperm(num_lines, generator=generator(seed, "order", round_number))
            shuffles[round_number] = mixed.tolist()
        found.append(shuffles[round_number][within])
    return found


@dataclass
class Batch:
    """Examples of one kind that the model reads together."""

    kind: str
    strength: float
    where: list[str]
    """The lines it comes from."""
    count: int
    """What its loss is a mean over: targets, pictures, patches or sounds."""
    name: str = ""
    """Of the set."""
    num_tokens: int = 0
    """Tokens that the thinker or the talker reads."""
    packed: Packed | None = None
    present: Tensor = field(default_factory=lambda: torch.zeros(3))
    """(3,) sequences with tokens of each modality"""
    targets: Tensor | None = None
    """answer: (1, T)"""
    pixels: Tensor | None = None
    """paint, edit, code_image: (B, 3, S, S)"""
    reference: Tensor | None = None
    """edit: (B, 3, S, S)"""
    texts: list[str] | None = None
    """paint, edit: letters to draw, empty for a picture without; None when no picture has any"""
    seeds: list[int] = field(default_factory=list)
    """paint, edit: of each picture's noise"""
    ids: Tensor | None = None
    """speak: (B, T)"""
    text_lengths: Tensor | None = None
    samples: Tensor | None = None
    """speak, code_sound: (B, n)"""
    num_patches: Tensor | None = None
    """speak: (B,)"""
    labels: list[str] = field(default_factory=list)
    """code_image: what each picture shows, empty where nobody said"""

    def to(self, device: torch.device) -> Batch:
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        if self.packed is not None:
            self.packed.inputs = {name: value.to(device) for name, value in self.packed.inputs.items()}
            self.packed.positions = self.packed.positions.to(device)
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Everything a person needs to look at it again."""
        own = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return own | (self.packed.inputs if self.packed else {})


def collate(
    kind: str, examples: Sequence[Example], model: MingForConditionalGeneration, strength: float = 1.0
) -> Batch:
    """Examples of one kind -> a batch; the model tells sizes only."""
    batch = Batch(kind, strength, [example.where for example in examples], len(examples))
    match examples[0]:
        case Answer() | Painting():
            rows = [example.inputs for example in examples]
            batch.packed, batch.present = pack(rows, model.config.thinker), presence(rows)
            batch.num_tokens = sum(batch.packed.lengths)
            if kind == "answer":
                _answers(batch, examples)
            else:
                _paintings(batch, examples)
                batch.num_tokens += len(examples) * len(model.painter.query_ids(model.config.thinker))
        case Speech():
            _speeches(batch, examples, model.talker.config)
        case Picture():
            batch.pixels = torch.stack([example.pixels for example in examples])
            batch.labels = [example.label for example in examples]
        case Sound():
            batch.samples = torch.stack([example.samples for example in examples])
    return batch


def _answers(batch: Batch, examples: Sequence[Answer]) -> None:
    # The last token of a sequence is asked nothing, so no sequence predicts the beginning of its neighbour.
    batch.targets = torch.cat([example.targets for example in examples])[None]
    batch.count = int((batch.targets != IGNORE).sum())


def _paintings(batch: Batch, examples: Sequence[Painting]) -> None:
    batch.pixels = torch.stack([example.pixels for example in examples])
    batch.seeds = [example.seed for example in examples]
    if batch.kind == "edit":
        batch.reference = torch.stack([example.reference for example in examples])
    texts = [example.text for example in examples]
    batch.texts = texts if any(texts) else None
    batch.present[1] = len(examples)  # query tokens go through the image router


def _speeches(batch: Batch, examples: Sequence[Speech], config: TalkerConfig) -> None:
    patch = config.patch_frames * config.vae.hop_samples
    batch.ids = pad_sequence([example.ids for example in examples], batch_first=True)
    batch.text_lengths = torch.tensor([len(example.ids) for example in examples])
    batch.samples = pad_sequence([example.samples for example in examples], batch_first=True)
    batch.num_patches = torch.tensor([len(example.samples) // patch for example in examples])
    batch.count = int(batch.num_patches.sum())
    batch.num_tokens = int(batch.text_lengths.sum()) + batch.count


class DataSet:
    """One folder of a recipe, cut into batches."""

    def __init__(self, name: str, settings: DataSettings, lines: Sequence[Line], reader: Reader, policy: str):
        if not lines:
            raise InputError(f"data.{name} has no usable line in {settings.folder}")
        self.name, self.settings, self.lines, self.reader, self.policy = name, settings, lines, reader, policy
        self.kind = lines[0].kind

    def batch(self, step: int, piece: int = 0, num_pieces: int = 1) -> tuple[Batch, list[BadExample]]:
        """The piece-th of the equal parts of a step's examples, and those of its examples that could not be used.

        The next usable line takes the place of a bad one, so that all parts stay equal.
        """
        size = self.settings.examples_per_step // num_pieces
        start = step * self.settings.examples_per_step + piece * size
        examples, bad = [], []
        for offset, index in enumerate(order(len(self.lines), self.reader.seed, start, size)):
            for line in (*self.lines[index:], *self.lines[:index]):
                try:
                    examples.append(self.reader.read(line, start + offset))
                    break
                except BadExample as error:
                    if self.policy == "stop":
                        raise
                    bad.append(error)
            else:
                raise InputError(f"data.{self.name}: not one line could be used; the last: {bad[-1]}")
        batch = collate(self.kind, examples, self.reader.model, self.settings.strength)
        batch.name = self.name
        return batch, bad
