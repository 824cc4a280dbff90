"""The spans of one step -> one packed call of the model -> a new token for every span that reached its end."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ming_omni.engine.cache import PagedCache
from ming_omni.engine.request import Sequence, Token
from ming_omni.engine.scheduler import Span
from ming_omni.model.omni import TEXT, MingForConditionalGeneration
from ming_omni.model.sampling import choose, likeliest


class Runner:
    """Turns plans into tensors. It remembers nothing between steps but the cache."""

    def __init__(self, model: MingForConditionalGeneration, cache: PagedCache):
        self.model = model
        self.thinker = model.thinker
        self.cache = cache
        # Offloaded weights lie on "meta" between calls; accelerate's hooks move what their layers need.
        self.device = torch.device("cpu") if model.device.type == "meta" else model.device

    @torch.inference_mode()
    def encode(self, span: Span) -> None:
        """Turn the media that a span touches into tokens, unless they are already."""
        for media, _, _ in span.media():
            media.encode(self.model, self.device)

    @torch.inference_mode()
    def step(self, spans: list[Span]) -> list[tuple[Sequence, Token]]:
        spans = self.cache.plan(spans)
        hidden = self._read(spans)  # (R, D)
        ends = np.cumsum([span.num_rows for span in spans])
        for span, end in zip(spans, ends, strict=True):
            if span.sequence.request.score_prompt:
                self._score(span, hidden[end - span.num_rows : end])
        ready = [(span.sequence, end - 1) for span, end in zip(spans, ends, strict=True) if span.is_last]
        if not ready:
            return []
        sequences, rows = zip(*ready, strict=True)
        chosen = hidden if len(rows) == len(hidden) else hidden[list(rows)]
        return list(zip(sequences, self._choose(sequences, self.thinker.logits(chosen)), strict=True))

    def _read(self, spans: list[Span]) -> Tensor:
        """Embeddings, positions and modalities of all rows side by side, through the thinker -> (R, D)."""
        ids = [id_ for span in spans for id_ in span.sequence.ids[span.start : span.stop]]
        positions = np.concatenate([s.sequence.positions(s.start, s.stop) for s in spans], 1)
        modality = np.concatenate([s.sequence.modality(s.start, s.stop) for s in spans])
        embeddings = self.thinker.embed(torch.tensor([ids], device=self.device))  # (1, R, D)
        first_row = 0
        for span in spans:
            self._fill(embeddings[0, first_row : first_row + span.num_rows], span)
            first_row += span.num_rows
        return self.thinker(
            embeddings,
            torch.from_numpy(positions)[:, None].to(self.device),
            modality=torch.from_numpy(modality)[None].to(self.device) if (modality != TEXT).any() else None,
            cache=self.cache,
        ).hidden[0]

    def _fill(self, embeddings: Tensor, span: Span) -> None:
        """Put media tokens into a span's embeddings (rows, D)."""
        for media, first, last in span.media():
            places = torch.from_numpy(media.places[first:last] - span.start).to(embeddings.device)
            embeddings[places] = media.tokens[first:last].to(embeddings)

    def _choose(self, sequences: tuple[Sequence, ...], logits: Tensor) -> list[Token]:
        sampling = [s.request.sampling for s in sequences]
        history = torch.empty(len(sequences), 0, dtype=torch.long)
        if any(s.repetition_penalty != 1 for s in sampling):
            seen = [s.ids if s.request.sampling.penalize_prompt else s.ids[len(s.prompt) :] for s in sequences]
            longest = max(map(len, seen))
            history = torch.tensor([ids + [-1] * (longest - len(ids)) for ids in seen], dtype=torch.long)
        ids, logprobs = choose(logits, history.to(logits.device), sampling, [s.generator for s in sequences])
        most = max(s.request.num_likeliest for s in sequences)
        best = _pairs(logits, most) if most else [()] * len(sequences)
        return [
            Token(id_, logprob, pairs[: s.request.num_likeliest])
            for s, id_, logprob, pairs in zip(sequences, ids.tolist(), logprobs.tolist(), best, strict=True)
        ]

    def _score(self, span: Span, hidden: Tensor) -> None:
        """Log-probabilities of the prompt tokens that these rows (rows, D) predict."""
        scores, prompt = span.sequence.prompt_scores, span.sequence.prompt
        if not scores:
            scores.append(Token(prompt.ids[0], None))
        # A request that was pushed out reads its prompt again; what is scored stays.
        first = len(scores) - 1
        targets = prompt.ids[first + 1 : span.stop + 1]
        if not targets:
            return
        logits = self.thinker.logits(hidden[first - span.start :][: len(targets)])
        logprobs = logits.float().log_softmax(-1).gather(-1, torch.tensor(targets, device=logits.device)[:, None])
        count = span.sequence.request.num_likeliest
        best = _pairs(logits, count) if count else [()] * len(targets)
        scores.extend(map(Token, targets, logprobs[:, 0].tolist(), best))


def _pairs(logits: Tensor, count: int) -> list[tuple[tuple[int, float], ...]]:
    ids, logprobs = likeliest(logits, min(count, logits.shape[-1]))
    return [tuple(zip(*row, strict=True)) for row in zip(ids.tolist(), logprobs.tolist(), strict=True)]
