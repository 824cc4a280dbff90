"""The language model: cached = recomputed, chunked = whole, batched = alone; and what transformers and PEFT expect."""

import copy

import pytest
import torch
from torch.testing import assert_close

from ming_omni import kernels
from ming_omni.config import ThinkerConfig, flash_preview, nano, tiny
from ming_omni.model.layers import rotary_tables
from ming_omni.model.moe import Experts, Router
from ming_omni.model.positions import next_positions, positions
from ming_omni.model.thinker import Thinker

I, P, E = 294, 293, 295  # noqa: E741 - the tiny vocabulary's <image>, <imagePatch>, </image>
PICTURE_PROMPT = [5, 6, I, *[P] * 6, E, 7, 8, 9]


def config(**changes) -> ThinkerConfig:
    """Tiny, but with weights large enough for a wrong position or mask to show."""
    return ThinkerConfig(**(tiny().thinker.to_dict() | {"initializer_range": 0.1} | changes))


def build(**changes) -> Thinker:
    torch.manual_seed(0)
    model = Thinker(config(**changes)).eval()
    for module in model.modules():
        if isinstance(module, Router):
            module.bias.data.normal_(std=0.1)
    return model


@pytest.fixture(scope="module")
def thinker():
    return build()


def read(thinker, ids, grid=None, mask=None, **options):
    """Everything the model is given for ids (B, T), with the picture tokens routed as such."""
    ids = torch.tensor(ids)
    placed, delta = positions(thinker.config, ids, mask, None if grid is None else torch.tensor(grid))
    modality = (ids == P).long()
    return thinker.embed(ids), placed, {"modality": modality, "mask": mask, **options}, delta


@torch.no_grad()
def hidden(thinker, ids, grid=None, mask=None):
    embeddings, placed, rest, _ = read(thinker, ids, grid, mask)
    return thinker(embeddings, placed, **rest).hidden


VARIANTS = pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rope_variant": "3d", "use_qk_norm": False, "partial_rotary_factor": 1.0},
        {"rope_variant": "vanilla", "num_dense_layers": 4, "num_key_value_heads": 4},
        {"tie_word_embeddings": True, "num_dense_layers": 0, "num_key_value_heads": 1},
        {"attn_implementation": "eager"},
    ],
    ids=["published", "3d", "dense", "tied", "eager"],
)


