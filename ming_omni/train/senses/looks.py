"""The development split -> cases as the product would ask them, and a model's scores on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO

import numpy as np
import torch
from PIL import Image as Pillow

from ming_omni.data import films, questions
from ming_omni.data.bank import Stock
from ming_omni.data.render import render
from ming_omni.data.splits import generator
from ming_omni.evaluate.quick import Case
from ming_omni.inputs.messages import Audio, Image, Message, Text, Video
from ming_omni.inputs.processor import MingProcessor
from ming_omni.train import words
from ming_omni.train.senses.learner import Moved
from ming_omni.train.senses.settings import Settings
from ming_omni.train.senses.sounds import SAMPLE_RATE_HZ, Clip

SEED = 7


def scenes(stock: Stock, processor: MingProcessor, settings: Settings, count: int) -> list[Case]:
    """`count` of each kind of question about a still, and as many of each kind of film; every third in Chinese."""
    found = []
    for name, maker in (questions.QUESTIONS | films.FILMS).items():
        is_film = name in films.FILMS
        for index in range(count):
            numbers = generator(SEED, f"look {name}", index)
            example = maker(numbers, stock, index % 3 == 2)
            size = settings.pictures.film_pixels if is_film else settings.pictures.pixels
            drawn = [
                Pillow.fromarray(picture.permute(1, 2, 0).numpy())
                for picture in render(stock.bank, example.scenes, size).pictures
            ]
            medium = Video(drawn) if is_film else Image(drawn[0])
            inputs = processor.prepare([Message("user", [medium, Text(example.prompt)])])
            found.append(Case(f"film {name}" if is_film else name, inputs, example.answer))
    return found


def sounds(chosen: Iterable[tuple[Clip, np.ndarray]], processor: MingProcessor, settings: Settings) -> list[Case]:
    """Clips with their own lists of words, grouped by language or accent, real recordings apart."""
    found = []
    for clip, samples in chosen:
        if clip.length <= settings.speech.seconds * SAMPLE_RATE_HZ:
            parts = [Text(words.prompt(clip.context)), Audio(wav(samples.astype(np.float32) / 32768))]
            found.append(Case(clip.group, processor.prepare([Message("user", parts)]), clip.answer))
    return found


def wav(samples: np.ndarray) -> bytes:
    import soundfile

    file = BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="WAV", subtype="FLOAT")
    return file.getvalue()


def perplexity_ratio(learner, batches: Sequence[Moved]) -> float:
    """How much less likely the dialogues of the development split became: 1.0 when nothing changed."""
    network, change = learner.network, []
    with torch.no_grad():
        for batch in batches:
            losses = [
                torch.nn.functional.cross_entropy(network.logits(thought.hidden[batch.asked]).float(), batch.answers)
                for thought in (network((batch.rows, None)), network((batch.rows, None), is_base=True))
            ]
            change.append(losses[0] - losses[1])
    return float(torch.stack(change).mean().exp())
