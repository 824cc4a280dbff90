"""Imports point one way, and nothing heavy is imported before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ming_omni"

# What each part may import of this package; `OPEN` parts are open to all.
OPEN = {"config", "errors", "buckets"}
ALLOWED = {
    "config": set(),
    "errors": set(),
    "buckets": set(),
    "kernels": set(),
    "inputs": set(),
    "speech": set(),
    "model": {"kernels"},
    "packed": {"kernels", "model"},
    "checkpoint": {"kernels", "model", "inputs", "packed", "speech", "speak"},
    "nano": {"model", "inputs", "packed", "speech", "checkpoint"},
    "engine": {"kernels", "model"},
    "paint": {"kernels", "model", "inputs", "checkpoint"},
    "speak": {"kernels", "model", "inputs", "speech"},
    "transcribe": {"kernels", "model", "inputs", "speech", "checkpoint", "engine", "evaluate"},
    "data": {"speech"},
    "train": {"kernels", "model", "inputs", "speech", "speak", "packed", "checkpoint", "data", "evaluate"},
    "evaluate": {"kernels", "model", "inputs", "engine", "data"},
    "ming": {"kernels", "model", "inputs", "speech", "packed", "checkpoint", "engine", "paint", "speak", "transcribe"},
    "converse": {"model", "inputs", "speech", "engine", "speak", "transcribe"},
}
"""`serve`, `chat`, `cli` and `doctor` stand at the end of every arrow and may import anything."""


def imports(path: Path) -> set[str]:
    """Top-level parts of this package that a file imports, at module level or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").startswith("ming_omni"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("ming_omni.")}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
    return found


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_a_part_imports_only_what_lies_before_it(part):
    files = [PACKAGE / f"{part}.py"] if (PACKAGE / f"{part}.py").exists() else sorted((PACKAGE / part).rglob("*.py"))
    for path in files:
        forbidden = imports(path) - ALLOWED[part] - OPEN - {part, "__version__"}
        assert not forbidden, f"{path.relative_to(PACKAGE.parent)} imports {', '.join(sorted(forbidden))}"


def test_every_part_has_a_place_among_the_arrows():
    ends = {"serve", "chat", "cli", "doctor", "weights"}
    parts = {p.stem for p in PACKAGE.iterdir() if not p.name.startswith(("_", ".")) and p.suffix in ("", ".py")}
    assert not parts - set(ALLOWED) - ends


@pytest.mark.parametrize("module", ["ming_omni", "ming_omni.cli"])
def test_importing_is_instant_because_nothing_heavy_comes_along(module):
    heavy = "torch", "transformers", "av", "PIL", "fastapi", "soundfile", "numpy"
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
