"""A tiny model that gives chosen answers to chosen prompts: random weights, and an output layer solved for the answers.

The hidden states of the answers' tokens are fewer than their width, so a linear layer exists that maps each to the
token that comes next: least squares finds it, without any training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ming_omni.config import MingConfig, tiny
from ming_omni.engine.engine import Engine, Options
from ming_omni.inputs.messages import Audio, Message, Text
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.tiny import tiny_tokenizer
from ming_omni.ming import Ming
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.transcribe.prompts import question

SURENESS = 12.0
"""Logit of the token to come; all others have 0."""


@dataclass(frozen=True)
class Lesson:
    samples: np.ndarray
    answer: str
    topic: str = ""
    words: tuple[str, ...] = ()
    forced: str = ""
    """what the prompt puts before the answer"""


@dataclass(frozen=True)
class Exercise:
    """Any prompt, as the processor prepares it, and what to say to it."""

    inputs: Mapping[str, torch.Tensor]
    answer: str


def taught(*lessons: Lesson) -> Ming:
    model, processor = untaught()
    exercises = []
    for lesson in lessons:
        message = Message(
            "user", [Text(question(lesson.topic, lesson.words)), Audio((torch.tensor(lesson.samples), 16_000))]
        )
        exercises.append(Exercise(processor.prepare(message, answer_start=lesson.forced), lesson.answer))
    return at_work(teach(model, processor, exercises), processor)


def untaught(width: int = 64) -> tuple[MingForConditionalGeneration, MingProcessor]:
    """width  of the thinker: it can learn fewer tokens than that"""
    torch.manual_seed(0)
    config = tiny()
    if width != config.thinker.hidden_size:
        config = MingConfig(
            thinker=config.thinker.to_dict() | {"hidden_size": width, "head_dim": None},
            vision=config.vision.to_dict(),
            audio=config.audio.to_dict(),
        )
    config.thinker.initializer_range = 0.12
    return MingForConditionalGeneration(config).eval(), MingProcessor.from_config(config, tiny_tokenizer())


def teach(
    model: MingForConditionalGeneration, processor: MingProcessor, exercises: Sequence[Exercise]
) -> MingForConditionalGeneration:
    hidden, wanted = [], []
    for exercise in exercises:
        inputs = exercise.inputs
        ids = [*processor.tokenizer.encode(exercise.answer), *processor.gen_terminator]
        with torch.no_grad():
            prompt = model.prepare(inputs)
            whole = model.prepare(inputs | {"input_ids": torch.cat([prompt.ids, torch.tensor([ids])], 1)} | NO_MASK)
            output = model.thinker(whole.embeddings, whole.positions, modality=whole.modality)
        hidden.append(output.hidden[0, prompt.ids.shape[1] - 1 : -1])
        wanted += ids
    states = torch.cat(hidden).double()  # (N, D)
    assert len(states) < states.shape[1], "too many tokens to learn by heart"
    config = model.config.thinker
    targets = SURENESS * torch.nn.functional.one_hot(torch.tensor(wanted), config.vocab_size).double()
    model.thinker.head.weight.data = (torch.linalg.pinv(states) @ targets).T.float()  # (V, D)
    return model


def at_work(model: MingForConditionalGeneration, processor: MingProcessor) -> Ming:
    ming = Ming(model, processor, name="taught")
    ming.__dict__["engine"] = Engine(model, Options(cache_tokens=8192)).start()
    return ming


NO_MASK = {"attention_mask": None}
