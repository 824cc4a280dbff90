"""A painted picture and how it came about -> a PNG that carries both."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

SOFTWARE = "ming-omni"


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
        if path.suffix.lower() in ("", ".png"):
            path.write_bytes(self.png())
        else:
            self.image.save(path)
        return path
