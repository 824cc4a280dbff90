"""Every task prompt found in the release, as the model reads it: text, and ids in runs."""

import re

import numpy as np
import pytest

from ming_omni.inputs.canvas import glyph_text
from tests import toy
from tests.media import board, tone

PROCESSOR = toy.processor("ming")
BEFORE = "<role>SYSTEM</role>你是一个友好的AI助手。\n\ndetailed thinking off<|role_end|><role>HUMAN</role>"
AFTER = "<|role_end|><role>ASSISTANT</role>"

# Small media with known token counts: 280x420 pixels are 10x15 merged patches, one second of sound is 25 tokens.
PICTURE = {"type": "image", "image": board(280, 420)}
SOUND = {"type": "audio", "audio": (tone(1.0), 16_000)}
VIDEO = {"type": "video", "video": np.zeros((4, 280, 420, 3), np.uint8), "max_pixels": 280 * 420, "sample": "uniform"}
IMAGE_TOKENS = "<image><imagePatch>{x150}</image>\n"
AUDIO_TOKENS = "<audio><audioPatch>{x25}</audio>"
VIDEO_TOKENS = "<video><framePatch>{x300}</video>\n"
ASR = "Please recognize the language of this speech and transcribe it. Format: oral."


def text(words: str) -> dict:
    return {"type": "text", "text": words}


CONTEXT = ASR + (
    "This is an audio about medicine.This audio may contains the following words or phrases:aspirin,ibuprofen,…."
)
PROMPTS = {
    "asr": ([text(ASR), SOUND], ASR + AUDIO_TOKENS),
    "contextual asr": ([text(CONTEXT), SOUND], CONTEXT + AUDIO_TOKENS),
    "speech question": ([SOUND], AUDIO_TOKENS),
    "audio caption": ([text("请写一句话描述这段音频。"), SOUND], "请写一句话描述这段音频。" + AUDIO_TOKENS),
    "two audios": (
        [text("这两条音频分别讲了什么"), SOUND, SOUND],
        "这两条音频分别讲了什么" + AUDIO_TOKENS + AUDIO_TOKENS,
    ),
    "two audios compared": (
        [text("这两段音频有啥区别"), {"type": "audio", "audio": [(tone(1.0), 16_000)] * 2}],
        "这两段音频有啥区别" + AUDIO_TOKENS + "\n" + AUDIO_TOKENS,
    ),
    "image question": ([PICTURE, text("What kind of flower is this?")], IMAGE_TOKENS + "What kind of flower is this?"),
    "video question": ([VIDEO, text("What is the woman doing?")], VIDEO_TOKENS + "What is the woman doing?"),
    "text to image": (
        [text("Draw a beautiful girl with short black hair and red dress.")],
        "Draw a beautiful girl with short black hair and red dress.",
    ),
    "editing": (
        [PICTURE, text("change the background to The Coliseum")],
        IMAGE_TOKENS + "change the background to The Coliseum",
    ),
    "text editing": (
        [PICTURE, text("将文字内容 替换成 “理解与生成促进”")],
        IMAGE_TOKENS + "将文字内容 替换成 “理解与生成促进”",
    ),
    "several images edited": (
        [
            {"type": "image", "image": [board(280, 420)] * 3},
            text(
                "Place the person standing among sunflowers; position the animal lying nearby naturally in the scene."
            ),
        ],
        "\n".join([IMAGE_TOKENS] * 3)
        + "Place the person standing among sunflowers; position the animal lying nearby naturally in the scene.",
    ),
    "segmentation": (
        [PICTURE, text("please segment the hair using red mask")],
        IMAGE_TOKENS + "please segment the hair using red mask",
    ),
    "id photo": (
        [PICTURE, text("Generate a high-resolution, standard ID photo.")],
        IMAGE_TOKENS + "Generate a high-resolution, standard ID photo.",
    ),
}


def runs(words: str) -> str:
    pattern = r"(<(image|frame|audio)Patch>)\1*"
    return re.sub(pattern, lambda match: f"{match[1]}{{x{len(match[0]) // len(match[1])}}}", words)


@pytest.mark.parametrize("task", PROMPTS)
def test_a_published_task_is_read_as_published(task):
    content, expected = PROMPTS[task]
    inputs = PROCESSOR.prepare([{"role": "HUMAN", "content": content}])
    assert runs(PROCESSOR.decode(inputs.input_ids[0])) == BEFORE + expected + AFTER


@pytest.mark.parametrize("language", ["Chinese", "上海"])
def test_a_forced_language_follows_where_the_answer_begins(language):
    content, expected = PROMPTS["asr"]
    inputs = PROCESSOR.prepare([{"role": "HUMAN", "content": content}], answer_start=f"{language}\t")
    assert runs(PROCESSOR.decode(inputs.input_ids[0])) == BEFORE + expected + AFTER + f"{language}\t"
    start, length = inputs.audio_placeholder_loc_lens[0, 0].tolist()
    patches = inputs.input_ids[0, start : start + length].tolist()
    assert patches == [PROCESSOR.tokenizer.token_id("<audioPatch>")] * 25


def test_chain_of_thought_and_a_system_prompt_change_only_their_own_words():
    messages = [{"role": "HUMAN", "content": [text("1+1?")]}]
    asked = PROCESSOR.apply_chat_template(messages, sys_prompt_exp="You count.", use_cot_system_prompt=True)
    assert asked == "<role>SYSTEM</role>You count.\n\ndetailed thinking on<|role_end|><role>HUMAN</role>1+1?" + AFTER


@pytest.mark.parametrize(
    ("prompt", "written"),
    [
        ("a sign “理解与生成统一” on", 'Text "理解与生成统一". '),
        ('A shirt with "HELLO" and "WORLD"', 'Text "WORLD". '),
        ("a sign 'OPEN'", 'Text "OPEN". '), ("it's Bob's cat", 'Text "s Bob". '), ('remove the text "SALE"', ""),
        ('please "SALE" remove', 'Text "SALE". '), ("‘你好’ and “世界”", 'Text "世界". '), ("a 'x' isn't", ""),
        ('write "a\nb"', ""), ('Clear "A" and "B"', 'Text "B". '), ("'" + "好" * 20 + "'", ""),
    ],
)  # fmt: skip
def test_the_words_to_paint_are_found_as_published(prompt, written):
    assert glyph_text(prompt) == written


def test_the_last_quotation_of_a_conversation_is_painted():
    messages = [{"role": "HUMAN", "content": PROMPTS["text editing"][0]}]
    assert PROCESSOR.prepare(messages, painting=True)["image_gen_text"] == ['Text "理解与生成促进". ']
