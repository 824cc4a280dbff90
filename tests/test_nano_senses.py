"""A folder like nano's with eyes and ears, untrained and small, through every door: Python, terminal, HTTP."""

import base64
import json
import math

import pytest
import torch
from typer.testing import CliRunner

from ming_omni import Ming, checkpoint
from ming_omni.cli import app
from ming_omni.inputs.messages import Audio, Image, Message, Text, Video
from ming_omni.nano.ship import build_shipped
from ming_omni.packed.encoder import PackedEncoder
from tests.media import board, picture_file, tone, wav
from tests.serving import openai_client, serving
from tests.small_nano import small_export, small_folder

SECONDS = 0.5
WORDS = "What is it?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    start = small_folder(tmp_path_factory.mktemp("start"))
    trained = small_export(start, tmp_path_factory.mktemp("run") / "trained.safetensors")
    build_shipped(trained, folder := tmp_path_factory.mktemp("small"), start)
    return folder


@pytest.fixture(scope="module")
def ming(folder):
    return Ming.load(folder)


@pytest.fixture
def media(tmp_path):
    (tmp_path / "film").mkdir()
    for i in range(4):
        board(84, 84, 7 + 7 * i).save(tmp_path / "film" / f"{i}.png")
    (tmp_path / "picture.png").write_bytes(picture_file(board()))
    (tmp_path / "sound.wav").write_bytes(wav(tone(SECONDS)))
    return tmp_path


def message(media) -> Message:
    content = [Image(media / "picture.png"), Video(media / "film"), Audio(media / "sound.wav"), Text(WORDS)]
    return Message("user", content)


def test_every_medium_takes_as_many_places_as_its_encoder_makes_tokens(ming, media):
    inputs, c = ming.processor.prepare([message(media)]), ming.model.config.thinker
    counts = {
        kind: (inputs["input_ids"] == getattr(c, f"{kind}_patch_token")).sum().item() for kind in ("image", "video")
    }
    assert counts["image"] == inputs["image_grid_thw"].prod() // 4
    assert counts["video"] == inputs["video_grid_thw"].prod() // 4
    heard, lengths = ming.model.audio(inputs["audio_feats"], inputs["audio_feats_lengths"])
    assert len(heard) == lengths.sum() == inputs["audio_placeholder_loc_lens"][0, 0, 1] == math.ceil(25 * SECONDS)


def test_the_engine_says_what_the_plain_loop_says_about_pictures_video_and_sound(ming, media):
    inputs = ming.processor.prepare([message(media)])
    steps = ming.model.steps(inputs, max_new_tokens=8, eos_token_id=list(ming.stop_ids))
    expected = ming.processor.tokenizer.decode([int(step.ids) for step in steps], skip_special_tokens=True)
    assert "".join(ming.reply([message(media)], max_tokens=8, temperature=0.0)) == expected


@torch.no_grad()
def test_packed_and_unfolded_models_think_alike_about_media(ming, folder, media):
    inputs = ming.processor.prepare([message(media)])
    packed, plain = ming.model(**inputs).logits[0], checkpoint.load(folder)(**inputs).logits[0]
    off = (packed - plain).norm(dim=-1) / plain.norm(dim=-1)
    assert off.quantile(0.8) < 0.05


def test_only_media_wake_the_encoders(folder):
    fresh = Ming.load(folder)
    fresh.ask(WORDS, max_tokens=2)
    assert isinstance(fresh.model.audio, PackedEncoder)
    assert not fresh.model.audio._unfolded and not fresh.model.vision._unfolded


def test_the_terminal_asks_about_pictures_video_and_sound_and_writes_down_speech(folder, media):
    options = ["--model", str(folder), "--max-tokens", "4"]
    shown = ["--image", str(media / "picture.png"), "--audio", str(media / "sound.wav"), "--video", str(media / "film")]
    asked = CliRunner().invoke(app, ["ask", WORDS, *shown, *options])
    assert asked.exit_code == 0, asked.exception
    heard = CliRunner().invoke(app, ["transcribe", str(media / "sound.wav"), "--model", str(folder), "-f", "json"])
    assert heard.exit_code == 0, heard.exception
    assert json.loads(heard.stdout)["seconds"] == SECONDS


def test_the_terminal_says_what_a_model_takes_from_its_parts(folder, tmp_path):
    assert "takes text, pictures, video, sound; gives text\n" in checkpoint.describe(folder)


def test_a_client_learns_what_the_model_can_do_and_asks_about_a_picture(ming, media):
    picture = "data:image/png;base64," + base64.b64encode((media / "picture.png").read_bytes()).decode()
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": WORDS}]
    expected = ming.ask(WORDS, images=[media / "picture.png"], max_tokens=4, temperature=0.0)
    with serving(ming) as served:
        client = openai_client(served)
        (card,) = client.models.list().data
        assert {"image_in", "video_in", "audio_in"} <= set(card.capabilities)
        answer = client.chat.completions.create(
            model=card.id, messages=[{"role": "user", "content": content}], max_tokens=4, temperature=0
        )
        sound = media / "sound.wav"
        written = client.audio.transcriptions.create(model=card.id, file=sound.open("rb"))
    assert (answer.choices[0].message.content or "") == expected
    assert isinstance(written.text, str)
