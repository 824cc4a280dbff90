"""A model, and batches of pictures, films, speech and text on its device -> losses; what learns, at which rate.

Helpers learn beside the model and are thrown away afterwards: one names what each cell of a picture shows from its
token alone, one spells what is heard from the audio tokens alone (CTC), one tells from them the language or dialect.
All tell the encoders what to keep long before the thinker has learned to look or listen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ming_omni.data.films import FRAMES
from ming_omni.inputs.processor import MingProcessor
from ming_omni.model.moe import MoE
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.train.senses import balancing, ears, eyes
from ming_omni.train.senses.cells import Cells, Words
from ming_omni.train.senses.network import Network, Rows, Thought, shipped
from ming_omni.train.senses.rows import Batch
from ming_omni.train.senses.settings import Settings
from ming_omni.train.senses.sounds import SPOKEN

RIGHT = "right/"
"""Begins the names of what is no loss: the share of tokens that would have been said right."""


@dataclass
class Sizes:
    """What the batches are about."""

    still_grid: tuple[int, int, int]
    still_sizes: list[tuple[int, int]]
    film_grid: tuple[int, int, int]
    cells: dict[str, int]
    """How many things, colours and letters a cell may show."""
    names: dict[str, list[str]]
    """What these labels mean, see `pictures.Labels`."""
    letters: int
    """How many letters may be heard, the blank not counted."""


class Learner(nn.Module):
    def __init__(self, model: MingForConditionalGeneration, processor: MingProcessor, settings: Settings, sizes: Sizes):
        super().__init__()
        self.model, self.settings, self.sizes = model, settings, sizes
        self.image_processor = processor.image_processor
        self.network = Network(model.thinker, settings.learn.rank)
        self.eyes, self.ears = eyes.Eyes(model.vision), ears.Ears(model.audio)
        merged, width = model.config.vision.out_hidden_size, model.config.thinker.hidden_size
        self.cells = Cells(merged, sizes.cells)
        self.words = Words(model.thinker.embedding.weight.detach(), processor.tokenizer.encode, sizes.names)
        self.letters = nn.Linear(width, sizes.letters + 1)
        self.spoken = nn.Linear(width, len(SPOKEN))
        self.groups = self._choose()
        self.biases: balancing.Biases | None = None
        self.loads: Tensor | None = None

    # What learns.

    def _choose(self) -> dict[str, list[nn.Parameter]]:
        """Freeze everything, then wake what learns, in groups of one rate; frozen matrices are rounded to bf16."""
        model, learn = self.model, self.settings.learn
        self.requires_grad_(False)
        mixtures = [layer.mlp for layer in model.thinker.layers if isinstance(layer.mlp, MoE)]
        groups = {
            "vision": list(model.vision.parameters()),
            "projector": list(model.audio.projector.parameters()),
            "experts": [p for moe in mixtures for p in moe.experts.parameters()],
            "routers": [router.weight for moe in mixtures for router in moe.routers.values()],
            "low_rank": list(self.network.low_rank.parameters()),
            "heads": [p for helper in self.helpers.values() for p in helper.parameters()],
        }
        if learn.audio_layers:
            late = model.audio.layers[-learn.audio_layers :]
            groups["audio"] = [*late.parameters(), *model.audio.norm.parameters()]
        for parameters in groups.values():
            for parameter in parameters:
                parameter.requires_grad_(True)
        return groups

    def names(self) -> dict[str, nn.Parameter]:
        """Everything that training changes, by the names under which it is exported; the helpers are left out."""
        found = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        found |= {
            name: p for name, p in self.model.named_parameters() if name.endswith(".bias") and ".routers." in name
        }
        for place, added in self.network.low_rank.items():
            layer, _, matrix = place.partition("_")
            for part in ("a", "b"):
                found[f"thinker.layers.{layer}.attention.{matrix}.lora_{part}"] = getattr(added, part)
        return found

    @property
    def helpers(self) -> dict[str, nn.Module]:
        return {"cells": self.cells, "words": self.words, "letters": self.letters, "spoken": self.spoken}

    def helper_names(self) -> dict[str, nn.Parameter]:
        """The helpers, by the names under which they are exported."""
        return {
            f"helpers.{part}.{name}": p
            for part, helper in self.helpers.items()
            for name, p in helper.named_parameters()
        }

    def to_device(self, device: torch.device) -> None:
        """What is frozen becomes bf16 on a GPU; what learns stays fp32."""
        self.to(device)
        if device.type == "cuda":
            for parameter in self.parameters():
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(torch.bfloat16)
        self.biases = balancing.Biases(self.model.thinker)

    @contextmanager
    def merged(self) -> Iterator[MingForConditionalGeneration]:
        """The model as it ships, for as long as the block lasts: additions inside its matrices, experts in 4 bits."""
        kept: dict[str, tuple[nn.Parameter, Tensor]] = {}
        with torch.no_grad():
            for place, added in self.network.low_rank.items():
                layer, _, matrix = place.partition("_")
                linear = getattr(self.model.thinker.layers[int(layer)].attention, matrix)
                kept[place] = linear.weight, linear.weight.data
                linear.weight.data = (linear.weight.float() + added.product()).to(linear.weight.dtype)
            for name, weight in self.model.thinker.named_parameters():
                if ".experts." in name:
                    kept[name] = weight, weight.data
                    weight.data = shipped(weight.data)
        try:
            yield self.model
        finally:
            for weight, data in kept.values():
                weight.data = data

    # Losses.

    def autocast(self) -> torch.autocast:
        """For the encoders and helpers, whose weights are fp32; the thinker chooses its own types."""
        device = self.letters.weight.device.type
        return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")

    def forward(self, batches: Sequence[Moved]) -> dict[str, Tensor]:
        """All batches of a step in one pass; the names of losses begin with their kind."""
        found: dict[str, Tensor] = {}
        groups = []
        for batch in batches:
            tokens, helpers = self._media(batch)
            groups.append((batch.rows, tokens))
            found |= helpers
        thought = self.network(*groups)
        hidden = thought.hidden.split([batch.rows.ids.numel() for batch in batches])
        for batch, own in zip(batches, hidden, strict=True):
            found |= self._likeness(batch, own) if batch.kind == "texts" else self._answers(batch, own)
        return found | self._balance(thought)

    def _media(self, batch: Moved) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Media tokens (B, M, D), and what the helpers make of them."""
        match batch.kind:
            case "pictures":
                patches = eyes.still_patches(batch.media["pictures"], self.sizes.still_sizes, self.image_processor)
                return self._see(batch, patches, self.sizes.still_grid)
            case "films":
                size = tuple(n * self.image_processor.patch_size for n in self.sizes.film_grid[1:])
                patches = eyes.film_patches(batch.media["pictures"], size, FRAMES, self.image_processor)
                return self._see(batch, patches, self.sizes.film_grid)
            case "speech":
                return self._hear(batch)
        return None, {}

    def _see(self, batch: Moved, patches: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, dict[str, Tensor]]:
        with self.autocast():
            tokens, merged = self.eyes(patches, len(batch.rows.ids), grid)
            shown = self.cells(merged)
        learn, labels, found = self.settings.learn, batch.media["cells"], {}
        for name, loss in self.cells.losses(shown, labels).items():
            found[f"{batch.kind}/{name}"] = learn.cells * loss
        for name, loss in self.words.losses(tokens, labels).items():
            found[f"{batch.kind}/word/{name}"] = learn.words * loss
        return tokens, found

    def _hear(self, batch: Moved) -> tuple[Tensor, dict[str, Tensor]]:
        media = batch.media
        with self.autocast():
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.settings.learn.audio_layers > 0):
                encoded = self.ears.encode(media["features"], media["frames"])
            tokens = self.ears(encoded)
            normal = F.layer_norm(tokens.float(), tokens.shape[-1:])
            spelled, spoken = self.letters(normal), self.spoken(normal)
        logits = spelled.float().log_softmax(-1).transpose(0, 1)  # (L, B, letters + 1)
        lengths = media["num_letters"]
        loss = F.ctc_loss(logits, media["letters"], media["tokens"], lengths, reduction="none", zero_infinity=True)
        is_heard = torch.arange(spoken.shape[1], device=spoken.device) < media["heard"][:, None]
        means = (spoken.float() * is_heard[..., None]).sum(1) / media["heard"][:, None]
        settings = self.settings.speech
        return tokens, {
            "speech/letters": settings.letters * (loss / lengths.to(loss)).mean(),
            "speech/languages": settings.languages * F.cross_entropy(means, media["spoken"]),
        }

    def _answers(self, batch: Moved, hidden: Tensor) -> dict[str, Tensor]:
        logits = self.network.logits(hidden[batch.asked]).float()
        right = (logits.detach().argmax(-1) == batch.answers).float().mean()
        return {batch.kind: F.cross_entropy(logits, batch.answers), f"{RIGHT}{batch.kind}": right}

    def _likeness(self, batch: Moved, hidden: Tensor) -> dict[str, Tensor]:
        """How far from the base, and how well the text itself is said."""
        with torch.no_grad():
            base = self.network((batch.rows, None), is_base=True)
            wanted = self.network.logits(base.hidden[batch.asked]).float().log_softmax(-1)
        logits = self.network.logits(hidden[batch.asked]).float()
        distance = F.kl_div(logits.log_softmax(-1), wanted, reduction="batchmean", log_target=True)
        settings = self.settings.texts
        return {
            "texts": settings.answers * F.cross_entropy(logits, batch.answers),
            "texts/likeness": settings.likeness * distance,
        }

    def _balance(self, thought: Thought) -> dict[str, Tensor]:
        settings = self.settings.balance
        auxiliary, z, self.loads = balancing.costs(thought.logits, thought.chosen, thought.is_one, settings.auxiliary)
        return {"balance/auxiliary": auxiliary, "balance/z": settings.z_loss * z}


