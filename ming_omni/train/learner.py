"""A batch -> the losses of its kind, as one module: whatever learns, and whatever judges it, lies inside.

Each loss is this batch's share of the mean over the whole step. Adding up all shares, over micro-batches and
processes, gives the mean; adding up gradients gives its gradient. Nothing else has to know about sharding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ming_omni.model import flow
from ming_omni.model.omni import MingForConditionalGeneration, Prompt
from ming_omni.model.painter import noise
from ming_omni.model.painting import last_grid, with_queries
from ming_omni.train import balance, losses, seeds
from ming_omni.train.batches import Batch
from ming_omni.train.critics import Classifier, PictureCritic, SoundCritic
from ming_omni.train.packing import Packed, PackedAttention
from ming_omni.train.recipe import Recipe


@dataclass
class Totals:
    """Of one step, over all micro-batches and processes."""

    count: float
    """What the set's loss is a mean over."""
    present: Tensor
    """(3,) sequences of all sets with tokens of each modality"""
    num_tokens: float
    """Tokens of all sets that the thinker reads."""
    num_batches: int
    """Batches of all sets in one process: batch-wise balance is a mean over them."""
    step: int = 0
    set_tokens: float = 0.0
    """Tokens of this set alone."""


class Learner(nn.Module):
    def __init__(self, model: MingForConditionalGeneration, recipe: Recipe, labels: list[str] | None = None):
        """labels: what the pictures of a code_image set may show."""
        super().__init__()
        self.model, self.recipe = model, recipe
        self.labels = labels or []
        self.critics = nn.ModuleDict()
        self.loads = balance.Loads(model.thinker)
        self.sum_processes: Callable[[Tensor], Tensor] = balance.alone
        self.always_used: list[str] = []
        """Parameters that need a gradient from every batch, if only of zero, so that all processes stay in step."""

    def add_critics(self, kinds: set[str]) -> None:
        """The judges that these kinds of batches need."""
        if "code_image" in kinds:
            self.critics["picture"] = PictureCritic()
            if self.labels:
                self.critics["classifier"] = Classifier(len(self.labels))
        if "code_sound" in kinds:
            self.critics["sound"] = SoundCritic()

    def forward(self, batch: Batch, totals: Totals, generator: torch.Generator) -> dict[str, Tensor]:
        found = getattr(self, f"_{batch.kind}")(batch, totals, generator)
        share = batch.count / totals.count * batch.strength
        shares = {name: value if name.startswith("balance") else share * value for name, value in found.items()}
        if self.always_used:
            shares["unused"] = 0 * torch.stack([self.get_parameter(name).sum() for name in self.always_used]).sum()
        return shares

    # The thinker.

    def _read(self, packed: Packed) -> Prompt:
        """Embeddings of a packed row, with positions that count within each sequence."""
        with isolated_clips(self.model):
            prompt = self.model.prepare(packed.inputs)
        return Prompt(prompt.ids, prompt.embeddings, packed.positions, prompt.delta, prompt.modality)

    def _think(self, prompt: Prompt, lengths: list[int], totals: Totals) -> tuple[Tensor, dict[str, Tensor]]:
        """Hidden states (1, T, D) of a packed row, and what balancing its experts costs."""
        config, balanced = self.model.config.thinker, self.loads.learning()  # other routers are left as they are
        output = self.model.thinker(
            prompt.embeddings,
            prompt.positions,
            modality=prompt.modality,
            cache=PackedAttention(lengths, config._attn_implementation),
            collect_routing=bool(balanced),
        )
        if not output.routing:
            return output.hidden, {}
        self.loads.add(output.routing)
        settings = self.recipe.balance
        by_sequence = settings.mode == "sequence"
        auxiliary = balance.auxiliary_loss(
            output.routing,
            settings.auxiliary.only(balanced),
            lengths if by_sequence else None,
            totals.present if by_sequence else None,
            self.sum_processes,
        )
        costs = {
            "balance/auxiliary": auxiliary if by_sequence else auxiliary / totals.num_batches,
            "balance/z": settings.z_loss * balance.z_loss(output.routing, totals.num_tokens),
        }
        return output.hidden, costs

    def _answer(self, batch: Batch, totals: Totals, generator: torch.Generator) -> dict[str, Tensor]:
        hidden, costs = self._think(self._read(batch.packed), batch.packed.lengths, totals)
        loss = losses.next_token(self.model.thinker.logits, hidden, batch.targets)
        return {"answer": loss / max(1, batch.count), **costs}

    # The painter.

    def _paint(self, batch: Batch, totals: Totals, generator: torch.Generator) -> dict[str, Tensor]:
        states, costs = self._states(batch.packed, totals)
        painter, recipe = self.model.painter, self.recipe.losses
        with torch.no_grad():
            latents = painter.vae.encode(batch.pixels)
            reference = None if batch.reference is None else painter.vae.encode(batch.reference)
        weight = None
        if batch.reference is not None:
            weight = losses.edit_weight(batch.reference, batch.pixels, recipe.edited_region, latents.shape[2:])
        sigma, keep = levels(batch.seeds, recipe.drop_condition)
        sigma, keep = flow.shift(sigma.to(latents), painter.config.flow.shift), keep.to(latents.device)
        noises = noise(batch.seeds, latents.shape[1:], torch.float32).to(latents)
        texts = batch.texts if batch.texts is not None and painter.glyphs is not None else [""] * batch.count

        def cost(rows: list[int], letters: list[str] | None) -> Tensor:
            """The sum over pictures that all have letters to draw, or none: the network never sees gaps."""
            extra = {"reference": reference, "weight": weight}
            extra = {name: None if value is None else value[rows] for name, value in extra.items()}
            loss = painter(
                states[rows], latents[rows], sigma[rows], noises[rows], texts=letters, keep=keep[rows], **extra
            )
            return len(rows) * loss

        lettered = [row for row, text in enumerate(texts) if text]
        plain = [row for row, text in enumerate(texts) if not text]
        sums = [cost(lettered, [texts[row] for row in lettered])] if lettered else []
        sums += [cost(plain, None)] if plain else []
        return {batch.kind: sum(sums) / batch.count, **costs}

    _edit = _paint

    def _states(self, packed: Packed, totals: Totals) -> tuple[Tensor, dict[str, Tensor]]:
        """Thinker states at each prompt's last query grid (B, n², D)."""
        model = self.model
        prompts = [with_queries(model, prompt) for prompt in split(self._read(packed), packed)]
        lengths = [prompt.ids.shape[1] for prompt in prompts]
        joined = Prompt(
            torch.cat([prompt.ids for prompt in prompts], 1),
            torch.cat([prompt.embeddings for prompt in prompts], 1),
            torch.cat([prompt.positions for prompt in prompts], 2),
            prompts[0].delta,
            torch.cat([prompt.modality for prompt in prompts], 1),
        )
        hidden, costs = self._think(joined, lengths, totals)
        # An end marker follows the grid.
        return torch.cat([last_grid(model.painter, row[:, :-1]) for row in hidden.split(lengths, 1)]), costs

    # The talker.

    def _speak(self, batch: Batch, totals: Totals, generator: torch.Generator) -> dict[str, Tensor]:
        talker = self.model.talker
        with torch.no_grad():
            latents = talker.vae.encode(batch.samples).mean
        patches = latents.unflatten(1, (-1, talker.config.patch_frames))  # (B, N, p, Z)
        found = talker(batch.ids, batch.text_lengths, patches, batch.num_patches, generator)
        return {"speak": found["flow"], "stop": self.recipe.losses.stop * found["stop"]}

    # Autoencoders.

    def _code_image(self, batch: Batch, totals: Totals, generator: torch.Generator) -> dict[str, Tensor]:
        made, posterior = self.model.painter.vae(batch.pixels, generator)
        costs = {
            "picture": losses.reconstruction(made, batch.pixels),
            "kl": self.recipe.losses.kl * posterior.kl().mean() / posterior.mean[0].numel(),
            **self._judge("picture", made, batch.pixels, totals),
        }
        if "classifier" in self.critics:
            classifier = self.critics["classifier"]
            labels = torch.tensor([self._label(name) for name in batch.labels], device=made.device)
            logits, real = classifier(batch.pixels)
            summed = F.cross_entropy(logits.float(), labels, ignore_index=losses.IGNORE, reduction="sum")
            costs["classifier"] = summed / batch.count  # a batch in which nobody said what it shows costs nothing
            _, features = losses.held(classifier)(made)
            costs["features"] = self.recipe.losses.features * losses.feature_distance(features, real)
        return costs

    def _label(self, name: str) -> int:
        return self.labels.index(name) if name in self.labels else losses.IGNORE

    def _code_sound(self, batch: Batch, totals: Totals, generator: torch.Generator) -> dict[str, Tensor]:
        vae = self.model.talker.vae
        made, posterior = vae(batch.samples, generator)
        mel = losses.mel_distance(made, batch.samples, vae.config.sample_rate_hz)
        kl = losses.gaussian_kl(posterior.mean.float(), posterior.std.float())
        costs = {"mel": self.recipe.losses.mel * mel, "kl": self.recipe.losses.kl * kl}
        return costs | self._judge("sound", made, batch.samples, totals)

    def _judge(self, name: str, made: Tensor, real: Tensor, totals: Totals) -> dict[str, Tensor]:
        """The critic's own loss on detached work, and what its held copy thinks of the work."""
        critic, recipe = self.critics[name], self.recipe.losses
        real_scores, real_features = critic(real)
        costs = {"critic": losses.critic_loss(real_scores, critic(made.detach())[0])}
        scores, features = losses.held(critic)(made)
        strength = recipe.adversarial if totals.step >= recipe.adversarial_from else 0.0
        costs["adversarial"] = strength * losses.adversarial_loss(scores)
        if name == "sound":
            costs["features"] = recipe.features * losses.feature_distance(features, real_features)
        return costs


