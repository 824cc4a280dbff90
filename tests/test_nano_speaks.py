"""The talker that ships with nano: it speaks both languages, in voices of its own and in a cloned one."""

import httpx
import numpy as np
import pytest
import torch

from ming_omni import Ming
from ming_omni.checkpoint.detect import NANO
from ming_omni.checkpoint.talker import load_speaker
from ming_omni.speech.breaths import seconds_of
from ming_omni.speech.voices import Voice
from tests.serving import serving

ENGLISH, MANDARIN = "The meeting starts at nine thirty on Monday.", "今天天气很好，我们去公园散步吧。"


@pytest.fixture(scope="module")
def speaker():
    torch.set_num_threads(1)
    return load_speaker(NANO, device="cpu")


def loudness(samples) -> float:
    return float(np.sqrt(np.square(np.asarray(samples)).mean()))


@pytest.mark.parametrize("text", [ENGLISH, MANDARIN])
def test_nano_takes_as_long_for_a_sentence_as_people_do_and_is_heard(speaker, text):
    sound = speaker.speak(text, seed=1)
    assert 0.4 * seconds_of(text) < sound.seconds < 1.2 * seconds_of(text)
    assert 0.02 < loudness(sound.samples) < 0.3


def test_every_voice_of_nano_says_a_sentence_in_its_own_way(speaker):
    names = sorted(path.stem for path in (NANO / "voices").iterdir())
    assert {"heart", "michael", "xiaobei", "yunxi"} <= set(names) <= set(speaker.shelf.names())
    sounds = [speaker.speak("Good morning.", name, seed=1).samples for name in names]
    assert all(loudness(samples) > 0.02 for samples in sounds)
    assert len({np.asarray(samples).tobytes() for samples in sounds}) == len(names)


def test_a_server_lists_nanos_voices_as_built_in_and_does_not_delete_them():
    with serving(Ming.load("nano")) as served:
        listed = httpx.get(f"{served.url}/v1/audio/voices").json()["data"]
        own = {path.stem for path in (NANO / "voices").iterdir()}
        assert own <= {voice["id"] for voice in listed if voice["type"] == "built_in" and voice.get("seconds", 0) > 3}
        assert httpx.delete(f"{served.url}/v1/audio/voices/heart").status_code == 400
        assert (NANO / "voices" / "heart.safetensors").exists()


def test_nano_speaks_in_a_voice_that_it_is_given(speaker):
    prompt = speaker.speak(ENGLISH, "michael", seed=2)
    voice = Voice.clone("other", torch.from_numpy(prompt.samples), ENGLISH, consent="synthetic")
    sound = speaker.speak("Thank you very much.", voice, seed=3)
    assert 0.5 < sound.seconds < 3 and loudness(sound.samples) > 0.02
