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
        (
            "5 - 3 = 2, 6/2=3, 2 * 3 = 6",
            "five minus three equals two, six divided by two equals three, two times three equals six",
        ),
        ("1/2 + 1/3 = 5/6", "one half plus one third equals five sixths"),
        ("10^6, x^2, y³, 2^n", "ten to the power of six, x squared, y cubed, two to the power of n"),
        ("√2 ≠ π", "the square root of two is not pi"),
        ("a<b, 5 > 3, x != y", "a is less than b, five is more than three, x is not y"),
        ("use <5 or 100+ or +5", "use less than five or one hundred plus or plus five"),
        ("3x faster", "three times faster"),
        ("5/1000", "five over one thousand"),
        ("a 10-year-old", "a ten-year-old"),
        ("1's and 0's", "one's and zero's"),
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
        ("12-25-2023", "December twenty-fifth, twenty twenty-three"),
        ("2024-01-05T10:20:30Z", "January fifth, twenty twenty-four at ten twenty and thirty seconds UTC"),
        ("9/11 and 9/11/2001", "nine eleven and September eleventh, two thousand one"),
        ("the 60's", "the sixties"),
    ],
    "times": [
        ("5:00", "five o'clock"),
        ("12:05 a.m.", "twelve oh five AM"),
        ("17:45", "seventeen forty-five"),
        ("10 pm", "ten PM"),
        ("24/7", "twenty-four seven"),
        ("a 3:2 ratio", "a three to two ratio"),
        ("09:05 or 00:15", "nine oh five or zero fifteen"),
        ("5:30-6:30 PM", "five thirty to six thirty PM"),
        ("9am-5pm, 10 a.m.-5 p.m.", "nine AM to five PM, ten AM to five PM"),
        ("1h30m or 2h 5min", "one hour thirty minutes or two hours five minutes"),
    ],
    "money": [
        ("$12.50", "twelve dollars and fifty cents"),
        ("$1, €0.99, £3.20, ¥500", "one dollar, ninety-nine cents, three pounds and twenty pence, five hundred yen"),
        ("$0.00 or $0.05", "zero dollars or five cents"),
        ("$1.5 million", "one point five million dollars"),
        ("US$20bn", "twenty billion dollars"),
        ("$1,234.00", "one thousand two hundred thirty-four dollars"),
        ("5 EUR", "five euros"),
        ("5€, 20 €, 5¢", "five euros, twenty euros, five cents"),
        ("-$5 or $-5", "minus five dollars or minus five dollars"),
        ("$5-10 or $5-$10", "five to ten dollars or five to ten dollars"),
        ("C$20", "twenty Canadian dollars"),
        ("$20/hour, 3 @ $3", "twenty dollars per hour, three at three dollars"),
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
        ('5′10″ and 10"x12"', "five foot ten and ten by twelve inches"),
        ("3.5in of 10 in all", "three point five inches of ten in all"),
        ("5µm, 5 μs, 2 kΩ", "five micrometers, five microseconds, two kiloohms"),
        ("5 m³ at 30 mpg in km/h", "five cubic meters at thirty miles per gallon in kilometers per hour"),
        ("5 apples", "five apples"),
    ],
    "phone numbers": [
        ("+1 (555) 123-4567", "plus one, five five five, one two three, four five six seven"),
        ("555-1234", "five five five, one two three four"),
        ("dial 911", "dial nine one one"),
        ("1-800-555-1234", "one, eight zero zero, five five five, one two three four"),
        ("SSN 123-45-6789", "SSN one two three, four five, six seven eight nine"),
        ("4111 1111 1111 1111", "four one one one, one one one one, one one one one, one one one one"),
        ("PIN is 1234, zip 90210", "PIN is one two three four, zip nine zero two one zero"),
        ("127.0.0.1:8080", "one two seven point zero point zero point one port eight zero eight zero"),
    ],
    "percent and fractions": [
        ("25% off", "twenty-five percent off"),
        ("10% - 20%", "ten percent to twenty percent"),
        ("50-60% or 5‰", "fifty to sixty percent or five per mille"),
        ("1/2, 2/3, 3/4", "one half, two thirds, three quarters"),
        ("1 1/2 cups or 2½", "one and a half cups or two and a half"),
    ],
    "abbreviations": [
        ("Dr. Smith vs. Mrs. Jones", "Doctor Smith versus Missus Jones"),
        ("e.g. this, i.e. that, etc.", "for example this, that is that, et cetera"),
        ("on St. James St. at No. 5", "on Saint James Street at number five"),
        ("pp. 12-15", "pages twelve to fifteen"),
        ("World War II", "World War two"),
        ("Henry VIII, Louis XIV, George I am", "Henry the eighth, Louis the fourteenth, George I am"),
        ("Mr Smith, Dr Who, King Jr.", "Mister Smith, Doctor Who, King Junior"),
    ],
    "names with digits": [
        ("GPT-4 v2.1", "GPT four version two point one"),
        ("COVID-19, MP3, 4K, H200", "COVID nineteen, MP three, four K, H two hundred"),
        ("Python 3.11.2", "Python three point eleven point two"),
        ("C++ and C#", "C plus plus and C sharp"),
        (
            "an A+ in .NET, Node.js, main.py, H.264",
            "an A plus in dot NET, Node dot js, main dot py, H two hundred sixty-four",
        ),
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
        ("计算5-3=2", "计算五减三等于二"),
        ("比分3-2", "比分三比二"),
        ("10^3和x²", "十的三次方和x的平方"),
        ("√4约2", "根号四约二"),
        ("温度<5", "温度小于五"),
        ("第Ⅳ章", "第四章"),
    ],
    "dates and times": [
        ("2024年3月5日", "二零二四年三月五日"),
        ("今天17:45", "今天十七点四十五分"),
        ("日期2024-03-05", "日期二零二四年三月五日"),
        ("1990年代", "一九九零年代"),
        ("２０２４年", "二零二四年"),
    ],
    "money and units": [
        ("价格是$20", "价格是二十美元"),
        ("共HK$50", "共五十港元"),
        ("面积5m²", "面积五平方米"),
        ("共¥99.9", "共九十九点九元"),
        ("气温-5℃", "气温负五摄氏度"),
        ("重5kg", "重五千克"),
        ("占50%的1/3", "占百分之五十的三分之一"),
        ("时速100公里/小时", "时速每小时一百公里"),
    ],
    "digit by digit": [
        ("电话13812345678", "电话幺三八幺二三四五六七八"),
        ("拨打120", "拨打幺二零"),
        ("电话是010-12345678", "电话是零幺零，幺二三四五六七八"),
        ("请拨400-800-8888", "请拨四零零，八零零，八八八八"),
        ("手机+86 13800138000", "手机八六，幺三八零零幺三八零零零"),
        ("验证码是809213，邮编100000", "验证码是八零九二幺三，邮编幺零零零零零"),
        ("身份证110101199001011234", "身份证幺幺零幺零幺幺九九零零幺零幺幺二三四"),
        ("航班CA1234", "航班CA幺二三四"),
    ],
    "mixed": [
        ("GPT-4 很好", "GPT 四很好"),
        ("A4纸", "A四纸"),
        ("C++和C#", "C加加和C sharp"),
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
