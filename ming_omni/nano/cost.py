"""A shipped folder and what it was rounded from -> how far their logits are apart, and how often they agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BatchFeature

from ming_omni import checkpoint
from ming_omni.inputs.messages import Audio, Image, Message, Text
from ming_omni.inputs.processor import MingProcessor
from ming_omni.nano import ship
from ming_omni.packed import adapter

QUESTIONS = ("What is the capital of France?", "How many days are in a week?", "Name a famous painter.")
PICTURES, SOUNDS = (".png", ".jpg", ".webp"), (".wav", ".flac", ".mp3")
MAX_TOKENS = 32


@torch.no_grad()
def cost(shipped: Path, trained: Path, start: Path, media: Iterable[Path] = (), lora_scale: float | None = None) -> str:
    """A table for the terminal. `media` are pictures to describe and sounds to write down, beside a few questions."""
    exact = unrounded(trained, start, lora_scale)
    found = {"unfolded": checkpoint.load(shipped), "packed": checkpoint.load(shipped, packed=True)}
    processor = MingProcessor.from_pretrained(shipped)
    totals = {name: [0.0, 0.0, 0, 0] for name in found}
    for inputs in _prompts(processor, media):
        length = inputs["input_ids"].shape[1]
        ids = exact.generate(**inputs, max_new_tokens=MAX_TOKENS)
        whole = dict(inputs) | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        expected = _logits(exact, whole, length)
        for name, model in found.items():
            logits, total = _logits(model, whole, length), totals[name]
            total[0] = max(total[0], (logits - expected).abs().max().item())
            total[1] += (logits - expected).square().mean(-1).sum().item()
            total[2] += (logits.argmax(-1) == expected.argmax(-1)).sum().item()
            total[3] += len(logits)
    lines = [f"answers of the trained model, {MAX_TOKENS} tokens at most, greedy:"]
    for name, (most, squares, agreed, count) in totals.items():
        off = f"logits off by {(squares / count) ** 0.5:.3f} on average, {most:.2f} at most"
        lines.append(f"{name:<10}{off}; {agreed} of {count} tokens agree")
    return "\n".join(lines)


def unrounded(trained: Path, start: Path, lora_scale: float | None = None) -> nn.Module:
    """The model as it was when training ended."""
    model = checkpoint.load(start)
    found = ship.read(Path(trained), lora_scale)
    with torch.no_grad():
        for name in adapter.owners(found):
            model.get_parameter(f"{name}.weight").add_(adapter.find(found.__getitem__, name).weight())
        for name, tensor in found.items():
            if adapter.MARK not in name:
                model.get_parameter(name).copy_(tensor)
    return model


def _prompts(processor: MingProcessor, media: Iterable[Path]) -> Iterator[BatchFeature]:
    for question in QUESTIONS:
        yield processor.prepare([Message("user", [Text(question)])])
    for path in media:
        if path.suffix.lower() in PICTURES:
            yield processor.prepare([Message("user", [Image(path), Text("Describe the picture.")])])
        elif path.suffix.lower() in SOUNDS:
            yield processor.prepare([Message("user", [Text("Write down what is said."), Audio(path)])])


def _logits(model: nn.Module, inputs: dict, length: int) -> Tensor:
    """(T, V) of the answer's tokens"""
    return model(**inputs).logits[0, length - 1 : -1].float()
