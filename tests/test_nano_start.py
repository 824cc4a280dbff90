"""What nano's training starts from: Whisper's encoder as it was, and fresh eyes and projectors."""

import struct

import pytest
import torch
from torch.testing import assert_close
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ming_omni import config
from ming_omni.config import AudioConfig, MingConfig, ThinkerConfig, VisionConfig
from ming_omni.errors import InputError
from ming_omni.inputs.mel import log_mel
from ming_omni.inputs.patches import ImageProcessor
from ming_omni.model.audio_encoder import AudioEncoder
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.model.vision_encoder import VisionEncoder
from ming_omni.nano import whisper
from ming_omni.nano.files import by_file, round_off
from ming_omni.nano.start import PICTURES, babble, fresh
from ming_omni.packed import Packed

WIDTH, HEADS, LAYERS, MELS = 128, 2, 2, 80


def whisper_encoder(positions: int) -> WhisperEncoder:
    torch.manual_seed(0)
    sizes = {"d_model": WIDTH, "encoder_ffn_dim": 4 * WIDTH, "num_mel_bins": MELS, "max_source_positions": positions}
    found = WhisperEncoder(WhisperConfig(encoder_layers=LAYERS, encoder_attention_heads=HEADS, **sizes)).eval()
    for parameter in found.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return found


def as_ctranslate2(encoder: WhisperEncoder) -> dict[str, torch.Tensor]:
    """Its weights under the names of a CTranslate2 file, fp16."""
    state = encoder.state_dict()
    found = {f"conv{i}/{kind}": state[f"conv{i}.{kind}"] for i in (1, 2) for kind in ("weight", "bias")}
    found["position_encodings/encodings"] = state["embed_positions.weight"]
    for kind, theirs in (("weight", "gamma"), ("bias", "beta")):
        found[f"layer_norm/{theirs}"] = state[f"layer_norm.{kind}"]
        for i in range(LAYERS):
            ours, old = f"layer_{i}", f"layers.{i}"
            found[f"{ours}/self_attention/layer_norm/{theirs}"] = state[f"{old}.self_attn_layer_norm.{kind}"]
            found[f"{ours}/ffn/layer_norm/{theirs}"] = state[f"{old}.final_layer_norm.{kind}"]
            q, v = (state[f"{old}.self_attn.{part}_proj.{kind}"] for part in "qv")
            k = state.get(f"{old}.self_attn.k_proj.{kind}", torch.zeros(WIDTH))
            found[f"{ours}/self_attention/linear_0/{kind}"] = torch.cat((q, k, v))
            found[f"{ours}/self_attention/linear_1/{kind}"] = state[f"{old}.self_attn.out_proj.{kind}"]
            found[f"{ours}/ffn/linear_0/{kind}"] = state[f"{old}.fc1.{kind}"]
            found[f"{ours}/ffn/linear_1/{kind}"] = state[f"{old}.fc2.{kind}"]
    return {f"encoder/{name}": tensor.half() for name, tensor in found.items()}


