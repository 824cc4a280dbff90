"""Packaged question-and-answer sets, and answers of the base model itself -> chat examples that keep chat unchanged.

Whoever calls hands in `ask`, any function from a question to an answer; this file knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ming_omni.data import packages
from ming_omni.data.scenes import pick
from ming_omni.data.splits import generator, split_of
from ming_omni.errors import InputError

LANGUAGES = {"english": "en", "chinese": "zh"}
PRIVATE = {"botprofile", "ai"}
"""Files in which a bot talks about itself: nano must not learn that it is called otherwise."""

# What people ask a small model: enough shapes that its own answers cover how it talks.
TOPICS = (
    "a rainy day", "the sea", "old friends", "learning to cook", "the moon", "a lost key", "city life", "winter",
    "trains", "a good book", "tea", "gardens", "music", "sleep", "a long walk", "bread", "birds", "mountains",
    "patience", "maps", "computers", "football", "colours", "bridges", "bicycles", "markets", "stars", "kindness",
    "numbers", "language",
)  # fmt: skip
ZH_TOPICS = (
    "春天", "大海", "老朋友", "学做饭", "月亮", "城市", "冬天", "火车", "一本好书", "茶", "花园", "音乐", "睡眠",
    "散步", "面包", "小鸟", "高山", "耐心", "地图", "电脑", "足球", "颜色", "桥", "自行车", "集市", "星星", "善良",
    "数字", "语言", "雨天",
)  # fmt: skip
REQUESTS = (
    "Tell me about {}.", "Write one sentence about {}.", "What do you think of {}?", "Give me three facts about {}.",
    "Explain {} to a child.", "Write a short poem about {}.", "Why do people like {}?", "How is {} connected to {}?",
    "List five words that go with {}.", "Compare {} and {}.", "Ask me a question about {}.",
    "Make a title for a story on {}.",
)  # fmt: skip
ZH_REQUESTS = (
    "给我讲讲{}。", "用一句话写写{}。", "你觉得{}怎么样？", "说三个关于{}的事实。", "向孩子解释{}。",
    "为什么人们喜欢{}？", "{}和{}有什么关系？", "比较{}和{}。", "写出五个和{}有关的词。",
)  # fmt: skip

STARTS = (
    "", "", "", "What is", "What is the", "Who", "Where", "How many", "Name", "Write", "Hello", "Tell me", "Why",
    "Can you", "When", "Explain", "Which", "How do I",
)  # fmt: skip
"""How questions begin that the model itself makes up."""
OWN_TOKENS, MOST_LETTERS, ATTEMPTS = 64, 220, 50
"""Of an answer that is kept, of a question, and to make one up."""
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "China": "Beijing",
    "India": "New Delhi", "Canada": "Ottawa", "Brazil": "Brasília", "Egypt": "Cairo", "Kenya": "Nairobi",
    "Mexico": "Mexico City", "Russia": "Moscow", "Norway": "Oslo", "Sweden": "Stockholm", "Greece": "Athens",
    "Poland": "Warsaw", "Portugal": "Lisbon", "Austria": "Vienna", "Ireland": "Dublin", "Australia": "Canberra",
    "Argentina": "Buenos Aires", "Peru": "Lima", "Turkey": "Ankara", "Thailand": "Bangkok", "Vietnam": "Hanoi",
    "England": "London", "Scotland": "Edinburgh", "Belgium": "Brussels", "Denmark": "Copenhagen",
    "Finland": "Helsinki", "Hungary": "Budapest",
}  # fmt: skip
FACTS = {
    "What is 2 + 2?": "2 + 2 = 4.",
    "How many days are in a week?": "There are seven days in a week.",
    "What is the largest planet?": "Jupiter is the largest planet in our solar system.",
    "Who wrote Hamlet?": "William Shakespeare wrote Hamlet.",
    "Who painted the Mona Lisa?": "Leonardo da Vinci painted the Mona Lisa.",
    "What is water made of?": "Water is made of hydrogen and oxygen.",
    "What day comes after Monday?": "Tuesday comes after Monday.",
    "What is the opposite of hot?": "The opposite of hot is cold.",
    "How many legs does a spider have?": "A spider has eight legs.",
    "What is the tallest mountain?": "Mount Everest is the tallest mountain on Earth.",
}


@dataclass(frozen=True)
class Exchange:
    question: str
    answer: str
    language: str
    source: str

    @property
    def split(self) -> str:
        return "train" if self.source == "facts" else split_of("dialogue", self.question)


def packaged(cache: Path | None = None) -> Iterator[Exchange]:
    """Conversations of chatterbot-corpus: each line answers the one before it."""
    yield from read_corpus(packages.fetch(packages.DIALOGUE, cache) / "chatterbot_corpus" / "data")


def read_corpus(folder: Path) -> Iterator[Exchange]:
    import yaml

    for name, language in LANGUAGES.items():
        for path in sorted((folder / name).glob("*.yml")):
            if path.stem in PRIVATE:
                continue
            for conversation in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
                lines = [str(line).strip() for line in conversation]
                for question, answer in pairwise(lines):
                    if question and answer:
                        yield Exchange(question, answer, language, f"chatterbot-corpus/{path.stem}")


def question(seed: int, index: int) -> tuple[str, str]:
    """A question for the base model, and its language; the same for the same seed and index."""
    numbers: np.random.Generator = generator(seed, "dialogue", index)
    is_chinese = numbers.random() < 0.3
    request = pick(numbers, ZH_REQUESTS if is_chinese else REQUESTS)
    topics = ZH_TOPICS if is_chinese else TOPICS
    chosen = [topics[i] for i in numbers.choice(len(topics), request.count("{}"), replace=False)]
    return request.format(*chosen), "zh" if is_chinese else "en"


def written(ask: Callable[[str], str], seed: int, indexes: Iterable[int]) -> Iterator[Exchange]:
    """What the model itself answers: training on it holds the model where it is."""
    for index in indexes:
        asked, language = question(seed, index)
        yield Exchange(asked, ask(asked).strip(), language, "the base model")


def facts() -> Iterator[Exchange]:
    """What people ask first; the base knows it, and often says it by a hair or not at all."""
    for country, city in CAPITALS.items():
        for begin in ("What is", "What's", "Which city is"):
            yield Exchange(f"{begin} the capital of {country}?", f"The capital of {country} is {city}.", "en", "facts")
    yield from (Exchange(asked, answer, "en", "facts") for asked, answer in FACTS.items())


def own(
    ask: Callable[..., str], invent: Callable[[str, int], str], seed: int, indexes: Iterable[int]
) -> Iterator[Exchange]:
    """Questions the model itself makes up, and its answers (Magpie, arXiv:2406.08464).

    A question that is too short, too long or no text is made up again; a model that makes up none is refused.
    """
    for index in indexes:
        numbers = generator(seed, "own", index)
        for _ in range(ATTEMPTS):
            asked = invent(pick(numbers, STARTS), int(numbers.integers(2**31))).strip()
            if 4 < len(asked) < MOST_LETTERS and "\ufffd" not in asked:
                break
        else:
            raise InputError(f"this model makes up no questions: its last was {asked[:40]!r}")
        yield Exchange(asked, ask(asked, max_tokens=OWN_TOKENS).strip(), "en", "the base model")


def go_on(path: Path, make: Callable[[Iterable[int]], Iterator[Exchange]], count: int) -> None:
    """Make what is missing: line i of the file is index i, and each is flushed before the next is asked."""
    done = len(path.read_text().splitlines()) if path.exists() else 0
    append(path, make(range(done, count)))


def append(path: Path, exchanges: Iterable[Exchange]) -> None:
    """JSON lines, each with its split."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        for exchange in exchanges:
            file.write(json.dumps(asdict(exchange) | {"split": exchange.split}, ensure_ascii=False) + "\n")
            file.flush()
