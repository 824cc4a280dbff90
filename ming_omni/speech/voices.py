"""A few seconds of someone speaking <-> one file that holds a voice; a shelf of such files.

A voice keeps the sound itself, so that any model can clone it, and a note of who agreed to that.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import warnings
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ming_omni.errors import InputError

SAMPLE_RATE_HZ = 16_000
MIN_SECONDS, MAX_SECONDS = 3.0, 30.0
MIN_SPOKEN_SECONDS = 2.0
LOUDNESS = 0.1
"""Root mean square of what is spoken, -20 dB: the talker speaks as loudly as its prompt."""
PEAK = 0.95
FRAME = SAMPLE_RATE_HZ // 50
SILENT, AUDIBLE = 1e-3, 0.02
"""The loudest a silent recording gets, and the part of the loudest frame above which someone speaks."""
CLIPPED = 0.02
"""Part of the samples at full scale that makes a recording useless."""
NAME = re.compile(r"\w[\w .-]{0,63}")
SUFFIX = ".safetensors"
FORMAT = "ming-omni voice 1"


@dataclass(frozen=True)
class Voice:
    """Someone's way of speaking. `samples` (n,) at 16 kHz; `consent` says who agreed to being imitated."""

    name: str
    samples: Tensor
    transcript: str | None = None
    consent: str = ""
    created: str = ""

    @classmethod
    def clone(cls, name: str, samples: Tensor, transcript: str | None = None, *, consent: str) -> Voice:
        """A voice from 3 to 30 seconds of sound (n,) at 16 kHz, trimmed to the speech and brought to one loudness."""
        if not isinstance(transcript, str | None):
            raise InputError(f"a transcript is a text, not {transcript!r}")
        if not isinstance(consent, str) or not consent.strip():
            raise InputError("a cloned voice needs a consent note: who speaks, and that they agreed to be imitated")
        samples = prepare(samples)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        transcript = (transcript or "").strip() or None
        return cls(check_name(name), samples, transcript, consent.strip(), created)

    @cached_property
    def digest(self) -> str:
        """Equal for equal sound and transcript, whatever the name."""
        sound = self.samples.float().contiguous().numpy().tobytes()
        return hashlib.sha256(sound + (self.transcript or "").encode()).hexdigest()

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ

    def within(self, seconds: float | None) -> Voice:
        """Itself, or as much as fits, up to the softest moment of the last quarter. The transcript, of which nobody
        knows where it would end, is dropped then. None: all of it."""
        if seconds is None or self.seconds <= seconds:
            return self
        limit = int(seconds * SAMPLE_RATE_HZ) // FRAME
        loudness = self.samples[: limit * FRAME].view(-1, FRAME).square().mean(1)
        end = limit * 3 // 4 + int(loudness[limit * 3 // 4 :].argmin()) + 1
        return replace(self, samples=self.samples[: end * FRAME], transcript=None)

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        from safetensors.torch import save

        about = {"name": self.name, "transcript": self.transcript, "consent": self.consent, "created": self.created}
        codes = (self.samples.clamp(-1, 1) * 32_767).round().to(torch.int16)
        data = save({"samples": codes}, {"format": FORMAT, "voice": json.dumps(about, ensure_ascii=False)})
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(data)
        os.replace(file.name, path)

    @classmethod
    def load(cls, path: Path) -> Voice:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                metadata, samples = file.metadata() or {}, file.get_tensor("samples")
            if metadata.get("format") != FORMAT:
                raise InputError(f"{path} is no voice file")
            if samples.dim() != 1 or len(samples) < FRAME:
                raise InputError(f"{path} is no voice file: it holds no sound")
            return cls(samples=samples.float() / 32_767, **json.loads(metadata["voice"]))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is no voice file, or a damaged one") from error


def check_name(name: str) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.endswith((".", " ")):
        raise InputError(f"{name!r} cannot name a voice: use up to 64 letters, digits, spaces, dots and dashes")
    return name


