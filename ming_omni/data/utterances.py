"""A kind, a split and an index -> a sentence to be spoken, its context list where there is one; English and Mandarin.

A sentence, a name and a distractor belong to one split: what the test says was never said in training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ming_omni.data.accents import ACCENTS, dialect_text, num_changes
from ming_omni.data.lettering import CHINESE_WORDS, ENGLISH_WORDS
from ming_omni.data.names import COLOURS
from ming_omni.data.scenes import pick
from ming_omni.data.sentences import GRAMMAR_ALONE, Sayings, bare
from ming_omni.data.splits import generator, split_of

MAX_DISTRACTORS = 12
LISTED = 0.75
"""Part of the name sentences whose list holds the name; a wrong list teaches to ignore it."""
NATURAL, LISTS = 0.72, 0.16
"""Parts of the plain sentences that somebody wrote, and that are mere lists of words; the rest is grammar."""
LONG_ENOUGH = {"en": 60, "zh": 18}
"""Letters or hanzi after which a clip takes no second sentence."""
MIN_CHANGES = 2
"""Syllables by which an accent must be heard."""


@dataclass(frozen=True)
class Utterance:
    kind: str
    text: str
    language: str  # en, zh or mixed
    context: tuple[str, ...] = ()
    name: str = ""
    accent: str = ""
    """A synthetic accent's name; empty is standard."""


def utterance(kind: str, split: str, seed: int, index: int, sayings: Sayings = GRAMMAR_ALONE) -> Utterance:
    """The same for the same five; drawn again until its sentence belongs to the split, as do the sentences it joins."""
    numbers = generator(seed, f"{split} utterance {kind}", index)
    while True:
        found = KINDS[kind](numbers, split, sayings)
        if split_of("sentence", bare(found.text)) == split:
            return found


# Words

