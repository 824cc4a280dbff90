"""A painted picture and how it came about -> a PNG that carries both."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ming_omni.errors import InputError

SOFTWARE = "ming-omni"
PNG = "", ".png"
"""Endings of a path that get a PNG."""


def check_path(path: Path, *, png_only: bool = False) -> None:
    """Refuse, before anything is painted, a path that a picture cannot be written to."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}")
    ending = path.suffix.lower()
    if ending in PNG:
        return
    if png_only:
        raise InputError(f"masks are written as PNG, not as {ending}")
    if Image.registered_extensions().get(ending) not in Image.SAVE:
        raise InputError(f"a picture cannot be written as {ending}; .png keeps the prompt and the seed")


@dataclass(frozen=True)
class Picture:
    """What was painted; the same prompt, seed, model and settings paint it again."""

    image: Image.Image
    prompt: str
    seed: int
    model: str
    settings: dict[str, object]
    """Steps, guidance and whatever else was not left at nothing."""

    @property
    def size(self) -> tuple[int, int]:
        """Width, height."""
        return self.image.size

    def metadata(self) -> dict[str, str]:
        facts = {"prompt": self.prompt, "seed": self.seed, "model": self.model, **self.settings, "Software": SOFTWARE}
        return {key: str(value) for key, value in facts.items()}

    def png(self) -> bytes:
        text = PngInfo()
        for key, value in self.metadata().items():
            text.add_itxt(key, value)
        file = io.BytesIO()
        self.image.save(file, "PNG", pnginfo=text)
        return file.getvalue()

    def save(self, path: str | Path) -> Path:
        """Write a PNG, or another format that the file's ending names; only PNG carries prompt and seed."""
        path = Path(path)
        if path.suffix.lower() in PNG:
            path.write_bytes(self.png())
        else:
            self.image.save(path)
        return path