@VARIANTS
@pytest.mark.parametrize("chunks", [[13], [1] * 13, [4, 5, 4], [12, 1]])
@torch.no_grad()
def test_chunks_through_a_cache_equal_the_whole(changes, chunks):
    thinker = build(**changes)
    embeddings, placed, rest, _ = read(thinker, [PICTURE_PROMPT], [[1, 4, 6]])
    whole = thinker(embeddings, placed, modality=rest["modality"]).hidden
    cache, parts, done = thinker.new_cache(), [], 0
    for size in chunks:
        part = slice(done, done + size)
        done += size
        out = thinker(embeddings[:, part], placed[:, :, part], modality=rest["modality"][:, part], cache=cache)
        parts.append(out.hidden)
        assert cache.length == done
    assert_close(torch.cat(parts, 1), whole, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("is_padded", [False, True])
@torch.no_grad()
def test_cached_decoding_equals_recomputing(thinker, is_padded):
    """A picture, then text; with padding, a shorter row beside it."""
    rows, grid, mask = [PICTURE_PROMPT], [[1, 4, 6]], None
    if is_padded:
        rows = [PICTURE_PROMPT, [0] * 8 + [1, 2, 3, 4, 5]]
        mask = torch.tensor([[1] * 13, [0] * 8 + [1] * 5]).bool()
    embeddings, placed, rest, delta = read(thinker, rows, grid, mask)
    cache = thinker.new_cache()
    last = thinker(embeddings, placed, **rest, cache=cache).hidden[:, -1:]
    modality = rest["modality"]
    for step in range(4):
        token = thinker.embed(thinker.logits(last)[:, -1].argmax(-1, keepdim=True))
        after = next_positions(delta, 13 + step)
        embeddings, placed = torch.cat([embeddings, token], 1), torch.cat([placed, after], 2)
        modality = torch.nn.functional.pad(modality, (0, 1))
        mask = None if mask is None else torch.nn.functional.pad(mask, (0, 1), value=True)
        last = thinker(token, after, cache=cache, mask=mask).hidden
        plain = thinker(embeddings, placed, modality=modality, mask=mask).hidden[:, -1:]
        assert_close(last, plain, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("is_left", [True, False])
def test_rows_of_a_ragged_batch_equal_each_alone(is_left, implementation):
    thinker = build(attn_implementation=implementation)
    rows = [PICTURE_PROMPT, [9, 8, 7], [3], [I, *[P] * 4, E, 4, 5]]
    grids = [[[1, 4, 6]], None, None, [[1, 4, 4]]]
    length = 15
    pads = [[0] * (length - len(row)) for row in rows]
    padded = [pad + row if is_left else row + pad for row, pad in zip(rows, pads, strict=True)]
    ones = [[1] * len(row) for row in rows]
    mask = torch.tensor([pad + o if is_left else o + pad for o, pad in zip(ones, pads, strict=True)]).bool()
    together = hidden(thinker, padded, [g for grid in grids if grid for g in grid], mask)
    assert together.isfinite().all()
    for i, (row, grid) in enumerate(zip(rows, grids, strict=True)):
        assert_close(together[i, mask[i]], hidden(thinker, [row], grid)[0], atol=2e-5, rtol=1e-4)


def test_left_padding_changes_nothing(thinker):
    mask = torch.tensor([[0] * 5 + [1] * 13]).bool()
    padded = hidden(thinker, [[99] * 5 + PICTURE_PROMPT], [[1, 4, 6]], mask)
    assert_close(padded[:, 5:], hidden(thinker, [PICTURE_PROMPT], [[1, 4, 6]]), atol=2e-5, rtol=1e-4)


def test_explicit_positions_are_honoured(thinker):
    """Spec Q12: released code ignores them."""
    embeddings, placed, _, _ = read(thinker, [[1, 2, 3, 4]])
    assert not torch.allclose(thinker(embeddings, placed).hidden, thinker(embeddings, placed * 3).hidden, atol=1e-3)


def test_no_modality_means_text(thinker):
    embeddings, placed, _, _ = read(thinker, [[1, 2, 3, 4]])
    text, image = torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.long)
    assert_close(thinker(embeddings, placed).hidden, thinker(embeddings, placed, modality=text).hidden)
    assert not torch.allclose(
        thinker(embeddings, placed).hidden, thinker(embeddings, placed, modality=image).hidden, atol=1e-3
    )


def test_a_call_leaves_no_state_on_the_model(thinker):
    before = {name: dict(vars(module)) for name, module in thinker.named_modules()}
    hidden(thinker, [PICTURE_PROMPT], [[1, 4, 6]])
    for name, module in thinker.named_modules():
        assert vars(module).keys() == before[name].keys()
        assert all(vars(module)[key] is value for key, value in before[name].items())


def test_collected_states_start_at_the_embeddings_and_end_after_the_norm(thinker):
    embeddings, placed, _, _ = read(thinker, [[1, 2, 3]])
    out = thinker(embeddings, placed, collect_hidden_states=True)
    assert len(out.hidden_states) == 5
    assert out.hidden_states[0] is embeddings
    assert out.hidden_states[-1] is out.hidden
    rotary = rotary_tables(thinker.config, placed, torch.float32)
    assert_close(out.hidden_states[1], thinker.layers[0](embeddings, rotary, None, None)[0])


def test_routing_comes_from_every_expert_layer_and_counts_real_tokens(thinker):
    mask = torch.tensor([[0] * 3 + [1] * 13, [0] * 12 + [1] * 4]).bool()
    rows = [[0] * 3 + PICTURE_PROMPT, [0] * 12 + [1, 2, 3, 4]]
    embeddings, placed, rest, _ = read(thinker, rows, [[1, 4, 6]], mask)
    out = thinker(embeddings, placed, **rest, collect_routing=True)
    assert len(out.routing) == 3  # the first of four layers is dense
    for routing in out.routing:
        assert (routing.logits.shape, routing.chosen.shape, routing.weights.shape) == ((32, 16), (32, 4), (32, 4))
        assert routing.load.sum(1).tolist() == [4 * 11, 4 * 6, 0]
    assert not thinker(embeddings, placed, **rest).routing


def test_ids_outside_the_vocabulary_are_clipped(thinker):
    assert_close(thinker.embed(torch.tensor([-3, 10_000])), thinker.embed(torch.tensor([0, 319])))


def test_gradient_checkpointing_gives_the_same_gradients():
    def gradients(is_checkpointed):
        thinker = build().train()
        if is_checkpointed:
            thinker.gradient_checkpointing_enable()
        embeddings, placed, rest, _ = read(thinker, [PICTURE_PROMPT], [[1, 4, 6]])
        out = thinker(embeddings, placed, **rest, collect_routing=True)
        balance = sum(routing.logits.logsumexp(-1).mean() for routing in out.routing)
        (thinker.logits(out.hidden).logsumexp(-1).mean() + 0.1 * balance).backward()
        return {name: p.grad for name, p in thinker.named_parameters()}

    plain, saved = gradients(False), gradients(True)
    assert {name for name, grad in plain.items() if grad is None} == {
        f"layers.{layer}.mlp.routers.{modality}.bias" for layer in (1, 2, 3) for modality in ("text", "image", "audio")
    }
    assert_close(saved, plain)


def test_initial_weights_are_those_of_the_release():
    """Spec 9: routers Kaiming-uniform with a = sqrt(5), everything else N(0, initializer_range), biases zero."""
    torch.manual_seed(0)
    thinker = Thinker(config(initializer_range=0.006, hidden_size=128))
    for module in thinker.modules():
        if isinstance(module, Router):
            bound = 128**-0.5  # sqrt(6 / ((1 + 5) * fan_in))
            assert 0.9 * bound < module.weight.abs().max() <= bound
            assert (module.bias == 0).all()
        elif isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            assert module.weight.std().item() == pytest.approx(0.006, rel=0.1)
        elif isinstance(module, Experts):
            assert all(p.std().item() == pytest.approx(0.006, rel=0.1) for p in module.parameters())
    assert all((p == 1).all() for name, p in thinker.named_parameters() if "norm" in name)


def test_the_head_is_tied_when_the_config_says_so(tmp_path):
    thinker = build(tie_word_embeddings=True)
    assert thinker.head.weight is thinker.embedding.weight
    thinker.save_pretrained(tmp_path)
    again = Thinker.from_pretrained(tmp_path)
    assert again.head.weight is again.embedding.weight
    assert build().head.weight is not build().embedding.weight


def test_a_saved_model_loads_equal(tmp_path):
    thinker = build()
    thinker.save_pretrained(tmp_path)
    again = Thinker.from_pretrained(tmp_path).eval()
    assert_close(dict(again.named_parameters()), dict(thinker.named_parameters()), atol=0, rtol=0)
    ids, grid = [PICTURE_PROMPT], [[1, 4, 6]]
    assert_close(hidden(again, ids, grid), hidden(thinker, ids, grid), atol=1e-6, rtol=1e-6)


def test_a_bf16_load_keeps_the_router_biases_in_fp32(tmp_path):
    thinker = build()
    thinker.save_pretrained(tmp_path)
    for name, parameter in Thinker.from_pretrained(tmp_path, dtype=torch.bfloat16).named_parameters():
        assert parameter.dtype == (torch.float32 if name.endswith(".bias") else torch.bfloat16)
        assert_close(parameter, thinker.get_parameter(name).to(parameter.dtype), atol=0, rtol=0)


@pytest.mark.parametrize("numerics", ["native", "reference"])
def test_bf16_stays_near_fp32(numerics):
    exact = build(num_dense_layers=4)
    rounded = build(num_dense_layers=4, numerics=numerics).to(torch.bfloat16)
    rough, fine = (hidden(m, [PICTURE_PROMPT], [[1, 4, 6]]) for m in (rounded, exact))
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - fine).norm() < 0.05 * fine.norm()
    moe = hidden(build(numerics=numerics).to(torch.bfloat16), [PICTURE_PROMPT], [[1, 4, 6]])
    assert moe.isfinite().all()