def ctranslate2_file(path, tensors: dict[str, torch.Tensor], version: int = 6):
    """Written by hand from the format's description."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    tensors = tensors | {"encoder/num_heads": torch.tensor(HEADS, dtype=torch.int16), "decoder/x": torch.zeros(2)}
    data = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    kinds = {torch.float32: 0, torch.int16: 2, torch.float16: 4}
    for name, tensor in tensors.items():
        content = tensor.contiguous().numpy().tobytes()
        data += text(name) + struct.pack(f"<B{tensor.ndim}I", tensor.ndim, *tensor.shape)
        data += struct.pack("<BI", kinds[tensor.dtype], len(content)) + content
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("num_frames", [2, 96, 300])
def test_a_whisper_read_from_its_file_hears_as_transformers_does_without_padding(tmp_path, num_frames):
    theirs = whisper_encoder(num_frames // 2)
    for parameter in theirs.parameters():
        parameter.data = parameter.half().float()
    found = whisper.encoder(ctranslate2_file(tmp_path / "model.bin", as_ctranslate2(theirs)))
    sizes = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_mel_bins": MELS, "max_positions": 150}
    ours = AudioEncoder(AudioConfig(hidden_size=WIDTH, **sizes)).eval()
    missing, unexpected = ours.load_state_dict({k: t.float() for k, t in found.items()}, strict=False)
    assert not unexpected and all(name.startswith(("positions", "projector")) for name in missing)

    theirs.embed_positions.weight.data = ours.positions[: num_frames // 2]
    features = torch.randn(1, num_frames, MELS)
    with torch.no_grad():
        heard = ours.encode(features, torch.tensor([[num_frames]]))
        expected = theirs(features.transpose(1, 2)).last_hidden_state
    assert_close(heard, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("damage", ["short", "version", "another part"])
def test_a_file_that_is_no_whisper_is_refused(tmp_path, damage):
    tensors = as_ctranslate2(whisper_encoder(4)) | ({"encoder/x": torch.zeros(3)} if damage == "another part" else {})
    file = ctranslate2_file(tmp_path / "model.bin", tensors, version=5 if damage == "version" else 6)
    if damage == "short":
        file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InputError, match=str(file)):
        whisper.encoder(file)


def small() -> MingConfig:
    return MingConfig(
        thinker=ThinkerConfig(hidden_size=96),
        vision=VisionConfig(token_norm=3.0),
        audio=AudioConfig(hidden_size=WIDTH, num_mel_bins=MELS, max_positions=600, token_norm=3.0),
    )


def heard_weights(c: MingConfig) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    state = AudioEncoder(c.audio).state_dict()
    return {name: t.half() for name, t in state.items() if not name.startswith(("positions", "projector"))}


def test_fresh_tokens_lie_among_the_rows_of_the_embedding():
    c = small()
    rows = torch.randn(500, 96) * 0.2 + torch.linspace(-0.3, 0.3, 96)
    parameters = fresh(c, heard_weights(c), rows)
    vision = VisionEncoder(c.vision).eval()
    vision.load_state_dict({k.removeprefix("vision."): t.float() for k, t in parameters.items() if "vision." in k})
    pictures = torch.rand(4, 2, 3, 112, 112) * 255
    with torch.no_grad():
        tokens = vision(*ImageProcessor().videos(list(pictures)))
    assert_close(tokens.norm(dim=-1), torch.full((len(tokens),), 3.0), rtol=1e-4, atol=1e-4)
    likeness = torch.cosine_similarity(tokens.mean(0), rows.mean(0), dim=0)
    assert likeness > 0.6


def test_starting_again_gives_the_same_parameters_and_leaves_the_random_state_alone():
    c, rows = small(), torch.randn(50, 96)
    heard = heard_weights(c)
    state = torch.get_rng_state()
    once, again = (fresh(c, heard, rows) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert once.keys() == again.keys()
    for name, value in once.items():
        parts = zip(value, again[name], strict=True) if isinstance(value, Packed) else [(value, again[name])]
        assert all(a is b or torch.equal(a, b) for a, b in parts), name


def test_only_what_training_changes_is_apart_from_whispers_encoder():
    c = small()
    files = by_file(fresh(c, heard_weights(c), torch.randn(50, 96)))
    assert set(files) == {"audio", "vision", "projectors"}
    assert all(".projector." in name for name in files["projectors"])
    assert {f"audio.{name}" for name in heard_weights(c)} == set(files["audio"])


def test_eight_bits_hear_almost_what_sixteen_hear():
    c = small()
    heard = heard_weights(c)
    encoders = [AudioEncoder(c.audio).eval() for _ in range(2)]
    encoders[0].load_state_dict({n: t.float() for n, t in heard.items()}, strict=False)
    encoders[1].load_state_dict({n: round_off(n, t).float() for n, t in heard.items()}, strict=False)
    mel = log_mel(babble(2), MELS)
    with torch.no_grad():
        plain, packed = (encoder.encode(mel[None], torch.tensor([[len(mel)]])) for encoder in encoders)
    assert (packed - plain).norm() / plain.norm() < 0.01


@pytest.mark.parametrize(
    ("height", "width", "tokens"), [(256, 256, 81), (252, 252, 81), (1024, 1024, 81), (64, 64, 81), (768, 1024, 88)]
)
def test_a_picture_is_about_eighty_one_tokens_whatever_its_size(height, width, tokens):
    from PIL import Image

    from ming_omni.inputs.image import fetch_image

    processor = ImageProcessor(**PICTURES)
    _, grid = processor([fetch_image(Image.new("RGB", (width, height)))])
    assert processor.num_tokens(grid[0]) == tokens


def test_nano_with_encoders_keeps_to_its_sizes():
    with torch.device("meta"):
        model = MingForConditionalGeneration(config.nano(encoders=True))
    sizes = {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in ("vision", "audio")}
    assert sizes["vision"] <= 6_000_000
    assert sizes["audio"] - sum(p.numel() for p in model.audio.projector.parameters()) == 19_822_592
    assert model.config.vision.token_width == model.config.audio.token_width == 576
    assert config.nano().vision is config.nano().audio is None


@pytest.mark.slow
def test_the_published_wheels_make_a_start_that_loads_and_reads_every_medium(tmp_path):
    from ming_omni import checkpoint
    from ming_omni.inputs.messages import Audio, Image, Message, Text, Video
    from ming_omni.inputs.processor import MingProcessor
    from ming_omni.nano.start import build_start

    build_start(tmp_path)
    assert max(file.stat().st_size for file in tmp_path.iterdir()) < 48_000_000
    model, processor = checkpoint.load(tmp_path), MingProcessor.from_pretrained(tmp_path)
    scene = torch.randint(256, (256, 256, 3), dtype=torch.uint8).numpy()
    media = [Image(scene), Video([scene] * 8), Audio((babble(3).numpy(), 16_000))]
    inputs = processor.prepare([Message("user", [*media, Text("What is this?")])])
    c = model.config.thinker
    counts = [(inputs["input_ids"] == token).sum().item() for token in (c.image_patch_token, c.video_patch_token)]
    assert counts == [81, 100]
    assert inputs["audio_placeholder_loc_lens"][0, 0, 1] == 75
    with torch.no_grad():
        assert torch.isfinite(model(**inputs).logits).all()
