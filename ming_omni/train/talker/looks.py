"""Development clips -> losses that no step has learned from, and sentences spoken, to be listened to."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ming_omni.model.talker import Talker
from ming_omni.speak.loop import Loop, Utterance
from ming_omni.speak.steps import PlainSteps
from ming_omni.train.talker.learner import Learner, on_device
from ming_omni.train.talker.rows import END, Rows
from ming_omni.train.talker.settings import RowSettings
from ming_omni.train.talker.store import Clip, Store

SEED = 7
MOST = 2
"""Times as long as the teacher took, after which a sentence has run away."""


@dataclass
class Heard:
    clip: Clip
    teacher: np.ndarray  # (n,) the clip's latents, decoded
    talker: np.ndarray  # (m,)
    is_ended: bool
    """By the stop head."""


def losses(learner: Learner, store: Store, table: Sequence[Clip], settings: RowSettings, count: int) -> dict:
    """Means over batches of about `count` rows, by the mean weights, with the same noise at every look."""
    small = RowSettings(**{**vars(settings), "spelled": 0.0, "patches": min(settings.patches, count * 32)})
    rows, found = Rows(table, small, SEED), []
    devices = [store.patches.device] if store.patches.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad(), learner.averaged():
        torch.manual_seed(SEED)
        for number in range(3):
            found.append(learner(on_device(rows.batch(number), store)))
    return {name: float(torch.stack([row[name] for row in found]).mean()) for name in found[0]}


@torch.inference_mode()
def speak(talker: Talker, store: Store, table: Sequence[Clip], count: int) -> list[Heard]:
    """The first clips that have another one of their speaker for a prompt, all at once."""
    pairs = []
    for clip in table:
        prompt = next((c for c in table if c.speaker == clip.speaker and c.first != clip.first), None)
        if prompt is not None and len(pairs) < count:
            pairs.append((prompt, clip))
    loop = Loop(talker, max(1, len(pairs)), PlainSteps(talker, max(1, len(pairs))))
    streams, utterances = [], []
    for number, (prompt, clip) in enumerate(pairs):
        ids = [i for part in (prompt, clip) for sounds in part.sounds for i in sounds]
        voice = store.patches[prompt.first : prompt.first + prompt.num_patches].float()
        noise = torch.Generator().manual_seed(number)
        utterances.append(Utterance(torch.tensor([*ids, END]), voice, noise, MOST * clip.num_patches))
        streams.append(loop.speak(utterances[-1]))
    sounds: list[list[Tensor]] = [[] for _ in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a run that has just begun finds no end
        for number, chunks in enumerate(_by_turns(streams)):
            for place, chunk in enumerate(chunks):
                if chunk is not None:
                    sounds[place].append(chunk)
            assert number < 10_000
    found = []
    for (_, clip), pieces, utterance in zip(pairs, sounds, utterances, strict=True):
        latents = store.patches[clip.first : clip.first + clip.num_patches].float().flatten(0, 1)
        original = talker.vae.decode(latents[None])[0]
        is_ended = utterance.num_patches < MOST * clip.num_patches
        found.append(Heard(clip, original.float().cpu().numpy(), torch.cat(pieces).float().numpy(), is_ended))
    return found


def _by_turns(streams: list):
    """Chunks of all streams side by side, None where one is over, so that every step serves all."""
    while True:
        chunks = [next(stream, None) for stream in streams]
        if all(chunk is None for chunk in chunks):
            return
        yield chunks


def side_by_side(heard: Sequence[Heard], pause: int = 4800) -> np.ndarray:
    """(n, 2): teacher left, talker right, one sentence behind another."""
    pieces = []
    for one in heard:
        length = max(len(one.teacher), len(one.talker)) + pause
        pieces.append(np.stack([np.pad(x, (0, length - len(x))) for x in (one.teacher, one.talker)], -1))
    return np.concatenate(pieces).clip(-1, 1)