def test_both_numerics_are_one_in_fp32():
    native, reference = build(), build(numerics="reference")
    ids, grid = [PICTURE_PROMPT], [[1, 4, 6]]
    assert_close(hidden(reference, ids, grid), hidden(native, ids, grid), atol=1e-6, rtol=1e-6)


def test_autocast_trains_fp32_weights():
    thinker = build().train()
    embeddings, placed, rest, _ = read(thinker, [PICTURE_PROMPT], [[1, 4, 6]])
    with torch.autocast("cpu", torch.bfloat16):
        out = thinker(embeddings, placed, **rest, collect_routing=True)
        thinker.logits(out.hidden).float().logsumexp(-1).mean().backward()
    assert out.routing[0].logits.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in thinker.parameters() if p.grad is not None)
    assert (thinker.layers[1].mlp.experts.gate.grad != 0).any()


@pytest.mark.parametrize("kernel", [kernels.reference, *kernels.available()], ids=lambda k: k.__name__.rsplit(".")[-1])
def test_every_kernel_gives_the_same_model(thinker, kernel):
    expected = hidden(thinker, [PICTURE_PROMPT], [[1, 4, 6]])
    with kernels.use(kernel):
        assert_close(hidden(thinker, [PICTURE_PROMPT], [[1, 4, 6]]), expected, atol=1e-5, rtol=1e-4)


