"""Words that scenes show, and the fonts they are set in; each word and each family of type belongs to one split."""

from __future__ import annotations

import numpy as np

from ming_omni.data.splits import split_of

# Font -> its file and the face in that file.
LATIN_FONTS = {
    "DejaVuSans": ("DejaVuSans.ttf", 0),
    "DejaVuSans-Bold": ("DejaVuSans-Bold.ttf", 0),
    "DejaVuSerif": ("DejaVuSerif.ttf", 0),
    "DejaVuSerif-Bold": ("DejaVuSerif-Bold.ttf", 0),
    "DejaVuSansMono-Bold": ("DejaVuSansMono-Bold.ttf", 0),
    "DejaVuSerifCondensed-Italic": ("DejaVuSerifCondensed-Italic.ttf", 0),
    "Lato-Regular": ("Lato-Regular.ttf", 0),
    "Lato-Black": ("Lato-Black.ttf", 0),
    "Lato-BoldItalic": ("Lato-BoldItalic.ttf", 0),
    "Quicksand-Bold": ("Quicksand-Bold.ttf", 0),
    "Quicksand-Medium": ("Quicksand-Medium.ttf", 0),
    "Lobster": ("lobster.otf", 0),
    "Cabin-SemiBold": ("Cabin-SemiBold.otf", 0),
    "Cabin-BoldItalic": ("Cabin-BoldItalic.otf", 0),
    "ComicNeue-Bold": ("ComicNeue-Bold.otf", 0),
    "ComicNeue-Regular": ("ComicNeue-Regular.otf", 0),
}
CHINESE_FONTS = {
    "NotoSansCJK-Regular": ("NotoSansCJK-Regular.ttc", 2),  # face 2 has the forms used in China
    "NotoSansCJK-Bold": ("NotoSansCJK-Bold.ttc", 2),
    "NotoSerifCJK-Bold": ("NotoSerifCJK-Bold.ttc", 2),
    "LXGWWenKai-Regular": ("LXGWWenKai-Regular.ttf", 0),
    "LXGWWenKai-Bold": ("LXGWWenKai-Bold.ttf", 0),
    "wqy-microhei": ("wqy-microhei.ttc", 0),
}
# Package of Debian -> licence, files. Whole families, for training alone: what is read in them is read in others too.
MORE_LATIN_FONTS = {
    "allerta": ("OFL-1.1", "allerta_medium"),
    "arapey": ("OFL-1.1", "Arapey-Regular"),
    "averia-sans-gwf": ("OFL-1.1", "AveriaSansGWF-Regular AveriaSansGWF-BoldItalic"),
    "averia-serif-gwf": ("OFL-1.1", "AveriaSerifGWF-Bold"),
    "b612": ("OFL-1.1", "B612-Bold B612Mono-Regular"),
    "cantarell": ("OFL-1.1", "Cantarell-Regular Cantarell-ExtraBold"),
    "cardo": ("OFL-1.1", "Cardob101"),
    "cherrybomb": ("OFL-1.1", "CherryBomb-Regular"),
    "comfortaa": ("OFL-1.1", "Comfortaa-Bold"),
    "crosextra-caladea": ("Apache-2.0", "Caladea-Bold Caladea-Italic"),
    "crosextra-carlito": ("OFL-1.1", "Carlito-Regular Carlito-BoldItalic"),
    "dancingscript": ("OFL-1.1", "DancingScript-Bold"),
    "dosis": ("OFL-1.1", "Dosis-Medium Dosis-ExtraBold"),
    "ebgaramond": ("OFL-1.1", "EBGaramond12-Bold EBGaramond12-Italic"),
    "fantasque-sans": ("OFL-1.1", "FantasqueSansMono-Bold FantasqueSansMono-Italic"),
    "femkeklaver": ("CC-BY-SA-3.0", "femkeklaver"),
    "firacode": ("OFL-1.1", "FiraCode-Medium"),
    "go": ("BSD-3-Clause", "Go-Medium Go-Bold-Italic"),
    "inter": ("OFL-1.1", "Inter-Medium Inter-BlackItalic"),
    "jetbrains-mono": ("Apache-2.0", "JetBrainsMono-Bold"),
    "junction": ("OFL-1.1", "Junction"),
    "karla": ("OFL-1.1", "Karla-Medium Karla-BoldItalic"),
    "kaushanscript": ("OFL-1.1", "KaushanScript-Regular"),
    "league-spartan": ("OFL-1.1", "LeagueSpartan-Medium LeagueSpartan-Black"),
    "leckerli-one": ("OFL-1.1", "LeckerliOne-Regular"),
    "liberation": (
        "OFL-1.1",
        "LiberationSans-Bold LiberationSans-Italic LiberationSerif-Regular LiberationSerif-Bold LiberationMono-Bold "
        "LiberationSansNarrow-Bold",
    ),
    "linuxlibertine": ("OFL-1.1", "LinLibertine_RB LinBiolinum_RB LinBiolinum_RI"),
    "lobstertwo": ("OFL-1.1", "LobsterTwo-Bold"),
    "manrope": ("OFL-1.1", "Manrope-Bold"),
    "national-park": ("OFL-1.1", "NationalPark-Heavy"),
    "open-sans": ("Apache-2.0", "OpenSans-Semibold OpenSans-ExtraBoldItalic OpenSans-CondBold"),
    "play": ("OFL-1.1", "Play-Bold"),
    "quattrocento": ("OFL-1.1", "Quattrocento-Regular"),
    "roboto-unhinted": ("Apache-2.0", "Roboto-Medium Roboto-BlackItalic RobotoCondensed-Bold"),
    "sil-andika": ("OFL-1.1", "Andika-Regular Andika-BoldItalic"),
    "sil-charis": ("OFL-1.1", "CharisSIL-Bold CharisSIL-Italic"),
    "sil-gentium": ("OFL-1.1", "Gentium-R"),
    "sora": ("OFL-1.1", "Sora-SemiBold"),
    "tuffy": ("public-domain", "Tuffy_Bold Tuffy_Italic"),
    "vollkorn": ("OFL-1.1", "Vollkorn-Medium Vollkorn-BlackItalic"),
    "yanone-kaffeesatz": ("OFL-1.1", "YanoneKaffeesatz-Bold"),
}
MORE_CHINESE_FONTS = {
    "arphic-gbsn00lp": ("Arphic-1999", "gbsn00lp"),
    "arphic-gkai00mp": ("Arphic-1999", "gkai00mp"),
    "smiley-sans": ("OFL-1.1", "SmileySans-Oblique"),
}
_HELD_OUT = {"ComicNeue": "test", "Cabin": "dev", "wqy-microhei": "test", "NotoSerifCJK": "dev"}
"""Whole families: two weights of one design would be no test."""

