"""Packages come through the real clients, from a folder instead of a registry; damaged and unfree ones do not pass."""

import json
import shutil
import subprocess
import zipfile

import pytest

from ming_omni.data import packages
from ming_omni.data.packages import Package, declared_licence, digest, fetch, fetch_all, write_manifest
from ming_omni.errors import InputError


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder that pip takes for its index, with one wheel in it."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    with zipfile.ZipFile(folder / "toy_pictures-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toy_pictures/dog.svg", "<svg/>")
        about = "Metadata-Version: 2.1\nName: toy-pictures\nVersion: 1.0\nLicense-Expression: MIT\n"
        wheel.writestr("toy_pictures-1.0.dist-info/METADATA", about)
        wheel.writestr("toy_pictures-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("toy_pictures-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def toy(sha256: str = "", licence: str = "MIT") -> Package:
    return Package("pypi", "toy-pictures", licence, "1.0", sha256)


def test_a_package_is_fetched_checked_and_unpacked_once(shelf, tmp_path):
    package = toy(digest(next(shelf.iterdir())))
    folder = fetch(package, tmp_path / "cache")
    assert (folder / "toy_pictures" / "dog.svg").read_text() == "<svg/>"
    assert declared_licence(folder) == "License-Expression: MIT"
    shutil.rmtree(shelf)
    assert fetch(package, tmp_path / "cache") == folder  # no client is asked again
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]  # nothing half-done stays


def test_another_archive_than_the_pinned_one_is_refused(shelf, tmp_path):
    with pytest.raises(InputError, match="not the archive"):
        fetch(toy("0" * 64), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_package_that_cannot_be_had_is_named_and_left_out(shelf, tmp_path, capsys):
    absent = Package("pypi", "no-such-package-here", "MIT", "1.0")
    assert fetch_all([absent], tmp_path / "cache") == {}
    assert "no-such-package-here" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg")
def test_a_debian_archive_is_unpacked_without_being_installed(tmp_path):
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: toy\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: toy\n"
    )
    (tree / "usr/share/doc/toy").mkdir(parents=True)
    (tree / "usr/share/doc/toy/copyright").write_text("Files: *\nLicense: OFL-1.1\n text\n")
    subprocess.run(["dpkg-deb", "-b", tree, tmp_path / "toy.deb"], check=True, capture_output=True)
    packages._unpack(tmp_path / "toy.deb", tmp_path / "out")
    assert declared_licence(tmp_path / "out") == "OFL-1.1"


def test_an_icon_set_is_under_the_licence_of_its_pictures_not_of_its_code(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "package.json").write_text('{"license": "MIT"}')
    (tmp_path / "package" / "info.json").write_text('{"license": {"spdx": "CC-BY-SA-4.0"}}')
    assert declared_licence(tmp_path) == "CC-BY-SA-4.0"


def test_a_manifest_credits_every_source_but_not_the_tools(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "package.json").write_text('{"license": "MIT"}')
    (tmp_path / "set.bin").write_bytes(b"data")
    tool = Package("debian", "espeak-ng", "GPL-3.0-or-later", is_tool=True)
    write_manifest(tmp_path, "toys", 3, {"toys": 1}, {toy(): tmp_path, tool: tmp_path}, [tmp_path / "set.bin"])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [source["name"] for source in manifest["sources"]] == ["toy-pictures"]
    assert manifest["sources"][0]["declared"] == "MIT"
    assert manifest["files"] == {"set.bin": digest(tmp_path / "set.bin")}


def test_material_that_may_not_be_trained_on_never_gets_into_a_set(tmp_path):
    with pytest.raises(InputError, match="toy-pictures does not allow"):
        write_manifest(tmp_path, "toys", 0, {}, {toy(licence="CC-BY-NC-4.0"): tmp_path})


def test_every_named_package_is_free_or_only_a_tool():
    named = [value for value in vars(packages).values() if isinstance(value, Package)]
    named += [
        p for value in vars(packages).values() if isinstance(value, tuple) for p in value if isinstance(p, Package)
    ]
    assert len(named) > 20
    assert all(package.is_tool or package.is_free for package in named)
    assert not Package("pypi", "x", "MIT AND GPL-3.0-only").is_free
    assert all(package.sha256 or package.registry == "debian" for package in named)
