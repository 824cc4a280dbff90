"""A talker and batches of rows on its device -> losses: of the patches' flow, of ends, of phonemes; then of few steps.

One pass teaches every patch of every row. Helpers, thrown away afterwards, read off each state which phonemes the next
patch will hold, and whose voice it is, as the teacher knows it: the state must know where in the text it is, and must
have listened to the prompt. At the end the flow alone goes on learning: to do in a few steps what its own mean does
with guidance in many.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ming_omni.config import TalkerConfig, talker_nano
from ming_omni.model.flow import euler, flow_loss, speech_grid
from ming_omni.model.talker import Talker
from ming_omni.train.talker.rows import Batch
from ming_omni.train.talker.settings import Settings
from ming_omni.train.talker.store import NUM_PHONEMES, SLOTS, VOICE_SIZE, Store

TINY_SYMBOLS = 320


class Moved(NamedTuple):
    """A batch on the device."""

    ids: Tensor  # (B, T)
    text_lengths: Tensor  # (B,)
    patches: Tensor  # (B, N, p, Z)
    phonemes: Tensor  # (B, N, SLOTS)
    voices: Tensor  # (B, VOICE_SIZE)
    is_real: Tensor  # (B, N) a patch, no filling
    is_learned: Tensor  # (B, N) and not of a prompt whose words nobody told
    is_last: Tensor  # (B, N)


def on_device(batch: Batch, store: Store) -> Moved:
    device = store.patches.device

    def put(array) -> Tensor:
        tensor = torch.from_numpy(array)
        tensor = tensor if tensor.dtype == torch.bool else tensor.long()
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

    firsts, counts, silent = put(batch.firsts), put(batch.counts), put(batch.silent)
    number = torch.arange(batch.num_patches, device=device)
    before = counts[:, :1]  # (B, 1)
    total = counts.sum(1, keepdim=True)
    place = torch.where(number < before, firsts[:, :1] + number, firsts[:, 1:] + number - before)  # (B, N)
    is_real = number < total
    place = place.where(is_real, 0)
    return Moved(
        put(batch.ids),
        put(batch.text_lengths),
        store.patches[place].float() * is_real[..., None, None],
        store.phonemes[place].long(),
        store.voices[store.clips[firsts[:, 1]]].float(),
        is_real,
        is_real & ((number >= before) | ~silent[:, None]),
        number == total - 1,
    )


class Learner(nn.Module):
    def __init__(self, talker: Talker, settings: Settings):
        """talker: its AudioVAE is frozen"""
        super().__init__()
        self.talker, self.settings = talker, settings
        talker.vae.requires_grad_(False)
        self.phonemes = nn.Linear(talker.config.backbone.hidden_size, SLOTS * NUM_PHONEMES)
        self.voices = nn.Linear(talker.config.backbone.hidden_size, VOICE_SIZE)
        self.old_flow = deepcopy(talker.flow).requires_grad_(False)
        """What the flow is distilled from, once that has begun."""
        self.register_buffer("few", speech_grid(talker.config.steps), persistent=False)
        """The new flow's times. To fetch them from the host in a step would be to wait for the device."""
        self.is_distilling = False
        self.num_averaged = 0
        self.mean = [p.detach().clone() for p in self.learned.values()]

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        """What ships, by its name in the talker."""
        return {name: p for name, p in self.talker.named_parameters() if not name.startswith("vae.")}

    @property
    def helpers(self) -> tuple[nn.Module, ...]:
        """What does not."""
        return self.phonemes, self.voices

    @property
    def learning(self) -> list[nn.Parameter]:
        """What learns now."""
        if self.is_distilling:
            return list(self.talker.flow.parameters())
        return [*self.learned.values(), *(p for helper in self.helpers for p in helper.parameters())]

    def to_device(self, device: torch.device) -> None:
        self.to(device)
        self.mean = [value.to(device) for value in self.mean]

    @torch.no_grad()
    def average(self) -> None:
        """Move the mean towards the weights: at first fast, so that it forgets where they began."""
        self.num_averaged += 1
        kept = min(self.settings.learn.average, self.num_averaged / (self.num_averaged + 10))
        torch._foreach_lerp_(self.mean, [p.data for p in self.learned.values()], 1 - kept)

    @contextmanager
    def averaged(self) -> Iterator[Talker]:
        """The talker with the mean weights, for as long as the block lasts."""
        parameters = list(self.learned.values())
        kept = [p.data for p in parameters]
        for parameter, mean in zip(parameters, self.mean, strict=True):
            parameter.data = mean
        try:
            yield self.talker
        finally:
            for parameter, data in zip(parameters, kept, strict=True):
                parameter.data = data

    @torch.no_grad()
    def begin_distilling(self) -> None:
        """The mean becomes the talker; from now on its flow alone learns, from what it was."""
        for parameter, mean in zip(self.learned.values(), self.mean, strict=True):
            parameter.copy_(mean)
        self.old_flow.load_state_dict(self.talker.flow.state_dict())
        self.is_distilling, self.num_averaged = True, 0

    # Losses.

    def autocast(self) -> torch.autocast:
        device = self.phonemes.weight.device.type
        return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")

    def forward(self, batch: Moved) -> dict[str, Tensor]:
        with self.autocast():
            return self.few_steps(batch) if self.is_distilling else self.speech(batch)

    def speech(self, batch: Moved) -> dict[str, Tensor]:
        settings, talker = self.settings.learn, self.talker
        heard = self._heard(batch.patches, settings.input_noise)
        hidden = talker.states(batch.ids, batch.text_lengths, heard)  # (B, N, D)
        learned = batch.is_learned.float()
        count = learned.sum().clamp(min=1)

        logits = self.phonemes(hidden).unflatten(-1, (SLOTS, -1)).float()
        told = F.cross_entropy(logits.flatten(0, 2), batch.phonemes.flatten(), reduction="none")
        told = (told.view_as(batch.phonemes).mean(-1) * learned).sum() / count
        unlike = (self.voices(hidden).float() - batch.voices[:, None]).square().mean(-1)
        unlike = (unlike * learned).sum() / count
        ends = F.cross_entropy(
            talker.stop_head(hidden).float().flatten(0, 1), batch.is_last.flatten().long(), reduction="none"
        )
        ends = (ends * learned.flatten()).sum() / count

        state, history, patch, weight = self._chosen(hidden, heard, batch, settings.flow_patches)
        state, history, patch, weight = (
            x.repeat(settings.draws, *[1] * (x.dim() - 1)) for x in (state, history, patch, weight)
        )
        kept = torch.rand(len(state), 1, device=state.device) >= talker.config.condition_dropout
        noise, time = torch.randn_like(patch), torch.rand(len(patch), device=patch.device)
        flow = flow_loss(
            lambda point, place: talker.flow(point, place, state * kept, history),
            noise,
            patch,
            time,
            weight[:, None, None],
        )
        helped = {"phonemes": settings.phonemes * told, "voices": settings.voices * unlike}
        return {"flow": flow, "stop": settings.stop * ends} | helped

    def few_steps(self, batch: Moved) -> dict[str, Tensor]:
        """The flow's own path from some noise, with guidance and many steps -> straight lines between its stations."""
        settings, few = self.settings.distill, self.few
        heard = self._heard(batch.patches, self.settings.learn.input_noise)
        # Layers that are compiled with gradients and without would be compiled twice.
        hidden = self.talker.states(batch.ids, batch.text_lengths, heard).detach()
        state, history, patch, weight = self._chosen(hidden, heard, batch, settings.patches)
        with torch.no_grad():
            points = self._path(few, state, history, torch.randn_like(patch))
        starts, ends = points[:-1], points[1:]  # (S, n, p, Z) each
        spans = few.diff()
        target = (ends - starts) / spans[:, None, None, None]
        times = few[:-1].repeat_interleave(len(patch))
        found = self.talker.flow(
            starts.flatten(0, 1), times, state.repeat(len(spans), 1), history.repeat(len(spans), 1, 1)
        )
        error = (found.float() - target.flatten(0, 1)).square().mean((1, 2)).view(len(spans), -1)
        # A wrong velocity matters as long as it is followed.
        error = (error * spans[:, None]).sum(0)
        return {"few_steps": (error * weight).sum() / weight.sum().clamp(min=1)}

    def _path(self, few: Tensor, state: Tensor, history: Tensor, noise: Tensor) -> Tensor:
        """Where the old flow is at the few times, itself taking finer steps: (S + 1, n, p, Z)."""
        settings = self.settings.distill
        parts = torch.arange(settings.substeps, device=few.device) / settings.substeps
        fine = torch.cat([(few[:-1, None] + few.diff()[:, None] * parts).flatten(), few[-1:]])
        velocity, number = self.old_flow.guided(fine[:-1], state, history, settings.guidance), itertools.count()
        points = [noise.float(), *euler(lambda point, _: velocity(point, next(number)).float(), noise.float(), fine)]
        return torch.stack(points[:: settings.substeps])

    def _heard(self, patches: Tensor, noise: float) -> Tensor:
        """What was spoken, as a talker hears it that errs: some rows more than others."""
        spread = noise * torch.rand(len(patches), 1, 1, 1, device=patches.device)
        return patches + spread * torch.randn_like(patches)

    def _chosen(self, hidden: Tensor, heard: Tensor, batch: Moved, count: int) -> tuple[Tensor, ...]:
        """At most `count` learned patches of a batch, always as many rows: state, history, patch, weight (n, ...)."""
        learned = batch.is_learned.flatten()
        count = min(count, len(learned))
        chosen = (learned + torch.rand(len(learned), device=learned.device)).topk(count).indices
        history = torch.cat([torch.zeros_like(heard[:, :1]), heard[:, :-1]], 1)
        rows = (x.flatten(0, 1)[chosen] for x in (hidden, history, batch.patches))
        return (*rows, learned[chosen].float())


def config_of(settings: Settings) -> TalkerConfig:
    config = talker_nano() if settings.model == "nano" else TalkerConfig(guidance=0.0)
    if settings.model != "nano":
        config.backbone.vocab_size = TINY_SYMBOLS
    config.steps = settings.distill.steps
    return config