ENGLISH_WORDS = (
    "hello", "welcome", "open", "closed", "stop", "go", "sale", "exit", "enter", "push", "pull", "coffee", "tea",
    "bread", "milk", "water", "pizza", "school", "music", "happy", "birthday", "love", "peace", "world", "summer",
    "winter", "spring", "autumn", "holiday", "party", "game", "start", "finish", "left", "right", "north", "south",
    "east", "west", "yes", "no", "maybe", "today", "tomorrow", "monday", "tuesday", "friday", "sunday", "market",
    "garden", "museum", "library", "hotel", "taxi", "train", "airport", "bus", "ticket", "price", "free", "new",
    "old", "best", "fresh", "hot", "cold", "fast", "slow", "quiet", "danger", "warning", "caution", "police",
    "doctor", "fire", "help", "thanks", "please", "sorry", "hi", "bye", "good", "morning", "night", "star", "moon",
    "sun", "sky", "sea", "river", "forest", "mountain", "beach", "island", "city", "town", "street", "house", "home",
    "room", "door", "window", "table", "chair", "lamp", "book", "paper", "pencil", "letter", "number", "word", "name",
    "color", "picture", "camera", "phone", "robot", "rocket", "planet", "space", "dream", "magic", "wonder", "smile",
    "laugh", "dance", "sing", "play", "work", "study", "read", "write", "learn", "think", "build", "create", "design",
    "paint", "draw", "cook", "bake", "eat", "drink", "sleep", "walk", "run", "jump", "swim", "fly", "drive", "ride",
    "travel",
)  # fmt: skip
CHINESE_WORDS = (
    "你好", "欢迎", "谢谢", "再见", "早安", "晚安", "出口", "入口", "开门", "关门", "停车", "小心", "危险", "注意",
    "安全", "学校", "医院", "银行", "超市", "书店", "咖啡", "茶馆", "餐厅", "面馆", "火车", "地铁", "机场", "公园",
    "花园", "图书馆", "电影院", "博物馆", "生日快乐", "新年快乐", "欢迎光临", "禁止吸烟", "春天", "夏天", "秋天",
    "冬天", "今天", "明天", "昨天", "上午", "下午", "星期一", "星期五", "中国", "北京", "上海", "广州", "成都",
    "西安", "南京", "杭州", "苹果", "香蕉", "西瓜", "牛奶", "面包", "米饭", "水果", "蔬菜", "大海", "高山", "森林",
    "河流", "太阳", "月亮", "星星", "天空", "朋友", "老师", "学生", "家人", "爸爸", "妈妈", "孩子", "快乐", "幸福",
    "健康", "平安", "成功", "加油", "努力", "学习", "工作", "休息", "旅行", "音乐", "电影", "游戏", "足球", "篮球",
    "跑步", "游泳", "画画", "唱歌", "跳舞", "读书", "写字", "红色", "绿色", "蓝色", "黄色", "东南西北", "春夏秋冬",
    "一二三四", "大小多少", "左右", "上下", "特价", "免费", "新品", "打折", "开业", "茶叶", "火锅", "饺子", "豆腐",
    "鲜花", "礼物", "手机", "电脑", "照片", "故事", "梦想", "未来", "和平", "世界", "时间", "地点", "人民", "国家",
    "城市",
)  # fmt: skip
CHINESE_CHARACTERS = "".join(sorted(set("".join(CHINESE_WORDS))))
_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"


