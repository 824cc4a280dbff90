"""An installation -> a printed report of what works, each line checked on the spot: `ming doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights" / "nano"
WEIGHTS_BUDGET_MB = 200
QUESTION, ANSWER = "What is the capital of France?", "Paris"


def report(write: Callable[[str], None] = print) -> bool:
    """Print every check; True when none failed."""
    healthy = True
    for name, check in CHECKS.items():
        try:
            lines = check()
            mark = "ok"
        except Exception as error:  # a doctor reports every failure, whatever it is
            lines, mark, healthy = [f"{type(error).__name__}: {error}"], "FAILED", False
        write(f"{name:<12}{mark:<8}{lines[0]}")
        for line in lines[1:]:
            write(" " * 20 + line)
    write("Everything works." if healthy else "Something is broken; the lines marked FAILED say what.")
    return healthy


def python() -> list[str]:
    assert sys.version_info >= (3, 11), f"Python {platform.python_version()} is too old, 3.11 is needed"
    return [f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"]


def libraries() -> list[str]:
    """Every requirement of the package is installed in an accepted version."""
    from packaging.requirements import Requirement

    found = []
    for line in importlib.metadata.requires("ming-omni") or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = importlib.metadata.version(requirement.name)
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement.name} {version}: {line}"
        found.append(f"{requirement.name} {version}")
    return [", ".join(found[i : i + 6]) for i in range(0, len(found), 6)]


def accelerator() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return [
            f"none; nano runs on the CPU ({torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()})"
        ]
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [f"{card.name}, {card.total_memory / 2**30:.0f} GiB" for card in cards]


def memory() -> list[str]:
    import psutil

    state = psutil.virtual_memory()
    return [f"{state.available / 2**30:.1f} of {state.total / 2**30:.1f} GiB free; nano takes about 1 GiB"]


def models() -> list[str]:
    """nano's files are there, readable and within their budget; other models in the hub cache are named."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound
    from safetensors import safe_open

    files = sorted(WEIGHTS.glob("*.safetensors"))
    assert files, f"no weights in {WEIGHTS}"
    num_tensors, size = 0, 0
    for path in files:
        with safe_open(path, "pt") as file:
            num_tensors += len(list(file.keys()))
        size += path.stat().st_size
    assert size <= WEIGHTS_BUDGET_MB * 1e6, f"nano's weights take {size / 1e6:.0f} MB"
    lines = [f"nano: {len(files)} files, {num_tensors} tensors, {size / 1e6:.0f} MB"]
    try:
        cached = [repo for repo in scan_cache_dir().repos if "ming" in repo.repo_id.lower()]
    except CacheNotFound:
        cached = []
    return lines + [f"{repo.repo_id}: {repo.size_on_disk / 1e9:.1f} GB in the hub cache" for repo in cached]


def answer() -> list[str]:
    """nano answers a question whose answer is known."""
    from ming_omni.ming import Ming
    from ming_omni.serve.capabilities import capabilities

    start = time.perf_counter()
    ming = Ming.load("nano")
    loaded = time.perf_counter()
    text = ming.ask(QUESTION, max_tokens=24)
    done = time.perf_counter()
    assert ANSWER in text, f"nano answered {text!r} to {QUESTION!r}"
    able = ", ".join(capabilities(ming))
    return [
        f"{QUESTION} {text}",
        f"loaded in {loaded - start:.1f} s, answered in {done - loaded:.1f} s",
        f"able: {able}",
    ]


def licences() -> list[str]:
    """Licence of the package, of the weights as their card states it, and of every requirement."""
    from packaging.requirements import Requirement

    card = re.search(r"^license:\s*(.+)$", (WEIGHTS / "README.md").read_text(), re.MULTILINE)
    assert card, "nano's card states no licence"
    names = sorted(
        {Requirement(line).name for line in importlib.metadata.requires("ming-omni") or [] if "extra" not in line}
    )
    listed = [f"{name}: {_licence(name)}" for name in names]
    return [f"ming-omni: Apache-2.0; nano's weights: {card[1]}"] + [
        "; ".join(listed[i : i + 4]) for i in range(0, len(listed), 4)
    ]


def _licence(name: str) -> str:
    data = importlib.metadata.metadata(name)
    classifiers = [c.split(" :: ")[-1] for c in data.get_all("Classifier") or [] if c.startswith("License")]
    stated = data.get("License-Expression") or (classifiers[0] if classifiers else data.get("License") or "not stated")
    return stated.splitlines()[0][:40]


CHECKS = {
    "python": python,
    "libraries": libraries,
    "accelerator": accelerator,
    "memory": memory,
    "models": models,
    "answer": answer,
    "licences": licences,
}
