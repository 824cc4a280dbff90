"""How well and how fast transcription narrows lists, guards against leaks and finds speech: figures as JSON.

    python -m benchmarks.transcribe --hours 1 --output transcribe.json

Needs no model: mishearings are made from the words themselves. Chinese names become other characters of the same or a
neighbouring sound, English names what recognizers were seen to write for them.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from ming_omni.inputs.audio import load_audio
from ming_omni.transcribe.guard import SUPPORTED, UNSUPPORTED, guard
from ming_omni.transcribe.narrow import MOST_WORDS, PLAUSIBLE, Lexicon
from ming_omni.transcribe.segments import SUBTITLES, Track, speech

VOICES = Path(__file__).parent.parent / "tests" / "fixtures" / "speech"
RATE_HZ = 16_000
LIST_WORDS = 1_000
CHARACTERS = (
    "安白包北本边冰波才长陈城川春大丹道德邓丁东杜恩方飞丰冯福高格工光国海韩豪和黑恒红胡华怀黄惠吉季佳建江杰金晶景静君凯康兰蓝"
    "雷黎李立丽连林凌刘龙鲁陆罗马满梅孟明宁欧潘彭平齐启强乔秦青清邱曲仁荣如瑞沙山上尚邵神生石书顺思宋苏孙泰唐天田通童万王威"
    "文吴武西夏向肖小晓新信兴星雄秀徐许玄雪雅严阳杨姚叶一伊义英永优余宇玉园元袁远月云泽曾张赵振正志中钟周朱竹庄子宗祖"
)
"""Common in names."""
ENGLISH = {
    "Justin Bieber": "justin beaver", "Dolby Atmos": "dolby at most", "Kubernetes": "cooper netties",
    "PostgreSQL": "postgres q l", "Nginx": "engine x", "Xinjiang": "shin jang", "ChatGPT": "chat g p t",
    "melatonin receptors": "melatonin receptor is", "photic entrainment": "photonic entertainment",
    "radiofrequency ablation": "radio frequency oblation", "chorioangioma": "corio angioma", "Zelle": "zell",
    "Umsh stew": "um stew", "ductus venosus": "doctors venosus", "Siobhan": "shavon", "Nguyen": "win",
    "Joaquin": "walking", "Saoirse": "sersha", "Worcestershire": "wooster sheer", "Tchaikovsky": "chai koffski",
    "Dostoevsky": "dusty ef ski", "Schrodinger": "shroding er", "Nietzsche": "nee cha", "Versace": "ver satchy",
    "Hermione": "her my oh knee", "Reykjavik": "wreck a vic", "Ljubljana": "loo blana", "Kyrgyzstan": "curg is tan",
    "amoxicillin": "a moxie sillin", "ibuprofen": "i be profen", "acetaminophen": "a seat a minute fen",
    "TensorFlow": "tensor flow", "PyTorch": "pie torch", "Kafka": "cough ka", "Grafana": "gra fauna",
    "Ansible": "answer bull", "Terraform": "terror form", "Jenkins": "jen kins", "Wireshark": "wire shark",
}  # fmt: skip
SENTENCES = ("so we talked about {} for an hour", "did you ever hear of {} before", "and then {} came up again")
CHINESE_SENTENCES = ("今天我们说到{}的时候", "你以前听说过{}没有", "后来{}又来了一次")


def chinese_names(count: int, draw: random.Random) -> list[str]:
    return list({"".join(draw.choices(CHARACTERS, k=draw.choice((2, 3, 3, 4)))): None for _ in range(2 * count)})[
        :count
    ]


def misheard(name: str, draw: random.Random) -> str:
    """Every character becomes another of its syllable if there is one; one in five of a neighbouring syllable."""
    from pypinyin import lazy_pinyin

    sounds = defaultdict(list)
    for character, sound in zip(CHARACTERS, lazy_pinyin(" ".join(CHARACTERS))[::2], strict=True):
        sounds[sound].append(character)
    neighbours = (("zh", "z"), ("ch", "c"), ("sh", "s"), ("n", "l"), ("ng", "n"), ("f", "h"), ("an", "ian"))
    written = []
    for character in name:
        sound = lazy_pinyin(character)[0]
        near = [sound.replace(a, b, 1) for a, b in (*neighbours, *((b, a) for a, b in neighbours))]
        choices = [c for s in near if s != sound for c in sounds.get(s, [])] if draw.random() < 0.2 else []
        choices = choices or [c for c in sounds[sound] if c != character] or [character]
        written.append(draw.choice(choices))
    return "".join(written)


def cases(draw: random.Random, names: list[str]) -> Iterator[tuple[str, str, str]]:
    """(name, answer without context in which it is misheard, answer with the name itself)"""
    for name in names[:100]:
        frame = draw.choice(CHINESE_SENTENCES)
        yield name, frame.format(misheard(name, draw)), frame.format(name)
    for name, written in ENGLISH.items():
        frame = draw.choice(SENTENCES)
        yield name, frame.format(written), frame.format(name)


def narrowing(draw: random.Random, names: list[str]) -> dict:
    """A list of a thousand names in both languages, one of which is misheard in each answer."""
    others = [a + b.lower() for a, b in pairwise(draw.choices([w for e in ENGLISH for w in e.split()], k=400))]
    lexicon = Lexicon(list(dict.fromkeys([*ENGLISH, *names, *others]))[:LIST_WORDS])
    kept, found, seconds, total = 0, 0, 0.0, 0
    for name, plain, _ in cases(draw, names):
        started = time.perf_counter()
        plausible = lexicon.plausible(plain)
        seconds += time.perf_counter() - started
        kept, found, total = kept + len(plausible), found + (name in plausible), total + 1
    return {
        "list_words": len(lexicon.words),
        "kept_words_at_most": MOST_WORDS,
        "plausible_from": PLAUSIBLE,
        "answers": total,
        "kept_words_mean": kept / total,
        "recall": found / total,
        "milliseconds": 1000 * seconds / total,
    }


def guarding(draw: random.Random, names: list[str]) -> dict:
    """Names that were misheard and must stay; and names in place of, or after, something else, which must go."""
    all_cases = list(cases(draw, names))
    verdicts: dict[str, list[str]] = {"misheard": [], "in_place": [], "appended": []}
    for name, plain, heard in all_cases:
        verdicts["misheard"].append(_verdict(plain, heard, name))
        is_chinese = ord(name[0]) > 0x3000
        said = draw.choice(
            ["我的老师和同学", "那一家新开的店"] if is_chinese else ["my old teacher", "the new library"]
        )
        frame = draw.choice(CHINESE_SENTENCES if is_chinese else SENTENCES)
        verdicts["in_place"].append(_verdict(frame.format(said), frame.format(name), name))
        verdicts["appended"].append(_verdict(plain, plain + ("，" if is_chinese else ", ") + name, name))
    count = len(all_cases)
    return {"supported_from": SUPPORTED, "unsupported_below": UNSUPPORTED, "cases": count} | {
        kind: {verdict: found.count(verdict) / count for verdict in ("kept", "flagged", "removed")}
        for kind, found in verdicts.items()
    }


def _verdict(plain: str, heard: str, name: str) -> str:
    leaks = guard(plain, heard, [name]).leaks
    return leaks[0].verdict if leaks else "kept"


def hearing(hours: float) -> dict:
    """A file of real words and pauses -> the speech in it, and what that takes."""
    import soundfile

    pieces = [part for path in sorted(VOICES.glob("*.*3")) for part in (load_audio(path).numpy(), np.zeros(RATE_HZ))]
    pieces += [part for path in sorted(VOICES.glob("*.wav")) for part in (load_audio(path).numpy(), np.zeros(RATE_HZ))]
    minute = np.resize(np.concatenate(pieces), 60 * RATE_HZ).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.flac"
        with soundfile.SoundFile(path, "w", RATE_HZ, 1) as file:
            for _ in range(round(60 * hours)):
                file.write(minute)
        list(speech(Track((minute, RATE_HZ)), SUBTITLES))  # everything is loaded
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        count = sum(1 for _ in speech(Track(path), SUBTITLES))
        seconds = time.perf_counter() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "hours": hours,
        "segments": count,
        "seconds": seconds,
        "times_real_time": 3600 * hours / seconds,
        "peak_memory_grown_mb": grown / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=0.1, help="length of the sound that is searched for speech")
    parser.add_argument("--output", type=Path, help="a JSON file")
    options = parser.parse_args()
    draw = random.Random(0)
    names = chinese_names(600, draw)
    figures = {
        "machine": platform.processor() or platform.machine(),
        "narrowing": narrowing(draw, names),
        "guard": guarding(draw, names),
        "hearing": hearing(options.hours),
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