class Moved(NamedTuple):
    """A batch on the device; fields as in `rows.Batch`."""

    kind: str
    rows: Rows
    asked: Tensor
    answers: Tensor
    media: dict[str, Tensor]


def on_device(batch: Batch, device: torch.device, store: Tensor | None, num_mel_bins: int) -> Moved:
    """A batch -> what `Learner` reads: tensors on the device, sounds as mel frames."""

    def put(array, dtype: torch.dtype) -> Tensor:
        tensor = torch.from_numpy(array).to(dtype)
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

    rows = Rows(
        put(batch.ids, torch.long),
        put(batch.source, torch.long),
        put(batch.places, torch.long),
        put(batch.modality, torch.long),
        None if batch.segment is None else put(batch.segment, torch.long),
    )
    media: dict[str, Tensor] = {}
    if batch.kind == "speech" and batch.media:
        media = _sounds(batch, store, put, num_mel_bins)
    elif batch.media:
        media = {"pictures": put(batch.media["pictures"], torch.uint8), "cells": put(batch.media["cells"], torch.long)}
    return Moved(batch.kind, rows, put(batch.asked, torch.long), put(batch.answers, torch.long), media)


def _sounds(batch: Batch, store: Tensor, put, num_mel_bins: int) -> dict[str, Tensor]:
    found = batch.media
    # Few different sizes, so that memory is used again.
    size = -(-int(found["length"].max()) // ears.QUARTER) * ears.QUARTER
    starts, lengths, new = (put(found[name], torch.long) for name in ("starts", "lengths", "length"))
    samples = ears.samples_of(store, starts, lengths, put(found["speed"], torch.float64), new, size)
    treatments = ears.Treatments(
        *(
            put(found[name], torch.bool if name == "is_telephone" else torch.float32)
            for name in ears.Treatments.__annotations__
        )
    )
    samples = ears.treat(samples, new, treatments)
    return {
        "features": ears.log_mels(samples, new, num_mel_bins),
        "frames": ears.num_frames(new),
        "letters": put(found["letters"], torch.long),
        # The lengths stay on the host: the loss asks for them there.
        "tokens": torch.from_numpy(found["tokens"]),
        "num_letters": torch.from_numpy(found["num_letters"]),
        "heard": put(found["tokens"], torch.long),
        "spoken": put(found["spoken"], torch.long),
    }
