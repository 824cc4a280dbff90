"""Text as written -> text as spoken: tables of tricky inputs in English and Mandarin."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ming_omni.speech.normalize import spoken

ENGLISH = {
    "numbers": [
        ("1,000 items", "one thousand items"),
        ("1,234,567.89", "one million two hundred thirty-four thousand five hundred sixty-seven point eight nine"),
        ("0.5 and .5", "zero point five and zero point five"),
        ("-3 or 007", "minus three or zero zero seven"),
        ("1.5M users, 10k likes", "one point five million users, ten thousand likes"),
        ("10-20 people ~5", "ten to twenty people about five"),
        ("1e-5", "one times ten to the minus five"),
        ("2+2=4", "two plus two equals four"),
        ("3x4", "three by four"),
    ],
    "ordinals": [
        ("1st 2nd 3rd 22nd 101st", "first second third twenty-second one hundred first"),
        ("the 21st century", "the twenty-first century"),
    ],
    "dates": [
        ("2021-12-25", "December twenty-fifth, twenty twenty-one"),
        ("03/04/2021", "March fourth, twenty twenty-one"),
        ("25/12/2021", "December twenty-fifth, twenty twenty-one"),
        ("Dec. 25, 2020", "December twenty-fifth, twenty twenty"),
        ("3 March 1905", "the third of March nineteen oh five"),
        ("in 2005 and 1900", "in two thousand five and nineteen hundred"),
        ("the 1980s and the '90s", "the nineteen eighties and the nineties"),
        ("the 1900s and 2000s", "the nineteen hundreds and two thousands"),
        ("from 1999-2003", "from nineteen ninety-nine to two thousand three"),
    ],
    "times": [
        ("5:00", "five o'clock"),
        ("12:05 a.m.", "twelve oh five AM"),
        ("17:45", "seventeen forty-five"),
        ("10 pm", "ten PM"),
        ("24/7", "twenty-four seven"),
        ("a 3:2 ratio", "a three to two ratio"),
    ],
    "money": [
        ("$12.50", "twelve dollars and fifty cents"),
        ("$1, €0.99, £3.20, ¥500", "one dollar, ninety-nine cents, three pounds and twenty pence, five hundred yen"),
        ("$0.00 or $0.05", "zero dollars or five cents"),
        ("$1.5 million", "one point five million dollars"),
        ("US$20bn", "twenty billion dollars"),
        ("$1,234.00", "one thousand two hundred thirty-four dollars"),
        ("5 EUR", "five euros"),
    ],
    "units": [
        ("5kg, 1 kg, 10lbs", "five kilograms, one kilogram, ten pounds"),
        ("-5°C to 72°F", "minus five degrees Celsius to seventy-two degrees Fahrenheit"),
        (
            "100 mph, 60 km/h, 3.5GHz",
            "one hundred miles per hour, sixty kilometers per hour, three point five gigahertz",
        ),
        ("100 km²", "one hundred square kilometers"),
        ("5'10\"", "five foot ten"),
        ("5 apples", "five apples"),
    ],
    "phone numbers": [
        ("+1 (555) 123-4567", "plus one, five five five, one two three, four five six seven"),
        ("555-1234", "five five five, one two three four"),
        ("dial 911", "dial nine one one"),
    ],
    "percent and fractions": [
        ("25% off", "twenty-five percent off"),
        ("10% - 20%", "ten percent to twenty percent"),
        ("1/2, 2/3, 3/4", "one half, two thirds, three quarters"),
        ("1 1/2 cups or 2½", "one and a half cups or two and a half"),
    ],
    "abbreviations": [
        ("Dr. Smith vs. Mrs. Jones", "Doctor Smith versus Missus Jones"),
        ("e.g. this, i.e. that, etc.", "for example this, that is that, et cetera"),
        ("on St. James St. at No. 5", "on Saint James Street at number five"),
        ("pp. 12-15", "pages twelve to fifteen"),
        ("World War II", "World War two"),
    ],
    "names with digits": [
        ("GPT-4 v2.1", "GPT four version two point one"),
        ("COVID-19, MP3, 4K, H200", "COVID nineteen, MP three, four K, H two hundred"),
        ("Python 3.11.2", "Python three point eleven point two"),
        ("C++ and C#", "C plus plus and C sharp"),
    ],
    "markup": [
        ("**Hello** _world_ and ~~not~~ this", "Hello world and not this"),
        ("# Heading", "Heading"),
        ("- [x] done", "done"),
        ("> quoted", "quoted"),
        ("1. First", "one, First"),
        ("| a | b |", "a, b"),
        ("|---|:--|", ""),
        ("---", ""),
        ("`pip install x` <b>now</b> &amp; go", "pip install x now and go"),
        ("**bold that ends elsewhere", "bold that ends elsewhere"),
        ("snake_case", "snake case"),
    ],
    "addresses": [
        ("see [the docs](https://example.com/a?b=c)", "see the docs"),
        ("![picture](a.png) text", "text"),
        ("go to https://www.example.com/path?q=1.", "go to example dot com."),
        ("joe.doe@example.com", "joe dot doe at example dot com"),
    ],
    "emoji and scripts": [
        ("Nice 😀👍!", "Nice!"),
        ("👍", "thumbs up"),
        ("Привет", "Privet"),
        ("café", "café"),
        ("don’t", "don't"),
        ("ＡＢＣ １２", "ABC twelve"),
    ],
    "nothing to say": [("", ""), ("...", ""), ("?!", ""), ("★ ☆", "")],
}
MANDARIN = {
    "numbers": [
        ("1,000元", "一千元"),
        ("我有2个苹果", "我有两个苹果"),
        ("第21届", "第二十一届"),
        ("-3度", "负三度"),
        ("1.5万", "一点五万"),
        ("10-20个", "十到二十个"),
        ("IP地址192.168.1.1", "IP地址一九二点一六八点一点一"),
    ],
    "dates and times": [
        ("2024年3月5日", "二零二四年三月五日"),
        ("今天17:45", "今天十七点四十五分"),
        ("1990年代", "一九九零年代"),
        ("２０２４年", "二零二四年"),
    ],
    "money and units": [
        ("价格是$20", "价格是二十美元"),
        ("共¥99.9", "共九十九点九元"),
        ("气温-5℃", "气温负五摄氏度"),
        ("重5kg", "重五千克"),
        ("占50%的1/3", "占百分之五十的三分之一"),
        ("时速100公里/小时", "时速每小时一百公里"),
    ],
    "digit by digit": [
        ("电话13812345678", "电话幺三八幺二三四五六七八"),
        ("拨打120", "拨打幺二零"),
        ("身份证110101199001011234", "身份证幺幺零幺零幺幺九九零零幺零幺幺二三四"),
        ("航班CA1234", "航班CA幺二三四"),
    ],
    "mixed": [
        ("GPT-4 很好", "GPT 四很好"),
        ("A4纸", "A四纸"),
        ("**你好**，见 https://a.com/b 。", "你好，见 a点com。"),
        ("好👍", "好"),
        ("1. 打开", "一，打开"),
    ],
}


@pytest.mark.parametrize(("written", "expected"), [row for rows in ENGLISH.values() for row in rows])
def test_english_is_read_as_a_person_would(written, expected):
    assert spoken(written) == expected


@pytest.mark.parametrize(("written", "expected"), [row for rows in MANDARIN.values() for row in rows])
def test_mandarin_is_read_as_a_person_would(written, expected):
    assert spoken(written) == expected


@pytest.mark.parametrize(
    ("written", "alone", "in_chinese"),
    [("110", "one hundred ten", "幺幺零"), ("1/3", "one third", "三分之一"), ("10:30", "ten thirty", "十点三十分")],
)
def test_a_sentence_without_letters_is_read_in_the_language_around_it(written, alone, in_chinese):
    assert (spoken(written), spoken(written, is_chinese=True)) == (alone, in_chinese)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_read_without_digits_of_any_kind(text):
    assert not any(c.isdecimal() for c in spoken(text))


@settings(max_examples=150, deadline=None)
@given(st.text("0123456789$%/-:.,年月日元 kgab#*°€", max_size=30))
def test_no_mixture_of_digits_and_symbols_survives(text):
    assert not any(c.isdecimal() for c in spoken(text))
