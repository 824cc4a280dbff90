"""Batches on a device -> losses: the frozen thinker reads, connector, glyphs and diffusion transformer learn to paint.

Two linear helpers learn beside them and are thrown away afterwards: one names what each cell of the picture is to show
from the middle of the network, one names the things that the prompt tells of from the condition alone. They carry the
words into the picture long before the noise would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ming_omni.model import flow
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.model.painter import Painter, sigmas
from ming_omni.train.painter.network import Network
from ming_omni.train.painter.pictures import Pictures
from ming_omni.train.painter.reader import Prompts, Reader
from ming_omni.train.painter.requests import SLOTS
from ming_omni.train.painter.settings import Settings
from ming_omni.train.senses.cells import Cells

ABOUT = "about/"
"""Figures that no gradient comes from."""
PAINTING, DISTILLING = "painting", "distilling"
COUNTS = 7
"""A prompt tells of at most six things of a kind; 0: of none."""
STUDENT = ("dit.", "condition_mlp.")
"""What learns while few steps are learned; the condition itself stays as it was."""


@dataclass
class Moved:
    """A batch on its device."""

    kind: str
    prompts: Prompts
    pictures: Pictures
    letters: tuple[Tensor, Tensor]
    """(L, M) bytes and mask of the last L requests"""
    cells: Tensor
    told: Tensor
    event: torch.cuda.Event | None = None
    """Recorded when all of it was there, where another stream made it."""

    @property
    def count(self) -> int:
        return len(self.prompts.ids)

    def tensors(self) -> Iterator[Tensor]:
        parts = (*vars(self.prompts).values(), *self.pictures, *self.letters, self.cells, self.told)
        return (part for part in parts if isinstance(part, Tensor))

    def wait(self) -> None:
        """Before the present stream uses it."""
        if self.event is not None:
            stream = torch.cuda.current_stream()
            stream.wait_event(self.event)
            for tensor in self.tensors():
                tensor.record_stream(stream)


class Learner(nn.Module):
    def __init__(self, model: MingForConditionalGeneration, settings: Settings, cells: dict[str, int]):
        """cells: how many things, colours and letters a cell may show"""
        super().__init__()
        self.model, self.settings = model, settings
        painter: Painter = model.painter
        self.reader, self.network = Reader(model.thinker, painter), Network()
        self.cells = Cells(painter.config.dit.hidden_size, cells)
        told = (cells["thing"], cells["colour"], COUNTS)
        self.told = nn.ModuleList(nn.Linear(painter.config.condition_width, size) for size in told)
        self.phase = PAINTING
        self.teacher: nn.ModuleDict | None = None
        self.groups = self._choose()
        self.average = {name: p.detach().clone() for name, p in self.names().items()}

    # What learns.

    @property
    def painter(self) -> Painter:
        return self.model.painter

    @property
    def device(self) -> torch.device:
        return self.cells.thing_weight.device

    def _choose(self) -> dict[str, list[nn.Parameter]]:
        """Freeze everything, then wake what learns in this phase, in groups of one rate."""
        self.requires_grad_(False)
        learn, names = self.settings.learn, self.names()
        if self.phase == DISTILLING:
            groups = {"student": [p for name, p in names.items() if name.startswith(STUDENT)]}
        else:
            groups = {
                "painter": [p for name, p in names.items() if not name.startswith("queries.")],
                "queries": [p for name, p in names.items() if name.startswith("queries.") and learn.queries],
                "helpers": [*self.cells.parameters(), *self.told.parameters()],
            }
        for parameters in groups.values():
            for parameter in parameters:
                parameter.requires_grad_(True)
        return {name: parameters for name, parameters in groups.items() if parameters}

    def names(self) -> dict[str, nn.Parameter]:
        """All of the painter that is not the autoencoder."""
        return {name: p for name, p in self.painter.named_parameters() if not name.startswith("vae.")}

    def to_device(self, device: torch.device) -> None:
        """Thinker and autoencoder become bf16 on a GPU; what learns stays fp32, and so do the eyes, under autocast."""
        self.to(device)
        if device.type == "cuda":
            for name, parameter in self.model.thinker.named_parameters():
                if ".routers." not in name:  # a rounded router would choose other experts
                    parameter.data = parameter.data.to(torch.bfloat16)
            self.painter.vae.to(torch.bfloat16, memory_format=torch.channels_last)
        self.average = {name: value.to(device) for name, value in self.average.items()}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """The average takes a part of the present weights; a larger one in the first steps."""
        keep = min(self.settings.learn.average, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), [p.data for p in self.names().values()], 1 - keep)

    @contextmanager
    def averaged(self) -> Iterator[Painter]:
        """The painter with averaged weights, for as long as the block lasts."""
        kept = {name: p.data for name, p in self.names().items()}
        for name, p in self.names().items():
            p.data = self.average[name]
        try:
            yield self.painter
        finally:
            for name, p in self.names().items():
                p.data = kept[name]

    @torch.no_grad()
    def begin_distilling(self) -> None:
        """What has been learned so far becomes the teacher, and the student begins as it."""
        for name, p in self.names().items():
            p.copy_(self.average[name])
        painter = self.painter
        self.teacher = nn.ModuleDict({"dit": deepcopy(painter.dit), "condition_mlp": deepcopy(painter.condition_mlp)})
        self.teacher.requires_grad_(False)
        self.phase = DISTILLING
        self.groups = self._choose()

    # Losses.

    def autocast(self) -> torch.autocast:
        device = self.device.type
        return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")

    def forward(self, batches: Sequence[Moved]) -> dict[str, Tensor]:
        """All batches of a step; losses are shares of the mean over their pictures, named by their kind."""
        for batch in batches:
            batch.wait()
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.phase == PAINTING):
            states = self.reader(self.painter, [batch.prompts for batch in batches])
            with self.autocast():
                conditions = [self.painter.condition(own) for own in states]
        total, found = sum(batch.count for batch in batches), {}
        for batch, condition in zip(batches, conditions, strict=True):
            with self.autocast():
                for name, loss in self._losses(batch, condition).items():
                    found[name] = loss if name.startswith(ABOUT) else batch.count / total * loss
        return found

    def _losses(self, batch: Moved, condition: Tensor) -> dict[str, Tensor]:
        kind, learn = batch.kind, self.settings.learn
        if self.phase == DISTILLING:
            return {kind: self._over_groups(batch, condition, self._distil)[0]}
        loss, middle = self._over_groups(batch, condition, self._paint)
        found = {kind: loss}
        for name, value in self.cells.losses(self.cells(middle), batch.cells).items():
            found[f"{kind}/{name}"] = learn.cells * value
        found[f"{kind}/told"] = learn.told * self._told(condition, batch.told)
        return found

    def _over_groups(self, batch: Moved, condition: Tensor, cost: Callable) -> tuple[Tensor, Tensor | None]:
        """The mean over pictures that all have letters to draw, or none: the network never sees gaps."""
        num_lettered = len(batch.letters[0])
        split = batch.count - num_lettered
        losses, middles = [], []
        for rows in (slice(0, split), slice(split, batch.count)):
            if rows.start == rows.stop:
                continue
            own = condition[rows]
            if rows.start == split:
                letters = self.painter.glyphs(*batch.letters)
                own = torch.cat([own, letters.to(own.dtype)], 1)
            reference = None if batch.pictures.reference is None else batch.pictures.reference[rows]
            loss, middle = cost(batch.kind, own, batch.pictures.latents[rows], reference, batch.pictures.weight[rows])
            losses.append((rows.stop - rows.start) / batch.count * loss)
            middles.append(middle)
        return torch.stack(losses).sum(), None if middles[0] is None else torch.cat(middles)

    def _paint(
        self, kind: str, condition: Tensor, latents: Tensor, reference: Tensor | None, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Flow matching as in `Painter.forward`, at several noise levels of each picture; the first's middle."""
        learn, shift = self.settings.learn, self.painter.config.flow.shift
        condition, latents, reference, weight = _repeat(learn.noises, condition, latents.float(), reference, weight)
        sigma = flow.shift(spread(len(latents), latents.device), shift)
        keep = torch.rand(len(latents), 1, 1, device=latents.device) >= learn.drop
        context, pooled = self.painter.context(condition * keep)
        middles = []

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            time = sigma * self.painter.config.flow.num_train_steps
            made, middle = self.network(self.painter.dit, x, time, context, pooled, reference, self.training)
            middles.append(middle[: len(latents) // learn.noises])
            return made

        loss = flow.flow_loss(velocity, latents, torch.randn_like(latents), sigma, weight)
        return loss, middles[0]

    def _distil(
        self, kind: str, condition: Tensor, latents: Tensor, reference: Tensor | None, weight: Tensor
    ) -> tuple[Tensor, None]:
        """One step of the sampler's grid as the teacher, guided, goes it in several."""
        settings = self.settings.distil
        condition, latents, reference, weight = _repeat(settings.noises, condition, latents.float(), reference, weight)
        grid = self._grid(latents)
        number = torch.randint(len(grid) - 2, (len(latents),), device=latents.device)  # the last step is next to none
        here, there = grid[number], grid[number + 1]
        point, _ = flow.on_line(latents, torch.randn_like(latents), here)
        with torch.no_grad():
            guidance = settings.guidance if kind == "paint" else settings.edit_guidance
            end = self._guided(point, here, there, condition, reference, guidance)
            wanted = (end - point) / (there - here)[:, None, None, None]
        context, pooled = self.painter.context(condition)
        time = here * self.painter.config.flow.num_train_steps
        made, _ = self.network(self.painter.dit, point, time, context, pooled, reference, self.training)
        error = (made.float() - wanted).square() * weight
        return error.mean(), None

    def _grid(self, latents: Tensor) -> Tensor:
        """Noise levels of the product's sampler (steps + 1,)."""
        config = self.painter.config
        cells = latents.shape[2] * latents.shape[3] // config.dit.patch_size**2
        return sigmas(config.flow, config.steps, cells).to(latents.device, non_blocking=True)

    def _guided(
        self, x: Tensor, here: Tensor, there: Tensor, condition: Tensor, reference: Tensor | None, guidance: float
    ) -> Tensor:
        """The teacher's way from noise level `here` (B,) to `there`, with and without the words in one batch."""
        dit, mlp, config = self.teacher["dit"], self.teacher["condition_mlp"], self.painter.config
        context = mlp(torch.cat([condition, torch.zeros_like(condition)]))
        pooled = context.mean(1).unflatten(-1, (config.dit.pooled_width, -1)).mean(-1)
        reference = None if reference is None else reference.repeat(2, 1, 1, 1)
        steps = self.settings.distil.substeps
        for number in range(steps):
            sigma = torch.lerp(here, there, number / steps)
            time = (sigma * config.flow.num_train_steps).repeat(2)
            made, _ = self.network(dit, x.repeat(2, 1, 1, 1), time, context, pooled, reference, self.training)
            told, untold = made.float().chunk(2)
            velocity = untold + guidance * (told - untold)
            x = x + velocity * ((there - here) / steps)[:, None, None, None]
        return x

    def _told(self, condition: Tensor, told: Tensor) -> Tensor:
        """The first tokens of the condition name a thing each; told (B, SLOTS, 3)."""
        slots = condition[:, :SLOTS] * condition.shape[-1] ** 0.5  # unit vectors, made as long as a head expects
        losses = [
            F.cross_entropy(head(slots).float().flatten(0, 1), told[..., number].flatten())
            for number, head in enumerate(self.told)
        ]
        return torch.stack(losses).mean()


def spread(count: int, device: torch.device) -> Tensor:
    """Noise levels (count,) in (0, 1) as `flow.logit_normal` draws them, but evenly spread over its range."""
    order = torch.rand(count, device=device).argsort()
    even = (order + torch.rand(count, device=device)) / count
    return (2**0.5 * torch.erfinv((2 * even - 1).clamp(-1 + 1e-6, 1 - 1e-6))).sigmoid()


def _repeat(times: int, *tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.repeat(times, *[1] * (t.dim() - 1)) for t in tensors]
