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
SEVERAL = {("ask", "images"), ("ask", "audio"), ("ask", "video"), ("edit", "images"), ("transcribe", "words")}
"""Task and name of what may be a list of texts; all else is one text, but for messages."""


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

    def texts(self, name: str) -> list[str]:
        """What may be one text or several."""
        value = self.values.get(name, [])
        return [value] if isinstance(value, str) else value

    def paths(self, name: str) -> list[Path]:
        return [self.folder / item for item in self.texts(name)]


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
    except (ValueError, RecursionError) as error:
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
    for name, value in values.items():
        if name != "messages":
            _check_value(where, task, name, value, name in needed)
    line = Line(where, folder, task, values)
    for name in MEDIA & values.keys():
        for path in line.paths(name):
            if not _is_file(path):
                raise BadExample(where, f"{name} {path} does not exist")
    return line


def _check_value(where: str, task: str, name: str, value: Any, is_needed: bool) -> None:
    is_list = isinstance(value, list) and (task, name) in SEVERAL
    texts = value if is_list else [value]
    if not all(isinstance(text, str) for text in texts):
        wanted = "a text or a list of texts" if (task, name) in SEVERAL else "a text"
        raise BadExample(where, f"{name} is {wanted}, not {json.dumps(value, ensure_ascii=False)}")
    if is_needed and not (texts and all(text.strip() for text in texts)):
        raise BadExample(where, f"{name} is empty")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that may not be entered
        return False
