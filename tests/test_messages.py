"""Three ways to write a conversation -> the same messages; strangers cannot name files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ming_omni.errors import InputError
from ming_omni.inputs.messages import Audio, Image, Message, Text, Video, conversation, from_openai, sources
from tests.media import board, data_url, picture_file, tone, wav

PICTURE, SOUND = data_url(picture_file(board())), wav(tone())


def test_plain_text_is_one_message_of_the_user():
    expected = [Message("user", (Text("hello"),))]
    forms = ["hello", Text("hello"), Message("user", "hello"), {"role": "user", "content": "hello"}]
    forms += [[{"role": "HUMAN", "content": [{"type": "text", "text": "hello"}]}], [Message("user", ["hello"])]]
    for form in forms:
        assert conversation(form) == expected


def test_published_messages_keep_order_and_options():
    read = conversation(
        [
            {"role": "HUMAN", "content": [
                {"type": "video", "video": "clip.mp4", "max_frames": 64, "sample": "uniform"},
                {"type": "image", "image": ["a.png", "b.png"], "max_pixels": 451_584},
                {"type": "audio", "audio": "a.wav"},
                {"type": "text", "text": "What?"},
            ]},
            {"role": "ASSISTANT", "content": [{"type": "text", "text": "That."}]},
        ]
    )  # fmt: skip
    assert read == [
        Message(
            "user",
            (
                Video("clip.mp4", max_frames=64, sample="uniform"),
                Image(["a.png", "b.png"], max_pixels=451_584),
                Audio("a.wav"),
                Text("What?"),
            ),
        ),
        Message("assistant", (Text("That."),)),
    ]


def test_openai_messages_become_the_same_parts():
    read = from_openai(
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [
                {"type": "text", "text": "What?"},
                {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
            ]},
            {"role": "assistant", "content": None},
            {"role": "user", "content": "Well?"},
        ]
    )  # fmt: skip
    assert [message.role for message in read] == ["system", "user", "assistant", "user"]
    assert read[0].text == "Be brief." and read[2].text == ""
    assert read[1].content == (
        Text("What?"),
        Image(PICTURE),
        Audio("data:;base64,UklGRg=="),
        Video("data:video/mp4;base64,AAAA"),
    )


def part(kind: str, **fields) -> list:
    return [{"role": "user", "content": [{"type": kind, **fields}]}]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (part("image", image="/etc/passwd"), "content.0..type is one of"),
        (part("video", video="/etc/passwd"), "content.0..type is one of"),
        (part("audio", audio="/etc/passwd"), "content.0..type is one of"),
        (part("image_url", image_url={"url": "/etc/passwd"}), "only data: URLs"),
        (part("image_url", image_url={"url": "file:///etc/passwd"}), "only data: URLs"),
        (part("image_url", image_url={"url": "http://169.254.169.254/"}), "only data: URLs"),
        (part("image_url", image_url={}), "url is missing"),
        (part("image_url"), "url is missing"),
        (part("input_audio", input_audio={"format": "wav"}), "input_audio.data is missing"),
        (part("input_audio", input_audio="UklG"), "input_audio is missing or not an object"),
        (part("input_audio", input_audio={"data": ""}), "data is empty"),
        (part("text"), "text is missing"),
        (part("text", text=3), "text is missing or not text"),
        (part("tool_call"), "not 'tool_call'"),
        ([{"role": "user", "content": [Image("/etc/passwd")]}], "is an object with a type"),
        ([{"role": "user", "content": 3}], "content is text or a list"),
        ([{"role": "tool", "content": "x"}], "role is system, user or assistant"),
        ([{"role": ["user"], "content": "x"}], "role is system, user or assistant"),
        ([{"content": "x"}], "role is system, user or assistant"),
        (["hello"], "is an object with role and content"),
        ([], "at least one message"),
        ("hello", "is a list"),
        (None, "is a list"),
    ],
)
def test_a_stranger_s_message_that_cannot_be_read_is_told_in_one_sentence(messages, reason):
    with pytest.raises(InputError, match=reason) as error:
        from_openai(messages)
    assert "\n" not in str(error.value)


def test_a_stranger_chooses_no_sizes():
    url = {"url": PICTURE}
    assert from_openai(part("image_url", image_url=url, max_pixels=10**12))[0].content == (Image(PICTURE),)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "url", "image_url", "input_audio"]), inner
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_read_or_refused(value):
    try:
        assert all(isinstance(message, Message) for message in from_openai(value))
    except InputError:
        return


@pytest.mark.parametrize(
    "make",
    [
        lambda: Message("boss", "x"),
        lambda: Message("user", [3]),
        lambda: Message("user", 3),
        lambda: Message("user", None),
        lambda: Message(["user"], "x"),
        lambda: Image("a.png", max_pixels="many"),
        lambda: Image("a.png", resized_height=0),
        lambda: conversation(3),
        lambda: conversation([{"role": "HUMAN", "content": [{"type": "image"}]}]),
    ],
)
def test_impossible_messages_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_a_list_is_several_media_and_a_tuple_is_samples_with_their_rate():
    assert sources(Image(["a.png", "b.png"])) == ["a.png", "b.png"]
    assert sources(Audio((tone(), 16_000)))[0][1] == 16_000
    assert len(sources(Audio([SOUND, SOUND]))) == 2
