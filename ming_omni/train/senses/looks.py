"""The development split -> cases as the product would ask them, and a model's scores on them."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

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
from ming_omni.train.senses.settings import Settings
from ming_omni.train.senses.sounds import Clip

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


def sounds(
    store: np.ndarray, clips: Sequence[Clip], processor: MingProcessor, settings: Settings, count: int
) -> list[Case]:
    """`count` clips of each language or accent and of each set of real recordings, with their own lists of words."""
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip.length <= settings.speech.seconds * 16_000:
            groups.setdefault(clip.kind if clip.kind.startswith("real") else clip.language, []).append(clip)
    found = []
    for name, members in sorted(groups.items()):
        chosen = generator(SEED, f"look {name}").permutation(len(members))[:count]
        for clip in (members[i] for i in chosen):
            samples = store[clip.start : clip.start + clip.length].astype(np.float32) / 32768
            parts = [Text(words.prompt(clip.context)), Audio(wav(samples))]
            found.append(Case(name, processor.prepare([Message("user", parts)]), clip.answer))
    return found


def wav(samples: np.ndarray) -> bytes:
    import soundfile

    file = BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="FLOAT")
    return file.getvalue()


def perplexity_ratio(learner, batches: Sequence[tuple]) -> float:
    """How much less likely the dialogues of the development split became: 1.0 when nothing changed."""
    network, change = learner.network, []
    with torch.no_grad():
        for _, rows, asked, answers, _ in batches:
            losses = [
                torch.nn.functional.cross_entropy(network.logits(thought.hidden[asked]).float(), answers)
                for thought in (network(rows), network(rows, is_base=True))
            ]
            change.append(losses[0] - losses[1])
    return float(torch.stack(change).mean().exp())


def read_dev(settings: Settings, cache: Path):
    """Sounds of the development folders; none where none are named."""
    from ming_omni.train.senses.sounds import load

    folders = [Path(folder) for folder in settings.dev_speech]
    return load(folders, cache, 0) if folders else (np.zeros(0, np.int16), [])
