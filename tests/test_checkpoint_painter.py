"""checkpoint/painter.py: the published folders, whole and damaged; each damage is named."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ming_omni.checkpoint.painter import has_painter, load_painter, read_config
from ming_omni.config import GlyphConfig, PainterConfig
from ming_omni.errors import InputError
from ming_omni.model.glyphs import GlyphEncoder
from ming_omni.model.painter import Painter
from tests.parity.imagegen import materialise

FIXTURE = Path(__file__).parent / "fixtures/parity/imagegen"
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    materialise(FIXTURE, folder)
    return folder


@pytest.fixture
def release(whole, tmp_path) -> Path:
    """A copy whose files can be replaced one by one."""
    return Path(shutil.copytree(whole, tmp_path / "release", copy_function=lambda a, b: Path(b).symlink_to(a)))


def replace(file: Path, content: bytes | str) -> None:
    file.unlink(missing_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def change_json(file: Path, **values) -> None:
    replace(file, json.dumps(json.loads(file.read_text()) | values))


def change_tensors(file: Path, change) -> None:
    tensors = load_file(file)
    change(tensors)
    file.unlink()
    save_file(tensors, file)


def add_glyphs(release: Path) -> GlyphEncoder:
    """A byt5/ folder as the release has it, from a random branch."""
    torch.manual_seed(0)
    glyphs = GlyphEncoder(GlyphConfig(out_width=2048)).eval()
    state = glyphs.state_dict()
    encoder = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    mapper = {k.replace("mapper.block.", "blocks."): v for k, v in state.items() if k.startswith("mapper.block.")}
    mapper["layer_norm.weight"] = state["mapper.final_layer_norm.weight"]
    mapper |= {f"channel_mapper.{p}": state[f"out.{p}"] for p in ("weight", "bias")}
    mapper["final_layer_norm.weight"] = state["norm.weight"]
    for name, tensors in (("byt5_model", encoder), ("byt5_mapper", mapper)):
        (release / f"byt5/{name}").mkdir(parents=True)
        torch.save(tensors, release / f"byt5/{name}/{name}.pt")
    replace(release / "byt5/google__byt5-smal/config.json", json.dumps(glyphs.config.encoder.to_dict()))
    settings = {"num_layers": 2, "sdxl_channels": 2048}
    replace(release / "byt5/byt5.json", json.dumps({"byt5_max_length": 24, "byt5_mapper_config": settings}))
    return glyphs


def test_sizes_are_read_from_the_files(whole):
    config = read_config(whole)
    assert isinstance(config, PainterConfig) and has_painter(whole)
    assert config.query_scales == [4, 8, 16] and config.thinker_width == 64 and config.condition_width == 2048
    assert config.dit.hidden_size == 128 and config.dit.num_refiner_layers == 2 and config.default_size == 512
    assert config.vae.downscale == 8 and config.flow.shift == 3.0 and config.glyphs is None


def test_loading_in_bfloat16_keeps_the_rotary_frequencies_exact(whole):
    painter = load_painter(whole, dtype=torch.bfloat16)
    assert {p.dtype for p in painter.parameters()} == {torch.bfloat16}
    assert painter.connector.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32


def test_a_loaded_painter_saves_and_loads_in_our_own_layout(whole, tmp_path):
    painter = load_painter(whole)
    painter.save_pretrained(tmp_path)
    again = Painter.from_pretrained(tmp_path).state_dict()
    assert all(again[name].equal(tensor) for name, tensor in painter.state_dict().items())


def test_shards_of_a_part_are_read_together(release):
    file = release / TRANSFORMER
    tensors = load_file(file)
    names = sorted(tensors)
    file.unlink()
    for k in range(2):
        part = {name: tensors[name] for name in names[k::2]}
        save_file(part, release / f"transformer/diffusion_pytorch_model-0000{k + 1}-of-00002.safetensors")
    assert load_painter(release).dit.out.weight.equal(tensors["proj_out.weight"])


def test_attention_names_of_older_autoencoders_are_known(release):
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def rename(tensors):
        for name in [name for name in tensors if ".attentions." in name]:
            older = name
            for new_part, old_part in old.items():
                older = older.replace(new_part, old_part)
            tensors[older] = tensors.pop(name)

    expected = load_painter(release).vae.decoder.middle[1].qkv.weight.clone()
    change_tensors(release / "vae/diffusion_pytorch_model.safetensors", rename)
    assert load_painter(release).vae.decoder.middle[1].qkv.weight.equal(expected)


def test_the_glyph_branch_is_read_from_its_own_files(release):
    glyphs = add_glyphs(release)
    painter = load_painter(release)
    state = painter.glyphs.state_dict()
    assert all(state[name].equal(tensor) for name, tensor in glyphs.state_dict().items())
    assert painter.spell(['Text "A". ']).shape == (1, 24, 2048)


def test_scheduler_may_be_absent_and_may_shift_by_size(release):
    change_json(release / "scheduler/scheduler_config.json", use_dynamic_shifting=True, max_shift=1.3)
    assert read_config(release).flow.use_dynamic_shifting and read_config(release).flow.max_shift == 1.3
    shutil.rmtree(release / "scheduler")
    assert read_config(release).flow.shift == 3.0


def test_settings_that_a_file_leaves_out_are_those_of_the_library_that_wrote_it(release):
    def leave_out(file: Path, *names: str) -> None:
        replace(file, json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k not in names}))

    leave_out(release / "scheduler/scheduler_config.json", "shift", "num_train_timesteps")
    leave_out(release / "vae/config.json", "scaling_factor", "shift_factor", "use_quant_conv", "norm_num_groups")
    leave_out(release / "transformer/config.json", "qk_norm", "dual_attention_layers", "pos_embed_max_size")
    config = read_config(release)
    assert (config.flow.shift, config.flow.num_train_steps) == (1.0, 1000)
    assert (config.vae.scaling_factor, config.vae.shift_factor, config.vae.num_norm_groups) == (0.18215, 0.0, 32)
    assert config.vae.use_quant_conv and not config.dit.use_qk_norm
    assert (*config.dit.dual_attention_layers,) == () and config.dit.max_grid == 96


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


def _evil(release: Path) -> None:
    add_glyphs(release)
    torch.save({"embed_tokens.weight": Evil()}, release / "byt5/byt5_model/byt5_model.pt")


def _without(part: str):
    return lambda release: shutil.rmtree(release / part)


def _drop(tensors):
    del tensors["proj_out.bias"]


def _add(tensors):
    tensors["proj_extra.weight"] = torch.zeros(1)


def _reshape(tensors):
    tensors["proj_out.weight"] = torch.zeros(3, 3)


def _shift_positions(tensors):
    tensors["pos_embed.pos_embed"] = tensors["pos_embed.pos_embed"].roll(1, 1)


@pytest.mark.parametrize(
    "damage, reason",
    [
        (_without("connector"), "connector/ is missing"),
        (lambda r: (r / TRANSFORMER).unlink(), "transformer holds no safetensors"),
        (lambda r: replace(r / TRANSFORMER, (r / TRANSFORMER).read_bytes()[:5000]), "truncated"),
        (lambda r: change_tensors(r / TRANSFORMER, _drop), "lack 1 tensors; the first is dit.out.bias"),
        (lambda r: change_tensors(r / TRANSFORMER, _add), "proj_extra.weight, which the published painter does not"),
        (lambda r: change_tensors(r / TRANSFORMER, _reshape), r"proj_out.weight has shape \(3, 3\)"),
        (lambda r: change_tensors(r / TRANSFORMER, _shift_positions), "not the sine-cosine table"),
        (lambda r: change_json(r / "transformer/config.json", pos_embed_max_size=16), "16x16 cells"),
        (lambda r: change_json(r / "transformer/config.json", vae_ref_channel_cat=True), "by channel"),
        (lambda r: change_json(r / "transformer/config.json", num_layers=2), "has no place in a painter"),
        (lambda r: change_json(r / "connector/config.json", model_type="llama"), "'llama'"),
        (lambda r: change_json(r / "scheduler/scheduler_config.json", use_karras_sigmas=True), "use_karras_sigmas"),
        (lambda r: replace(r / "byt5/byt5.json", "{}"), "T5 model's config.json"),
        (lambda r: (add_glyphs(r), (r / "byt5/byt5_mapper/byt5_mapper.pt").unlink()), "byt5_mapper.pt is missing"),
        (_evil, "cannot be read as a plain table of tensors"),
    ],
)
def test_every_damage_is_named(release, damage, reason, capsys):
    damage(release)
    with pytest.raises(InputError, match=reason):
        load_painter(release)
    assert "unpickled" not in capsys.readouterr().out
