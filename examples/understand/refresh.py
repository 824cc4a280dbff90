"""Runs every command of README.md and writes what it answers below it.

python examples/understand/refresh.py [MODEL]        unless given, nano
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

README = Path(__file__).with_name("README.md")
BLOCK = re.compile(r"```console\n\$ ming (.*)\n(?:.*\n)*?```")


def answer(arguments: str, model: str) -> str:
    command = [sys.executable, "-m", "ming_omni.cli", *shlex.split(arguments), "--model", model]
    done = subprocess.run(command, cwd=README.parents[2], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"ming {arguments}\n{done.stderr}")
    return done.stdout.strip()


def refreshed(text: str, model: str) -> str:
    return BLOCK.sub(lambda m: f"```console\n$ ming {m[1]}\n{answer(m[1], model)}\n```", text)


if __name__ == "__main__":
    README.write_text(refreshed(README.read_text(), *(sys.argv[1:] or ["nano"])))
