"""An encoder kept as it is stored answers like the plain one, through the engine too."""

import copy

import pytest
import torch

from ming_omni import Ming
from ming_omni.packed.encoder import PackedEncoder
from tests.lessons import stripes
from tests.media import tone, wav


@pytest.mark.parametrize(
    "media", [{"images": stripes("red")}, {"audio": wav(tone())}], ids=lambda media: next(iter(media))
)
def test_the_engine_hears_and_sees_the_same_through_a_packed_encoder(media):
    torch.manual_seed(0)
    ming = Ming.load("tiny")
    expected = ming.ask("What?", max_tokens=6, **media)
    for part in ("vision", "audio"):
        plain = getattr(ming.model, part)
        setattr(ming.model, part, PackedEncoder(type(plain), plain.config, plain.state_dict()))
    assert ming.ask("What?", max_tokens=6, **media) == expected
    ming.engine.stop()


def test_what_no_encoder_can_it_says_it_cannot():
    audio = Ming.load("tiny").model.audio
    packed = PackedEncoder(type(audio), audio.config, audio.state_dict())
    assert int(packed.num_tokens(torch.tensor([[100]]))) == int(audio.num_tokens(torch.tensor([[100]])))
    with pytest.raises(AttributeError, match="sing"):
        packed.sing()
    assert copy.copy(packed).config is audio.config