def prepare(samples: Tensor) -> Tensor:
    """A recording (n,) at 16 kHz -> its speech at the usual loudness; says what is wrong with one that will not do."""
    seconds = len(samples) / SAMPLE_RATE_HZ
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise InputError(f"a voice takes {MIN_SECONDS:.0f} to {MAX_SECONDS:.0f} seconds of speech, not {seconds:.1f}")
    samples = samples - samples.mean()  # a microphone's offset is no sound
    if samples.abs().max() < SILENT:
        raise InputError("the recording is silent")
    num_clipped = int((samples.abs() >= samples.abs().max() * 0.999).sum()) if samples.abs().max() > 0.95 else 0
    if num_clipped > CLIPPED * len(samples):
        raise InputError("the recording is clipped: it is too loud for its microphone; record it again, more softly")
    speaks = _speaks(samples)
    if int(speaks.sum()) * FRAME < MIN_SPOKEN_SECONDS * SAMPLE_RATE_HZ:
        raise InputError(f"the recording holds less than {MIN_SPOKEN_SECONDS:.0f} seconds of speech")
    if num_clipped > CLIPPED / 20 * len(samples):
        warnings.warn("the recording is slightly clipped; the voice may sound harsh", stacklevel=3)
    where = speaks.nonzero().flatten()
    # A tenth of a second of air on both sides keeps soft beginnings and endings.
    start, end = max(0, int(where[0]) - 5) * FRAME, (int(where[-1]) + 6) * FRAME
    return level(samples[start:end])


def level(samples: Tensor) -> Tensor:
    """Bring speech to the usual loudness, as far as its peaks allow."""
    frames = samples[: len(samples) // FRAME * FRAME].view(-1, FRAME)
    spoken = frames[_speaks(samples)]
    loudness = spoken.square().mean().sqrt()
    return samples * min(LOUDNESS / float(loudness), PEAK / float(samples.abs().max()))


def _speaks(samples: Tensor) -> Tensor:
    """Which 20 ms frames (n,) are loud enough to be speech."""
    loudness = samples[: len(samples) // FRAME * FRAME].view(-1, FRAME).square().mean(1).sqrt()
    return loudness > max(SILENT / 2, AUDIBLE * float(loudness.max()))


class Shelf:
    """Voices by name: those that came with the model, and the user's own in a folder."""

    def __init__(self, folder: Path | None = None, built_in: Path | None = None):
        """folder  of the user, by default where this system keeps such data; built_in  of the model, only read"""
        self.folder = folder or user_folder()
        self.built_in = built_in

    def names(self) -> list[str]:
        return sorted({path.stem for folder in self._folders() for path in folder.glob(f"*{SUFFIX}")})

    def get(self, name: str) -> Voice:
        return Voice.load(self.find(name))

    def find(self, name: str) -> Path:
        """The file of a voice, whole or damaged."""
        for folder in self._folders():
            if NAME.fullmatch(name) and (path := folder / f"{name}{SUFFIX}").is_file():
                return path
        known = ", ".join(self.names()) or "none yet"
        raise InputError(f"there is no voice {name!r}; known are: {known}")

    def add(self, voice: Voice, *, replace: bool = False) -> Path:
        path = self.folder / f"{check_name(voice.name)}{SUFFIX}"
        if self.is_built_in(voice.name):
            raise InputError(f"{voice.name!r} is a built-in voice; choose another name")
        if path.exists() and not replace:
            raise InputError(f"there is a voice {voice.name!r} already; delete it first, or choose another name")
        voice.save(path)
        return path

    def delete(self, name: str) -> None:
        path = self.find(name)
        if self.is_built_in(name):
            raise InputError(f"{name!r} is a built-in voice and cannot be deleted")
        path.unlink()

    def is_built_in(self, name: str) -> bool:
        return self.built_in is not None and (self.built_in / f"{name}{SUFFIX}").is_file()

    def _folders(self) -> list[Path]:
        """Built-in voices come first, so that no file of a user can take their place."""
        return [folder for folder in (self.built_in, self.folder) if folder is not None and folder.is_dir()]


def user_folder() -> Path:
    from platformdirs import user_data_path

    return user_data_path("ming-omni") / "voices"
