"""A user's folder (JSONL + media) -> checked lines; whatever is wrong with one is said with its file and number."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ming_omni.errors import InputError

TASKS: dict[str, tuple[str, set[str], set[str]]] = {
    "ask": ("answer", {"answer"}, {"prompt", "messages", "images", "audio", "video", "system"}),
    "transcribe": ("answer", {"audio", "text"}, {"language", "words"}),
    "paint": ("paint", {"prompt", "image"}, set()),
    "edit": ("edit", {"images", "instruction", "image"}, set()),
    "segment": ("edit", {"image", "what", "mask"}, {"color"}),
    "speak": ("speak", {"text", "audio"}, {"voice", "voice_text"}),
    "code_image": ("code_image", {"image"}, {"label"}),
    "code_sound": ("code_sound", {"audio"}, set()),
}
"""Task -> what is learned from it, the names a line must have, and those it may have. All lines of a set share the
first, because a step of a set is one batch."""

MEDIA = {"image", "images", "audio", "video", "mask", "voice"}


class BadExample(InputError):
    """One line of a training set that cannot be used."""

    def __init__(self, where: str, what: object):
        super().__init__(f"{where}: {what}")


@dataclass(frozen=True)
class Line:
    where: str
    """For people: file and number."""
    folder: Path
    task: str
    values: dict[str, Any]

    @property
    def kind(self) -> str:
        return TASKS[self.task][0]

    def path(self, name: str) -> Path:
        return self.folder / self.values[name]

    def paths(self, name: str) -> list[Path]:
        value = self.values.get(name, [])
        return [self.folder / item for item in ([value] if isinstance(value, str) else value)]


def read(folder: str | Path, file: str = "train.jsonl") -> tuple[list[Line], list[BadExample]]:
    """All usable lines, and what is wrong with the others."""
    folder = Path(folder).expanduser()
    path = folder / file
    if not path.is_file():
        raise InputError(f"there is no training set {path}; it is a text file with one JSON object a line")
    lines, bad = [], []
    for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            lines.append(check(folder, f"{path} line {number}", text))
        except BadExample as error:
            bad.append(error)
    kinds = {line.kind: line for line in lines}
    if len(kinds) > 1:
        tasks = " and ".join(line.task for line in kinds.values())
        raise InputError(f"{path} mixes {tasks}; what is learned differently goes into sets of its own")
    return lines, bad


def check(folder: Path, where: str, text: str) -> Line:
    """One line whose names are right and whose files exist."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadExample(where, f"not JSON: {error}") from error
    if not isinstance(values, dict) or values.get("task") not in TASKS:
        raise BadExample(where, f"a line is an object whose task is one of {', '.join(TASKS)}")
    task = values.pop("task")
    _, needed, possible = TASKS[task]
    if missing := needed - values.keys():
        raise BadExample(where, f"{task} needs {', '.join(sorted(missing))}")
    if unknown := values.keys() - needed - possible:
        known = ", ".join(sorted(needed | possible))
        raise BadExample(where, f"{task} has no {', '.join(sorted(unknown))}; it has {known}")
    if task == "ask" and ("prompt" in values) == ("messages" in values):
        raise BadExample(where, "ask has either a prompt or messages")
    for name in needed & {"text", "prompt", "answer", "instruction", "what"}:
        if not isinstance(values[name], str) or not values[name].strip():
            raise BadExample(where, f"{name} is empty")
    line = Line(where, folder, task, values)
    for name in MEDIA & values.keys():
        for path in line.paths(name):
            if not path.exists():
                raise BadExample(where, f"{name} {path} does not exist")
    return line
