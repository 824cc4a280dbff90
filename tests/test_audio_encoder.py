"""The audio encoder: token counts, what a clip sees of its neighbours, and what it refuses."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from ming_omni.config import AudioConfig
from ming_omni.errors import InputError
from ming_omni.inputs.frames import AudioProcessor
from ming_omni.model.audio_encoder import AudioEncoder, sinusoids

lengths_of_clips = st.lists(st.integers(1, 60), min_size=2, max_size=4)


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    return build()


@pytest.fixture(scope="module")
def isolating() -> AudioEncoder:
    return build(clip_isolation=True)


def build(**options) -> AudioEncoder:
    torch.manual_seed(0)
    encoder = AudioEncoder(AudioConfig(num_mel_bins=16, **options)).eval()
    for parameter in encoder.parameters():  # biases too: zero-padding must not hide behind zero biases
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder


def mel(*lengths: int) -> torch.Tensor:
    return torch.randn(1, sum(lengths), 16, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def encode(encoder: AudioEncoder, features: torch.Tensor, *lengths: int) -> list[torch.Tensor]:
    """The tokens of each clip."""
    tokens, counts = encoder(features, torch.tensor([lengths]))
    return list(tokens.split(counts[0].tolist()))


WHISPER_NAMES = {
    "self_attn_layer_norm": "attention_norm",
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.out_proj": "attention.out",
    "final_layer_norm": "mlp_norm",
    "fc1": "mlp.up",
    "fc2": "mlp.down",
    "layer_norm": "norm",
    "embed_positions.weight": "positions",
}


@torch.no_grad()
@pytest.mark.parametrize(("width", "heads", "frames"), [(32, 4, 50), (48, 3, 20)])
def test_the_encoder_is_the_one_of_whisper(width, heads, frames):
    """transformers' own encoder as an independent witness; it takes clips of one length only."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        num_mel_bins=16,
        d_model=width,
        encoder_layers=2,
        encoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        max_source_positions=frames // 2,
    )
    witness = WhisperEncoder(config).eval()
    for parameter in witness.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    weights = {}
    for name, weight in witness.state_dict().items():
        for theirs, ours in WHISPER_NAMES.items():
            name = re.sub(rf"(^|\.){theirs}(\.|$)", rf"\1{ours}\2", name)
        weights[name] = weight
    encoder = build(hidden_size=width, num_attention_heads=heads, max_positions=frames // 2)
    absent = encoder.load_state_dict(weights, strict=False).missing_keys
    assert all(name.startswith("projector.") for name in absent)
    encoded = encoder.encode(mel(frames), torch.tensor([[frames]]))
    assert_close(encoded, witness(mel(frames).transpose(1, 2)).last_hidden_state, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("frames", "tokens"), [(1, 1), (4, 1), (5, 2), (38, 10), (61, 16), (100, 25), (3000, 750)])
def test_frames_become_a_quarter_as_many_tokens(encoder, frames, tokens):
    assert encoder.num_tokens(torch.tensor(frames)).item() == tokens


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (3, 3), (1, 2), (5, 4), (2, 2), (4, 1)])
@settings(max_examples=20, deadline=None)
@given(frames=st.integers(1, 70))
def test_the_promised_number_of_tokens_is_what_the_convolutions_give(kernel, stride, frames):
    encoder = build(projector_kernel=kernel, projector_stride=stride)
    with torch.no_grad():
        produced = encoder.projector(encoder.encode(mel(frames), torch.tensor([[frames]])).transpose(1, 2))
    assert produced.shape[1] == encoder.num_tokens(torch.tensor(frames)).item()
    promised = AudioProcessor(projector_stride=stride, projector_kernel=kernel).num_tokens(frames)
    assert promised == produced.shape[1]


@settings(max_examples=20, deadline=None)
@given(lengths_of_clips)
def test_isolated_clips_equal_each_alone(isolating, lengths):
    features = mel(*lengths)
    packed = encode(isolating, features, *lengths)
    for clip, piece in zip(packed, features.split(lengths, 1), strict=True):
        assert_close(clip, encode(isolating, piece, piece.shape[1])[0], atol=1e-5, rtol=1e-4)


def test_as_published_only_the_longest_clip_ignores_its_neighbours(encoder):
    features = mel(61, 38)
    longest, shorter = encode(encoder, features, 61, 38)
    assert_close(longest, encode(encoder, features[:, :61], 61)[0], atol=1e-5, rtol=1e-4)
    assert (shorter - encode(encoder, features[:, 61:], 38)[0]).abs().max() > 1e-2


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=3), min_size=2, max_size=3))
@torch.no_grad()
def test_requests_never_see_each_other_though_their_clips_share_padding(encoder, requests):
    lengths = [length for request in requests for length in request]
    owners = torch.tensor([number for number, request in enumerate(requests) for _ in request])
    features = mel(*lengths)
    together, _ = encoder(features, torch.tensor([lengths]), owners)
    pieces = features.split([sum(request) for request in requests], 1)
    alone = [
        token for request, piece in zip(requests, pieces, strict=True) for token in encode(encoder, piece, *request)
    ]
    assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_isolation_changes_nothing_for_one_clip(encoder, isolating):
    assert_close(encode(encoder, mel(37), 37), encode(isolating, mel(37), 37))


@pytest.mark.parametrize("clip_isolation", [False, True])
def test_eager_equals_sdpa(clip_isolation):
    eager, sdpa = (build(clip_isolation=clip_isolation, attn_implementation=name) for name in ("eager", "sdpa"))
    features = mel(30, 11)
    assert eager.config._attn_implementation == "eager"
    for one, other in zip(encode(eager, features, 30, 11), encode(sdpa, features, 30, 11), strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("normalize", [True, False])
def test_tokens_are_unit_vectors_when_asked(depth, normalize):
    (tokens,) = encode(build(projector_depth=depth, normalize=normalize, token_width=48), mel(20), 20)
    assert tokens.shape == (5, 48)
    assert torch.allclose(tokens.norm(dim=-1), torch.ones(5)) == normalize


def test_positions_are_sines_then_cosines():
    table = sinusoids(3, 4)  # two time scales: 1 and 1/10000
    expected = [[0, 0, 1, 1], [0.841471, 1e-4, 0.540302, 1], [0.909297, 2e-4, -0.416147, 1]]
    assert_close(table, torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_a_checkpoint_without_the_position_table_gets_it_back(tmp_path, encoder):
    encoder.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert weights.pop("positions").shape == (600, 32)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = AudioEncoder.from_pretrained(tmp_path)
    assert_close(loaded.positions, sinusoids(600, 32))
    assert_close(encode(loaded.eval(), mel(20), 20), encode(encoder, mel(20), 20))


def test_only_the_key_has_no_bias(encoder):
    attention = encoder.layers[0].attention
    assert attention.key.bias is None
    assert all(part.bias is not None for part in (attention.query, attention.value, attention.out))


@pytest.mark.parametrize(
    ("shape", "lengths", "complaint"),
    [
        ((1, 30, 16), [[20, 11]], "31"),
        ((1, 30, 12), [[30]], "12"),
        ((2, 30, 16), [[30]], "2, 30"),
        ((1, 30, 16), [[30, 0]], r"\[30, 0\]"),
        ((1, 1201, 16), [[1201]], "1200"),
        ((1, 0, 16), [[]], "1 to 1200"),
    ],
)
def test_features_that_do_not_fit_their_lengths_are_refused(encoder, shape, lengths, complaint):
    with pytest.raises(InputError, match=complaint):
        encoder(torch.zeros(shape), torch.tensor(lengths))