def faces(packages: dict[str, tuple[str, str]]) -> dict[str, tuple[str, int]]:
    """Further fonts -> their files, without endings, and faces, as above: each is named like its file."""
    return {name: (name, 0) for _, files in packages.values() for name in files.split()}


def font_split(name: str) -> str:
    return next((split for family, split in _HELD_OUT.items() if name.startswith(family)), "train")


def word_split(word: str) -> str:
    """HELLO, Hello and hello are one word."""
    return split_of("word", word.lower())


def pick_word(generator: np.random.Generator, split: str, is_chinese: bool) -> str:
    """Half of all words are real; the others are new, so that reading cannot be guessing."""
    while True:
        word = _chinese_word(generator) if is_chinese else _english_word(generator)
        if word_split(word) == split:
            return word


def _english_word(generator: np.random.Generator) -> str:
    if generator.random() < 0.5:
        word = ENGLISH_WORDS[generator.integers(len(ENGLISH_WORDS))]
    elif generator.random() < 0.2:
        word = "".join(generator.choice(list("0123456789"), generator.integers(2, 6)))
    else:
        count = generator.integers(1, 4)
        word = "".join(generator.choice(list(_CONSONANTS)) + generator.choice(list(_VOWELS)) for _ in range(count))
        word += generator.choice(list(_CONSONANTS)) if generator.random() < 0.5 else ""
    return (word.upper(), word.title(), word)[generator.integers(3)]


def _chinese_word(generator: np.random.Generator) -> str:
    if generator.random() < 0.5:
        return CHINESE_WORDS[generator.integers(len(CHINESE_WORDS))]
    return "".join(generator.choice(list(CHINESE_CHARACTERS), generator.integers(1, 5)))
