"""A bank, shards of tones and a few dialogues of some kilobytes: everything the senses' run reads, and its settings."""

import io
import json
from pathlib import Path

import numpy as np
import soundfile

from ming_omni.data.shards import as_json, write_shard
from ming_omni.train.senses.settings import Settings, read
from tests.data_bank import write_tiny_bank


def make_sets(folder: Path) -> list[str]:
    """Write the sets; returns what `--set` needs to read them, small enough for a CPU."""
    write_tiny_bank(folder / "bank.safetensors")
    (folder / "speech").mkdir()
    write_shard(folder / "speech" / "shard-00000.tar", [*_clips("train", 12), *_clips("dev", 3)])
    write_shard(folder / "speech" / "shard-00001.tar", [_many_in_one(6)])
    exchanges = [
        {"question": f"Say {i}", "answer": f"{i} it is", "split": "dev" if i % 5 == 0 else "train"} for i in range(20)
    ]
    (folder / "texts.jsonl").write_text("".join(json.dumps(exchange) + "\n" for exchange in exchanges))
    return [
        "model=tiny", "device=cpu", "seconds=0.2", "look_split=train", "look_cases=1", "log_every=1",
        "tokens={pictures=1024, speech=1024, films=1024, texts=1024}",
        f"pictures.bank={folder}/bank.safetensors", "pictures.tokens=512", "pictures.film_tokens=1024",
        f"speech.folders=['{folder}/speech']", "speech.lengths=[512]", f"dev_speech=['{folder}/speech']",
        f"texts.files=['{folder}/texts.jsonl']", "texts.tokens=128", "learn.rank=4",
        "workers={pictures=0, films=0, speech=0, texts=0}",
    ]  # fmt: skip


def settings(sets: list[str]) -> Settings:
    return read("nano_understanding", sets)


def _sound(seconds: float, hz: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(int(16_000 * seconds)) / 16_000)).astype(np.float32)


def _coded(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="OGG", subtype="OPUS")
    return file.getvalue()


def _clips(split: str, count: int):
    for i in range(count):
        name = {"context": ["Zanvi", "Morika"], "name": "Zanvi", "text": f"Zanvi is tone {i}."} if i % 3 == 0 else {}
        about = {"text": f"Tone {i}.", "language": "en", "kind": "name" if name else "everyday", "split": split} | name
        about["accent"] = "sichuan" if i % 4 == 1 else ""
        yield f"{split}{i:06}", {"json": as_json(about), "opus": _coded(_sound(0.5 + 0.07 * i, 200 + 40 * i))}


def _many_in_one(count: int):
    clips, sounds, start = [], [], 0
    for i in range(count):
        sounds.append(_sound(0.4, 300 + 50 * i))
        about = {"text": f"{i}。", "language": "zh", "kind": "real mandarin", "split": "train"}
        clips.append(about | {"start": start, "length": len(sounds[-1])})
        start += len(sounds[-1])
    return "000000", {"json": as_json(clips), "opus": _coded(np.concatenate(sounds))}