def levels(picture_seeds: list[int], drop_condition: float) -> tuple[Tensor, Tensor]:
    """Noise level of each picture (B,) and whether it keeps its words (B,); the same seed's noise tells neither."""
    draws = [seeds.generator(seed, "level") for seed in picture_seeds]
    sigma = torch.cat([flow.logit_normal(1, draw) for draw in draws])
    return sigma, torch.cat([torch.rand(1, generator=draw) for draw in draws]) >= drop_condition


def split(prompt: Prompt, packed: Packed) -> Iterator[Prompt]:
    """A packed row -> its prompts, one by one."""
    start = 0
    for length, delta in zip(packed.lengths, packed.deltas, strict=True):
        part = slice(start, start + length)
        yield Prompt(
            prompt.ids[:, part],
            prompt.embeddings[:, part],
            prompt.positions[:, :, part],
            torch.tensor([delta], device=prompt.ids.device),
            None if prompt.modality is None else prompt.modality[:, part],
        )
        start += length


@contextmanager
def isolated_clips(model: MingForConditionalGeneration) -> Iterator[None]:
    """Clips of a batch come from many requests, so here none may see the padding that a longer one brings."""
    config = model.config.audio
    before = None if config is None else config.clip_isolation
    if config is not None:
        config.clip_isolation = True
    try:
        yield
    finally:
        if config is not None:
            config.clip_isolation = before
