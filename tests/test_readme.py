"""What the README shows is what happens: its Python runs, its commands exist, its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ming_omni import Ming
from tests.serving import serving

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [line for language, code in BLOCKS if not language for line in code.splitlines() if line]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def nano():
    with serving(Ming.load("nano")) as served:
        yield served


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_in_the_readme_runs(code, nano, capsys):
    exec(code.replace("http://127.0.0.1:8000", nano.url), {})
    if "France" in code:
        assert "Paris" in capsys.readouterr().out


def test_the_first_screen_holds_the_two_commands():
    first_screen = README.splitlines()[:16]
    assert [line.split()[1] for line in first_screen if line.startswith("make ")] == ["serve", "test"]


@pytest.mark.parametrize("target", sorted({line.split()[1] for line in COMMANDS if line.startswith("make ")}))
def test_make_knows_the_command(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("verb", sorted({line.split()[1] for line in COMMANDS if line.startswith(".venv/bin/ming ")}))
def test_ming_knows_the_verb_and_its_options(verb):
    shown = subprocess.run([sys.executable, "-m", "ming_omni.cli", verb, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    for line in (line for line in COMMANDS if line.startswith(f".venv/bin/ming {verb}")):
        for option in re.findall(r" (--[\w-]+)", line.partition("#")[0]):
            assert option in shown.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target
