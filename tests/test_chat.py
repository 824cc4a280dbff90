"""`ming chat` line by line: what is typed, what is shown."""

from functools import cache

import pytest

from ming_omni import Ming
from ming_omni.chat import Chat


@cache
def tiny() -> Ming:
    return Ming.load("tiny")


def talk(*lines: str) -> tuple[str, Chat]:
    """Type the lines; returns all that is shown."""
    shown, typed = [], iter(lines)

    def read(_: str) -> str:
        for line in typed:
            return line
        raise EOFError

    chat = Chat(tiny(), read=read, write=shown.append, max_tokens=2)
    chat.run()
    return "".join(shown), chat


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('/image "open', "No closing quotation"),
        ("/image ''", "there is no file"),
        ("/image 'a' 'b'", "one file at a time"),
        ("/image ~nobody-has-this-name/a.png", "nobody-has-this-name"),
        ("/image nowhere.png", "there is no file nowhere.png"),
        ("/image", "say which file"),
        ("/dance", "there is no command /dance"),
    ],
)
def test_a_mistyped_command_is_answered_in_a_line_and_the_chat_goes_on(line, message):
    shown, chat = talk(line, "hello")
    assert message in shown
    assert len(chat.history) == 2


def test_a_file_that_cannot_be_read_spoils_one_message_and_not_the_next(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    shown, chat = talk(f"/image {broken}", "what is this?", "never mind")
    assert "must be attached again" in shown
    assert len(chat.history) == 2
