"""English as written -> as spoken: `$3.50 on 5/4` -> "three dollars and fifty cents on May fourth".

A table of rules, applied in order: each turns one kind of thing into words and leaves the rest to those after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from threading import Lock

from ming_omni.speech.english_names import (
    ABBREVIATIONS,
    CURRENCIES,
    DIGITS,
    FILE_ENDINGS,
    MONTH,
    MONTHS,
    PLURALS,
    RULERS,
    SCALES,
    SHORT_DAYS,
    SHORT_MONTHS,
    TITLES,
    UNITS,
)  # fmt: skip

LATIN_MARKS = str.maketrans("，。！？：；（）～“”‘’、", ",.!?:;()~\"\"'',")
NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|(?<![A-Za-z])\.\d+"
# A minus is a sign only where nothing stands before it.
SIGNED = rf"(?:(?<![\w.)\]])[-−])?(?:{NUMBER})"
_importing = Lock()


@cache
def _inflect():
    import typeguard

    with _importing:
        # inflect has its own source rewritten to check types, which takes eight seconds; nobody here needs that.
        checked, typeguard.typechecked = typeguard.typechecked, lambda function: function
        try:
            import inflect
        finally:
            typeguard.typechecked = checked
    return inflect.engine()


def cardinal(number: str) -> str:
    """`-1,234.05` -> "minus one thousand two hundred thirty-four point zero five"."""
    number = number.replace(",", "").replace("−", "-")
    sign, number = ("minus ", number[1:]) if number.startswith("-") else ("", number)
    whole, _, decimals = number.partition(".")
    if len(whole) > 15 or (len(whole) > 1 and whole[0] == "0"):
        words = digits(whole)
    else:
        words = _inflect().number_to_words(whole or "0", andword="", comma="")
    return f"{sign}{words} point {digits(decimals)}" if decimals else sign + words


def digits(text: str) -> str:
    return " ".join(DIGITS[int(c)] for c in text if c.isdecimal())


def ordinal(number: str) -> str:
    return _inflect().ordinal(cardinal(number))


def year(number: str) -> str:
    """1999 -> "nineteen ninety-nine", 2005 -> "two thousand five", 1905 -> "nineteen oh five"."""
    high, low = divmod(int(number), 100)
    if high % 10 == 0 and low < 10:
        return cardinal(number)
    return f"{cardinal(str(high))} {_two_digits(low) if low else 'hundred'}"


def _two_digits(number: int) -> str:
    return cardinal(str(number)) if number > 9 else f"oh {DIGITS[number]}"


def plural(name: str) -> str:
    for singular, several in PLURALS.items():
        if name.endswith(singular):
            return name.removesuffix(singular) + several
    first, per, rest = name.partition(" per ")
    if per:
        return plural(first) + per + rest
    return name.replace("degree", "degrees", 1) if name.startswith("degree") else f"{name}s"


def quantity(number: str, name: str) -> str:
    return f"{cardinal(number)} {name if number in ('1', '-1') else plural(name)}"


def _alternatives(names) -> str:
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))


def _money(match: re.Match) -> str:
    sign, amount, scale = match["sign"], match["amount"].replace(",", ""), match["scale"] or match["word"]
    unit, cent = CURRENCIES[sign]
    minus = "minus " if match["minus"] else ""
    if scale:
        return f"{minus}{cardinal(amount)} {SCALES.get(scale, scale)} {plural(unit)}"
    whole, _, decimals = amount.partition(".")
    if not cent or not re.fullmatch(r"\d\d?", decimals):
        return minus + quantity(amount, unit)
    small = str(int(decimals.ljust(2, "0")))
    parts = [quantity(whole, unit)] if int(whole or 0) or small == "0" else []
    return minus + " and ".join(parts + ([quantity(small, cent)] if small != "0" else []))


def _phone(match: re.Match) -> str:
    groups = re.findall(r"\d+", match[0])
    return ("plus " if match[0].startswith("+") else "") + ", ".join(digits(group) for group in groups)


def _iso_date(match: re.Match) -> str:
    return _date(int(match[2]), int(match[3]), match[1]) or match[0]


def _moment(match: re.Match) -> str:
    """A date that a time of day follows, as computers write it."""
    return f"{_iso_date(match)} at "


def _slash_date(match: re.Match) -> str:
    """Month first, as in America, unless that is no month."""
    first, second = int(match[1]), int(match[2])
    month, day = (second, first) if first > 12 else (first, second)
    full = match[3] if len(match[3]) == 4 else f"20{match[3]}"
    return _date(month, day, full) or match[0]


def _date(month: int, day: int, full_year: str) -> str | None:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return f"{MONTHS[month - 1]} {ordinal(str(day))}, {year(full_year)}"


def _time(match: re.Match) -> str:
    hour, minute, second, half = match[1], match[2], match[3], (match[4] or "").upper()
    if int(hour) > 24 or int(minute) > 59:
        return f"{cardinal(hour)} to {cardinal(minute)}"
    if minute != "00":
        words = f"{cardinal(str(int(hour)))} {_two_digits(int(minute))}"
    elif half:
        words = cardinal(str(int(hour)))
    else:
        words = f"{cardinal(str(int(hour)))} o'clock" if int(hour) <= 12 else f"{cardinal(hour)} hundred"
    if second:
        words += f" and {quantity(str(int(second)), 'second')}"
    return f"{words} {half}M" if half else words


def _fraction(match: re.Match) -> str:
    whole, numerator, denominator = match[1], match[2], match[3]
    if int(denominator) == 0 or int(denominator) > 100:
        return f"{cardinal(numerator)} over {cardinal(denominator)}"
    name = {2: "half", 4: "quarter"}.get(int(denominator)) or ordinal(denominator)
    several = "halves" if name == "half" else f"{name}s"
    part = f"{cardinal(numerator)} {name if int(numerator) == 1 else several}"
    if whole:
        part = f"{cardinal(whole.strip())} and " + (f"a {name}" if int(numerator) == 1 else part)
    return part


def _decade(match: re.Match) -> str:
    century, decade = match[1], match[2]
    if decade == "00":
        return "two thousands" if century == "20" else f"{cardinal(century)} hundreds"
    tens = _inflect().plural(cardinal(decade))
    return f"{cardinal(century)} {tens}" if century else tens


def _version(match: re.Match) -> str:
    return " point ".join(
        cardinal(part) if len(part) < 3 and part[0] != "0" else digits(part) for part in match[0].split(".")
    )


def _duration(match: re.Match) -> str:
    parts = zip(match.groups(), ("hour", "minute", "second"), strict=True)
    return " ".join(quantity(number, unit) for number, unit in parts if number)


def _power(match: re.Match) -> str:
    exponent = {"²": "2", "³": "3"}.get(match[2], match[2])
    name = {"2": "squared", "3": "cubed"}.get(
        exponent
    ) or f"to the power of {exponent if exponent.isalpha() else cardinal(exponent)}"
    return f"{match[1]} {name}"


def _ruler(match: re.Match) -> str:
    """Henry VIII is the eighth of that name."""
    return f"{match[1]} the {ordinal(_roman_value(match[2]))}"


def _roman(match: re.Match) -> str:
    return f"{match[1]} {cardinal(_roman_value(match[2]))}"


def _roman_value(letters: str) -> str:
    values = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
    numbers = [values[c] for c in letters]
    return str(sum(-n if n < max(numbers[i:]) else n for i, n in enumerate(numbers)))


Rule = tuple[str, str | Callable[[re.Match], str]]

WORDS: tuple[Rule, ...] = (
    (rf"\b({_alternatives(TITLES)})\.(?=\s)", lambda m: TITLES[m[1]]),
    (r"\b(Mr|Mrs|Ms|Dr)(?= [A-Z])|\b(Jr|Sr)\.?(?=\W|$)", lambda m: TITLES[m[1] or m[2]]),
    (rf"(?<![\w.])({_alternatives(ABBREVIATIONS)})(?!\w)", lambda m: ABBREVIATIONS[m[1]]),
    (r"\bSt\.(?=\s+[A-Z][a-z])", "Saint"),
    (r"(?<=[a-z]\s)St\.?(?=\W|$)", "Street"),
    (r"\b[Nn]os?\.\s?(?=\d)", "number "),
    (rf"\b({_alternatives(SHORT_MONTHS)})\b\.?(?=\s\d)", lambda m: SHORT_MONTHS[m[1]]),
    (rf"(?<=\d\s)({_alternatives(SHORT_MONTHS)})\b\.?", lambda m: SHORT_MONTHS[m[1]]),
    (rf"\b({_alternatives(SHORT_DAYS)})\b(?:\.|(?=,))", lambda m: SHORT_DAYS[m[1]]),
    (r"\b(World War|Chapter|Part|Act|Volume|Phase|Type|Article|Book|Section|Super Bowl) ([IVXLC]+)\b", _roman),
    (rf"\b({RULERS}) ([IVX]{{2,}}|V|X)\b", _ruler),
)
NUMBERS: tuple[Rule, ...] = (
    (r"\+\d[\d \-()]{6,}\d", _phone),
    (r"(?<![\w-])(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}(?![\w-])", _phone),
    (r"(?<![\w-])\d{3}-\d{4}(?![\w-])", _phone),
    (r"\b(\d{1,2})-(\d{1,2})-(\d{4})\b", _slash_date),
    (r"(?<![\w-])(?!(?:19|20)\d\d-\d\d?-\d\d?(?!\d))\d+(?:-\d+){2,}(?![\w-])", _phone),  # also other serial numbers
    (r"(?<![\w-])\d{4}(?: \d{4}){3}(?![\w-])", _phone),
    (
        r"(?i)\b(?P<name>(?:pass)?code|PIN|zip|password|extension)(?P<is>:| is|) (?P<number>\d{3,8})\b(?![.,]\d)",
        lambda m: f"{m['name']}{m['is']} {digits(m['number'])}",
    ),
    (r"\b(\d+(?:\.\d+){3}):(\d+)\b", lambda m: f"{m[1]} port {digits(m[2])}"),
    (r"\b(\d{4})-(\d\d)-(\d\d)[T ](?=\d\d:\d\d)", _moment),
    (r"(?<=\d:\d\d)(?:\.\d+)?Z\b", " UTC"),
    (
        r"(?i)(?<=\d:\d\d)( ?[ap]\.?m\b\.?)?\s?[-–—]\s?(?=\d{1,2}:\d\d)|(?<=\d)( ?[ap]\.?m\b\.?)\s?[-–—]\s?(?=\d)",
        lambda m: f"{m[1] or m[2] or ''} to ",
    ),
    (r"(?i)\b(?P<verb>call|dial|text|phone) (?P<number>\d{3})\b", lambda m: f"{m['verb']} {digits(m['number'])}"),
    (r"\b(\d{4})[-/](\d{1,2})[-/](\d{1,2})\b", _iso_date),
    (r"\b(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})\b", _slash_date),
    (rf"\b({MONTH}) (\d{{1,2}})(?:st|nd|rd|th)?\b(?!:)", lambda m: f"{m[1]} {ordinal(m[2])}"),
    (rf"\b(\d{{1,2}})(?:st|nd|rd|th)? (?:of )?({MONTH})\b", lambda m: f"the {ordinal(m[1])} of {m[2]}"),
    (r"\bthe the\b", "the"),
    (r"\b(\d{1,2}):(\d\d)(?::(\d\d))?(?:\s?([AaPp])\.?[Mm]\b\.?)?", _time),
    (r"\b(\d{1,2})\s?([AaPp])\.?[Mm]\b\.?", lambda m: f"{cardinal(m[1])} {m[2].upper()}M"),
    (r"\b(\d+):(\d+)\b", lambda m: f"{cardinal(m[1])} to {cardinal(m[2])}"),
    (r"([$£€¥])-(?=\d)", r"-\1"),
    (rf"([$£€¥])({NUMBER})\s?[-–—]\s?\1?(?={NUMBER})", r"\2 to \1"),
    (
        rf"(?P<minus>(?<![\w.)\]])[-−])?(?P<sign>{_alternatives(CURRENCIES)})\s?(?P<amount>{NUMBER})"
        r"(?:(?P<scale>k|K|m|M|bn|b|B|tn|T)\b| ?(?P<word>thousand|million|billion|trillion)\b)?",
        _money,
    ),
    (rf"(?P<minus>)(?P<amount>{NUMBER}) ?(?P<sign>(?:USD|GBP|EUR|JPY|CNY|RMB)\b|[€£¢₹₩])(?P<scale>)(?P<word>)", _money),
    (r"\b(1\d|20)(\d0)['’]?s\b", _decade),
    (r"(?<!\w)()['’]?([1-9]0)['’]?s\b", _decade),
    (r"\b(24/7|9/11|50/50)\b(?!/)", lambda m: " ".join(cardinal(part) for part in m[1].split("/"))),
    (r"(?<![\w/+×*-])(?<![+×*-] )(\d+)\s?/\s?(?=\d+\s*=)", r"\1 divided by "),
    (r"(?<=\d)\s?[-–−]\s?(?=\d+(?:\.\d+)?\s*=)", " minus "),
    (r"(?<![\w/])(\d+ )?(\d{1,3})/(\d+)(?![\w/])", _fraction),
    (rf"\b({NUMBER})[eE]([-+]?\d+)\b", lambda m: f"{cardinal(m[1])} times ten to the {cardinal(m[2].lstrip('+'))}"),
    (r"(?<=\d)%\s?[-–—]\s?(?=\d)", "% to "),
    (rf"({NUMBER})\s?[-–—~]\s?(?=(?:{NUMBER}) ?%)", r"\1 to "),
    (rf"({SIGNED}) ?%", lambda m: f"{cardinal(m[1])} percent"),
    (r"\bv(?:er)?\.? ?(?=\d+\.\d)", "version "),
    (r"\b\d+(?:\.\d+){2,}\b", _version),
    (rf"({NUMBER})\s?[-–—~]\s?(?=(?:{NUMBER})(?![-\w]*-))", r"\1 to "),
    (r"\b(\d+)\s?h\s?(\d+)\s?m(?:in)?(?:\s?(\d+)\s?s)?\b", _duration),
    (rf"({SIGNED}) ?({_alternatives(UNITS)})(?![\w²³])", lambda m: quantity(m[1], UNITS[m[2]])),
    (r"\b(\d)['′](\d{1,2})(?:[\"”″]|′′|\b)", lambda m: f"{cardinal(m[1])} foot {cardinal(m[2])}"),
    (r"\b(\d+)(?:\"|′′|in\b) ?[xX×] ?(?=\d)", lambda m: f"{m[1]} by "),
    (r"(?<![\w\".])(\d+(?:\.\d+)?)(?:\"(?![^\"]*\")|′′|in\b)", lambda m: quantity(m[1], "inch")),
    (r"\b(\d+)′", lambda m: quantity(m[1], "foot")),
    (r"\b(\d+)[xX](?=\d)", r"\1 by "),
    (r"\b(\d+(?:\.\d+)?)[xX]\b", r"\1 times "),
    (r"\b([A-Za-z]|\d+)(?:\s?\^\s?(?=-?\w)|(?=[²³]))(-?\d+|[²³]|[a-z]\b)", _power),
    (r"\b(\d[\d,]*)(?:st|nd|rd|th)\b", lambda m: ordinal(m[1])),
    (rf"\b({NUMBER})([kM]|bn)\b", lambda m: f"{cardinal(m[1])} {SCALES[m[2]]}"),
    (r"\b([A-Za-z]+)[-‑](?=\d)", r"\1 "),
    (r"\b([A-Z])\.(?=\d)", r"\1 "),
    (r"(?<![\w+])\+(?=\d)", "plus "),
    (r"(?<!\S)<(?=\d)", "less than "),
    (r"(?<!\S)>(?=\d)", "more than "),
    (r"#(?=\d)", "number "),
    (r"(?<![\w.,-])(1[1-9]|20)(\d\d)(?![\w,]*\d|\.\d|-\d)", lambda m: year(m[0])),
    (SIGNED, lambda m: f" {cardinal(m[0])} "),
)
SYMBOLS: tuple[Rule, ...] = (
    (r"\s*&\s*", " and "),
    (r"\s*(?:>=|≥)\s*", " at least "),
    (r"\s*(?:<=|≤)\s*", " at most "),
    (r"(?<=\w)\s*[=＝]{1,3}\s*(?=\w)", " equals "),
    (r"(?<=\w)\s*(?:≠|!=)\s*(?=\w)", " is not "),
    (r"√\s*", " the square root of "),
    (r"(?<=\w)\s*[×✕]\s*(?=\w)|(?<=\w)\s+\*\s+(?=\w)", " times "),
    (r"(?<=\w)\s*÷\s*(?=\w)", " divided by "),
    (r"(?<=\w)\s*\+\s*(?=\w)", " plus "),
    (r"(?<=\w)\+\+", " plus plus"),
    (r"(?<=\w)\s*\+(?!\w)", " plus"),
    (r"(?<=\w)\s*<\s*(?=\w)", " is less than "),
    (r"(?<=\w)\s*(?<![-=])>\s*(?=\w)", " is more than "),
    (r"[~≈]\s*(?=\w)", "about "),
    (r"\s*±\s*", " plus or minus "),
    (r"\s*(?:->|→|=>)\s*", " to "),
    (r"\s*@\s*(?=\w)", " at "),
    (r"(dollars?|cents?|euros?|pounds?|yen|yuan)\s*/\s*(?=[a-z])", r"\1 per "),
    (rf"(?<![\w.])\.(?=[A-Z])|(?<=\w)\.(?=(?:{FILE_ENDINGS})\b)", " dot "),
    (r"\s+[-–—]{1,3}\s+|—", ", "),
    (r"(?<=\w)/(?=\w)", " "),
    (r"[#*_^|\\{}\[\]<>=~$€£]", " "),
    (r"…|\.{3,}", "..."),
)
SPACES: tuple[Rule, ...] = (
    (r"\s+", " "),
    (r"\s+(?=[,.!?;:)])", ""),
    (r"\(\s+", "("),
    (r"(?<=\w) (?=(?:-[A-Za-z]|['’]s\b))", ""),
)


def spoken(text: str) -> str:
    """English text -> the same in words."""
    text = text.translate(LATIN_MARKS)
    for pattern, words in (*WORDS, *NUMBERS, *SYMBOLS, *SPACES):
        text = re.sub(pattern, words, text)
    return text.strip()