PEOPLE = (
    "my sister", "the teacher", "our neighbour", "the doctor", "her friend", "his brother", "the manager",
    "the driver", "everyone", "nobody", "a tourist", "the children", "my parents", "the new student",
)  # fmt: skip
ACTIONS = (
    "opened the window", "forgot the keys", "called a taxi", "cooked dinner", "found a wallet", "missed the train",
    "bought fresh bread", "cleaned the kitchen", "painted the fence", "watched the news", "lost the ticket",
    "fixed the bicycle", "wrote a letter", "planted a tree", "sold the car", "packed the suitcase",
    "answered the phone", "read the report",
)  # fmt: skip
PRESENT = ["likes", "needs", "wants", "sells", "collects", "remembers", "prefers", "draws", "studies", "carries"]
THINGS = (
    "old maps", "green apples", "warm socks", "quiet streets", "strong coffee", "small dogs", "long books",
    "paper boats", "wooden chairs", "clean water", "loud music", "heavy boxes", "spicy soup", "bright colours",
    "cheap tickets", "sharp knives",
)  # fmt: skip
TIMES = (
    "this morning", "last night", "before lunch", "after work", "on Monday", "at the weekend", "in the evening",
    "two days ago", "every summer", "right now", "during the storm", "as usual",
)  # fmt: skip
SITES = (
    "at the station", "near the river", "in the garden", "behind the school", "at the market", "on the bridge",
    "in the library", "beside the hotel", "in the kitchen", "at the airport", "under the old tree",
    "on the third floor",
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
REQUESTS = (
    "turn off the light", "close the door", "book a table for two", "wait outside", "speak a little louder",
    "show me the way", "set an alarm", "send the photos", "keep it quiet", "hold this for a moment",
    "check the weather", "play some music",
)  # fmt: skip
SYLLABLES = (
    "ka", "mo", "ri", "ta", "len", "dor", "vi", "sha", "bel", "nor", "zan", "phi", "gra", "tel", "mar", "osk", "wyn",
    "du", "fa", "ler", "qui", "ston", "ham", "bry", "sel", "ar", "in", "ez",
)  # fmt: skip
FIRST_NAMES = (
    "Olivia", "Marcus", "Priya", "Tobias", "Helena", "Dmitri", "Aisha", "Fergus", "Naomi", "Rafael", "Ingrid",
    "Kwame", "Yuki", "Leila", "Anton", "Bridget", "Cosmo", "Delia", "Emeka", "Flora", "Gideon", "Hana", "Isidro",
    "Jolene",
)  # fmt: skip

ZH_PEOPLE = (
    "我妈妈", "老师", "邻居", "医生", "他哥哥", "经理", "司机", "大家", "那个学生", "我的朋友", "孩子们", "售货员",
    "爷爷", "同事",
)  # fmt: skip
ZH_ACTIONS = (
    "打开了窗户", "忘了带钥匙", "做了晚饭", "买了新鲜的面包", "错过了火车", "修好了自行车", "写了一封信",
    "种了一棵树", "接了电话", "看完了报告", "收拾了行李", "画了一幅画", "洗了衣服", "订了机票",
)  # fmt: skip
ZH_TIMES = (
    "今天早上", "昨天晚上", "午饭以前", "下班以后", "星期一", "周末", "刚才", "两天前", "每年夏天", "现在",
    "下雨的时候", "三点钟",
)  # fmt: skip
ZH_SITES = (
    "在车站", "在河边", "在花园里", "在学校后面", "在市场", "在桥上", "在图书馆", "在酒店旁边", "在厨房", "在机场",
    "在三楼", "在公园门口",
)  # fmt: skip
ZH_WANTS = ["喜欢", "需要", "想要", "常常卖", "收集", "记得", "每天买", "会画", "正在研究"]
ZH_THINGS = (
    "旧地图", "青苹果", "厚袜子", "浓咖啡", "小狗", "长篇小说", "纸船", "木头椅子", "干净的水", "热闹的音乐",
    "重箱子", "辣汤", "便宜的票", "漂亮的颜色",
)  # fmt: skip
ZH_REQUESTS = (
    "关一下灯", "把门关上", "订一张两个人的桌子", "在外面等我", "说大声一点", "给我指路", "定一个闹钟",
    "把照片发给我", "安静一点", "查一下天气", "放点音乐", "帮我拿一下",
)  # fmt: skip
SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕"
GIVEN = (
    "伟芳娜敏静强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉萍红鹏飞雪梅兰凤洁琳建国志宇浩晨曦雨桐子涵欣怡俊"
    "安邦彬斌博昌诚崇楚春达德东栋恩凡方峰福刚歌光广贵海翰航恒弘宏虹厚虎怀欢辉慧佳嘉剑江娇锦景敬君凯康可坤岚蕾莉力立"
    "丽良亮琪龙鲁璐曼苗妙民楠宁培佩启谦倩青庆秋群然仁荣蓉瑞睿森珊尚绍生盛诗世淑舒树爽顺思松泰天田婷薇炜卫文武希熙贤翔"
    "晓新兴星旭轩学雅妍阳瑶耀晔依艺逸颖永咏友瑜元园远悦云泽展哲珍振震正卓"
)
ENGLISH_IN_CHINESE = (
    "email", "app", "WiFi", "PPT", "deadline", "meeting", "offer", "demo", "bug", "update", "download", "password",
    "laptop", "Python", "Excel", "coffee", "project", "team", "online", "video",
)  # fmt: skip


# Kinds


def everyday(numbers: np.random.Generator, split: str, sayings: Sayings) -> Utterance:
    return Utterance("everyday", _natural(numbers, sayings.english, "en") or _everyday(numbers, sayings), "en")


def _everyday(numbers: np.random.Generator, sayings: Sayings) -> str:
    if numbers.random() < LISTS / (1 - NATURAL):  # no grammar to lean on: every word must be heard
        return _capital(" ".join(pick(numbers, sayings.words or ENGLISH_WORDS) for _ in range(numbers.integers(3, 8))))
    shape = numbers.integers(3)
    if shape == 0:
        text = f"{pick(numbers, PEOPLE)} {pick(numbers, ACTIONS)} {pick(numbers, TIMES)}."
    elif shape == 1:
        text = f"{pick(numbers, PEOPLE)} {pick(numbers, ACTIONS)} {pick(numbers, SITES)} {pick(numbers, TIMES)}."
    else:
        ending = pick(numbers, ("thank you", "if you can", "before we leave", "my friend", *TIMES))
        text = f"please {pick(numbers, REQUESTS)}, {ending}."
    return _capital(text)


def question(numbers: np.random.Generator, split: str, sayings: Sayings) -> Utterance:
    who, what, where, when = (pick(numbers, group) for group in (PEOPLE, THINGS, SITES, TIMES))
    text = _natural(numbers, sayings.questions, "en") or pick(
        numbers,
        (
            f"where can I find {what} {where}?",
            f"did you see who {pick(numbers, ACTIONS)} {when}?",
            f"why does {who} need {what} {when}?",
            f"how much are the {pick(numbers, COLOURS)} ones {where}?",
            f"could you {pick(numbers, REQUESTS)} {when}?",
        ),
    )
    return Utterance("question", _capital(text), "en")


def number(numbers: np.random.Generator, split: str, sayings: Sayings) -> Utterance:
    """Written with digits, as the transcript should have them; the front end spells them out for the voice."""
    thing, day = pick(numbers, THINGS), int(numbers.integers(1, 29))
    month = pick(numbers, MONTHS)
    any_size = int(numbers.integers(2, 10 ** int(numbers.integers(1, 7))))
    text = pick(
        numbers,
        (
            f"we need {any_size} {thing}.",
            f"the train leaves at {numbers.integers(1, 13)}:{numbers.integers(10, 60)} on {month} {day}.",
            f"it costs ${numbers.integers(1, 200)}.{numbers.integers(10, 100)}.",
            f"about {numbers.integers(2, 100)}% of the {thing} came in {numbers.integers(1960, 2026)}.",
            f"my number is {'-'.join(str(numbers.integers(100, 1000)) for _ in range(3))}.",
            f"{pick(numbers, PEOPLE)} paid ${any_size} for the {thing} in {month} {numbers.integers(1900, 2031)}.",
            f"page {numbers.integers(2, 900)} says that {numbers.integers(2, 60)} of {any_size} people agreed.",
            f"it is {numbers.integers(2, 40)}.{numbers.integers(1, 10)} kilometres from here, "
            f"about {numbers.integers(2, 60)} minutes.",
            f"flight {numbers.integers(100, 9999)} boards at gate {numbers.integers(1, 99)} "
            f"at {numbers.integers(1, 13)}:{numbers.integers(10, 60)}.",
        ),
    )
    return Utterance("number", _capital(text), "en")


def english_name(numbers: np.random.Generator, split: str, sayings: Sayings) -> str:
    """A person's or a place's, known or made up; which part of it is nobody else's decides its split."""
    kind = numbers.random()
    if sayings.families and kind < 0.4:
        return f"{pick(numbers, sayings.first_names or FIRST_NAMES)} {pick(numbers, sayings.families)}"
    if sayings.places and kind < 0.6:
        return pick(numbers, sayings.places)
    while True:
        made = "".join(pick(numbers, SYLLABLES) for _ in range(numbers.integers(2, 4))).title()
        name = f"{pick(numbers, FIRST_NAMES)} {made}" if numbers.random() < 0.5 else made
        if split_of("name", made) == split:
            return name


def chinese_name(numbers: np.random.Generator, split: str, sayings: Sayings) -> str:
    if sayings.chinese_names and numbers.random() < 0.45:
        return pick(numbers, sayings.chinese_names)
    while True:
        name = pick(numbers, SURNAMES) + "".join(pick(numbers, GIVEN) for _ in range(numbers.integers(1, 3)))
        if split_of("name", name) == split:
            return name


def name(numbers: np.random.Generator, split: str, sayings: Sayings) -> Utterance:
    """A name nobody can spell by ear alone, with a list that mostly, not always, holds it."""
    said = english_name(numbers, split, sayings)
    text = pick(
        numbers,
        (
            f"I have an appointment with {said} {pick(numbers, TIMES)}.",
            f"{said} {pick(numbers, ACTIONS)} {pick(numbers, SITES)}.",
            f"please ask {said} to {pick(numbers, REQUESTS)}.",
            f"the meeting with {said} was moved to {pick(numbers, ('noon', 'Friday', 'next week', 'room four'))}.",
        ),
    )
    if sayings.english_named and numbers.random() < NATURAL:
        text = pick(numbers, sayings.english_named).format(said)
    context = _context(numbers, said, lambda: english_name(numbers, split, sayings))
    return Utterance("name", _capital(text), "en", context, said)


def mandarin(numbers: np.random.Generator, split: str, sayings: Sayings) -> Utterance:
    return Utterance("mandarin", _natural(numbers, sayings.chinese, "zh") or _mandarin(numbers, sayings), "zh")


def _mandarin(numbers: np.random.Generator, sayings: Sayings) -> str:
    if numbers.random() < LISTS / (1 - NATURAL):
        groups = sayings.chinese_words or (CHINESE_WORDS,)
        words = [pick(numbers, pick(numbers, groups)) for _ in range(numbers.integers(3, 6))]
        return "，".join(words) + "。"
    who, what, where, when = (pick(numbers, group) for group in (ZH_PEOPLE, ZH_THINGS, ZH_SITES, ZH_TIMES))
    return pick(
        numbers,
        (
            f"{when}{who}{where}{pick(numbers, ZH_ACTIONS)}。",
            f"{who}{pick(numbers, ZH_WANTS)}{what}。",
            f"请{pick(numbers, ZH_REQUESTS)}，谢谢。",
            f"{where}可以买到{what}吗？",
            f"{when}是谁{pick(numbers, ZH_ACTIONS)}？",
            f"你知道{who}为什么没有{pick(numbers, ('来', '说话', '回家', '吃饭'))}吗？",
            f"{who}很{pick(numbers, ('高兴', '累', '忙', '着急', '喜欢聊天'))}，怎么办？",
        ),
    )


def mandarin_number(numbers: np.random.Generator, split: str, sayings: Sayings) -> Utterance:
    any_size = int(numbers.integers(2, 10 ** int(numbers.integers(1, 7))))
    text = pick(
        numbers,
        (
            f"我们需要{any_size}个{pick(numbers, ZH_THINGS)}。",
            f"火车{numbers.integers(1, 13)}点{numbers.integers(10, 60)}分开。",
            f"今天是{numbers.integers(1990, 2031)}年{numbers.integers(1, 13)}月{numbers.integers(1, 29)}日。",
            f"一共{numbers.integers(1, 500)}.{numbers.integers(1, 10)}元。",
            f"大约{numbers.integers(2, 100)}%的人{pick(numbers, ZH_WANTS)}{pick(numbers, ZH_THINGS)}。",
            f"{pick(numbers, ZH_PEOPLE)}{pick(numbers, ZH_TIMES)}花了{any_size}元买{pick(numbers, ZH_THINGS)}。",
            f"请看第{numbers.integers(2, 900)}页，一共有{any_size}人同意。",
            f"从这里走{numbers.integers(2, 40)}.{numbers.integers(1, 10)}公里，大约要{numbers.integers(2, 60)}分钟。",
        ),
    )
    return Utterance("mandarin number", text, "zh")


def mandarin_name(numbers: np.random.Generator, split: str, sayings: Sayings) -> Utterance:
    said = chinese_name(numbers, split, sayings)
    text = pick(
        numbers,
        (
            f"{pick(numbers, ZH_TIMES)}{said}{pick(numbers, ZH_SITES)}{pick(numbers, ZH_ACTIONS)}。",
            f"请让{said}{pick(numbers, ZH_REQUESTS)}。",
            f"我和{said}约好了{pick(numbers, ZH_TIMES)}见面。",
            f"{said}是{pick(numbers, ZH_PEOPLE)}吗？",
        ),
    )
    if sayings.chinese_named and numbers.random() < NATURAL:
        text = pick(numbers, sayings.chinese_named).format(said)
    context = _context(numbers, said, lambda: chinese_name(numbers, split, sayings))
    return Utterance("mandarin name", text, "zh", context, said)


def code_switching(numbers: np.random.Generator, split: str, sayings: Sayings) -> Utterance:
    word = pick(numbers, ENGLISH_IN_CHINESE)
    text = pick(
        numbers,
        (
            f"{pick(numbers, ZH_TIMES)}的{word}改到{pick(numbers, ZH_TIMES)}了。",
            f"你能帮我看一下这个{word}吗？",
            f"{pick(numbers, ZH_PEOPLE)}{pick(numbers, ZH_TIMES)}把{word}发给我。",
            f"我的{word}和{pick(numbers, ENGLISH_IN_CHINESE)}都没有了，怎么办？",
        ),
    )
    if sayings.mixed and numbers.random() < NATURAL:
        text = pick(numbers, sayings.mixed)
    return Utterance("code switching", text, "mixed")


def accented(numbers: np.random.Generator, split: str, sayings: Sayings) -> Utterance:
    """A Mandarin sentence in a synthetic accent; its text has the dialect's words."""
    accent = pick(numbers, ACCENTS)
    while True:
        text = dialect_text(mandarin(numbers, split, sayings).text, accent)
        if num_changes(text, accent) >= MIN_CHANGES:
            return Utterance("accented", text, "zh", accent=accent.name)


KINDS: dict[str, Callable[[np.random.Generator, str, Sayings], Utterance]] = {
    "everyday": everyday, "question": question, "number": number, "name": name, "mandarin": mandarin,
    "mandarin number": mandarin_number, "mandarin name": mandarin_name, "code switching": code_switching,
    "accented": accented,
}  # fmt: skip
SHARES = {
    "everyday": 0.20, "question": 0.10, "number": 0.03, "mandarin number": 0.03, "name": 0.08, "mandarin name": 0.06,
    "mandarin": 0.32, "code switching": 0.05, "accented": 0.13,
}  # fmt: skip
"""Of a speech set's clips: English 41 %, Mandarin 41 %, accents 13 %, both languages 5 %."""


def pick_kind(numbers: np.random.Generator) -> str:
    return str(numbers.choice(list(SHARES), p=list(SHARES.values())))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _natural(numbers: np.random.Generator, sentences: tuple[str, ...], language: str) -> str:
    """One, two or three sentences that somebody wrote; nothing where there are none, or grammar is to speak."""
    if not sentences or numbers.random() >= NATURAL:
        return ""
    chosen, gap = pick(numbers, sentences), "" if language == "zh" else " "
    while len(chosen) < LONG_ENOUGH[language] and numbers.random() < 0.6:
        chosen += gap + pick(numbers, sentences)
    return chosen


def _context(numbers: np.random.Generator, said: str, make: Callable[[], str]) -> tuple[str, ...]:
    """A shuffled list of names, the said one usually among them."""
    others = [make() for _ in range(numbers.integers(2, MAX_DISTRACTORS + 1))]
    others = [other for other in others if other != said]
    if numbers.random() < LISTED:
        others.insert(int(numbers.integers(len(others) + 1)), said)
    return tuple(others)
