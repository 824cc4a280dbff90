"""ming paint, edit and segment: plain arguments -> files on disk, and a line about each."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.paint.picture import Picture, check_path
from ming_omni.paint.segment import segment
from ming_omni.paint.verbs import OnStep, edit, paint


class Loaded(Protocol):
    """What a command needs of `Ming`."""

    model: MingForConditionalGeneration
    processor: Any
    name: str


def paint_command(ming: Loaded, prompt: str, output: Path, **options: Any) -> list[Path]:
    """Paint `prompt` and write `output`, numbered when there are several pictures; options as in `paint`."""
    return _painted(output, lambda on_step: paint(*_of(ming), prompt, on_step=on_step, name=ming.name, **options))


def edit_command(ming: Loaded, images: list[Path], instruction: str, output: Path, **options: Any) -> list[Path]:
    """Edit the first of `images` and write `output`; options as in `edit`."""
    return _painted(
        output, lambda on_step: edit(*_of(ming), images, instruction, on_step=on_step, name=ming.name, **options)
    )


def segment_command(
    ming: Loaded, image: Path, what: str | None, output: Path, *, details: bool = False, **options: Any
) -> list[Path]:
    """Write one mask, numbered when there are several, and the picture with all masks laid over it.

    details  also a JSON file with name, colour, area, box, polygons and run lengths of each mask
    options  as in `segment`
    """
    check_path(output, png_only=True)
    with progress("segmenting") as on_step:
        found = segment(*_of(ming), image, what, on_step=on_step, name=ming.name, **options)
    written = []
    for path, mask in zip(_numbered(output, len(found.masks)), found.masks, strict=True):
        path.write_bytes(mask.png())
        print(f"{path}  {mask.name}: {mask.area} pixels, box {mask.box}")
        written.append(path)
    if not found.masks:
        print("nothing was found")
    overlay = output.with_stem(f"{output.stem}-overlay")
    found.overlay().save(overlay, "PNG")
    written.append(overlay)
    if details:
        facts = [
            {"name": m.name, "color": m.color, "area": m.area, "box": m.box, "polygons": m.polygons(), "rle": m.rle()}
            for m in found.masks
        ]
        table = output.with_suffix(".json")
        table.write_text(json.dumps(facts, ensure_ascii=False))
        written.append(table)
    return written


@contextmanager
def progress(label: str):
    """A bar on the terminal, fed by `on_step`; silent where the output is not a terminal."""
    from rich.progress import Progress as Bar

    with Bar(disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(label, total=1.0)
        yield lambda step: bar.update(task, completed=step.fraction) and None


def _painted(output: Path, work: Callable[[OnStep], list[Picture]]) -> list[Path]:
    check_path(output)
    with progress("painting") as on_step:
        pictures = work(on_step)
    paths = _numbered(output, len(pictures))
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
        print(f"{path}  {picture.size[0]}x{picture.size[1]}, seed {picture.seed}")
    return paths


def _of(ming: Loaded) -> tuple[MingForConditionalGeneration, Any]:
    return ming.model, ming.processor


def _numbered(output: Path, count: int) -> list[Path]:
    return [output] if count == 1 else [output.with_stem(f"{output.stem}-{k + 1}") for k in range(count)]