def test_the_whole_model_compiles_to_one_graph():
    thinker = build(num_hidden_layers=2)
    embeddings, placed, rest, _ = read(thinker, [PICTURE_PROMPT], [[1, 4, 6]])
    compiled = torch.compile(lambda x, p, m: thinker(x, p, modality=m).hidden, backend="eager", fullgraph=True)
    expected = thinker(embeddings, placed, modality=rest["modality"]).hidden
    assert_close(compiled(embeddings, placed, rest["modality"]), expected, atol=2e-5, rtol=1e-4)


def test_offloaded_layers_are_fetched_as_they_run():
    """As with a device map that leaves layers in host memory: accelerate's hooks bring each module's weights."""
    from accelerate import cpu_offload

    expected = hidden(build(), [PICTURE_PROMPT], [[1, 4, 6]])
    offloaded = cpu_offload(build(), execution_device=torch.device("cpu"))
    assert {p.device.type for p in offloaded.parameters()} == {"meta"}
    assert_close(hidden(offloaded, [PICTURE_PROMPT], [[1, 4, 6]]), expected, atol=1e-6, rtol=1e-6)


def test_lora_attaches_and_trains():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(build(), LoraConfig(r=4, target_modules=["qkv", "out", "gate", "up", "down"]))
    assert isinstance(model.base_model.model, Thinker)
    before = copy.deepcopy({n: p for n, p in model.named_parameters() if not p.requires_grad})
    learned = [p for p in model.parameters() if p.requires_grad]
    assert len(learned) == 2 * (4 * 2 + 3 + 3 * 3)  # A and B for: attention, one dense MLP, three shared experts
    optimiser = torch.optim.AdamW(learned, lr=1e-2)
    losses = []
    for _ in range(5):
        embeddings, placed, rest, _ = read(model.base_model.model, [PICTURE_PROMPT], [[1, 4, 6]])
        logits = model.base_model.model.logits(model(embeddings, placed, **rest).hidden)
        losses.append(torch.nn.functional.cross_entropy(logits[0, :-1], torch.tensor(PICTURE_PROMPT[1:])))
        losses[-1].backward()
        optimiser.step()
        optimiser.zero_grad()
    assert losses[-1] < losses[0] - 0.1
    assert_close({n: p for n, p in model.named_parameters() if not p.requires_grad}, before, atol=0, rtol=0)


def test_the_published_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        thinker = Thinker(flash_preview().thinker)
    assert sum(p.numel() for p in thinker.parameters()) == 102_954_732_800


def test_nano_holds_its_base_as_shared_experts():
    with torch.device("meta"):
        thinker = Thinker(nano().thinker)
    assert {
        tuple(layer.mlp.shared.gate.weight.shape) for layer in thinker.layers[nano().thinker.num_dense_layers :]
    } == {(1536, 576)}
    added = ("routers", "experts", "head")
    base = sum(p.numel() for name, p in thinker.named_parameters() if not set(name.split(".")) & set(added))
    assert base == 134_515_008  # SmolLM2-135M
