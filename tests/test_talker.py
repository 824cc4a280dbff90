"""Text ids -> speech latents: cache, slots, guidance, time grid, stop head, training losses."""

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from ming_omni.config import TalkerConfig, talker_nano, talker_preview
from ming_omni.model.flow import speech_grid
from ming_omni.model.talker import Talker, TalkerState, rotate_pairs

CONFIG = TalkerConfig()
PATCH = (CONFIG.patch_frames, CONFIG.vae.latent_dim)


@pytest.fixture(scope="module")
def talker():
    torch.manual_seed(0)
    return Talker(TalkerConfig()).eval()


@torch.inference_mode()
def speak(talker, sentences, slots, num_steps=4):
    """(patches, stop probabilities) of sentences (ids, prompt, noise) that are spoken together in the given slots."""
    state, grid = TalkerState(talker, 8, capacity=4, latent_capacity=4), talker.time_grid()
    lengths = [len(talker.prefill(state, s, ids, prompt)) for s, (ids, prompt, _) in zip(slots, sentences, strict=True)]
    steps = []
    for i in range(num_steps):
        noise = torch.stack([noise[i] for _, _, noise in sentences])
        steps.append(talker.step(state, torch.tensor(slots), noise, max(lengths) + i + 1, (i + 1) * PATCH[0], grid))
    return steps


def sentence(seed, length, prompt_patches=0):
    g = torch.Generator().manual_seed(seed)
    prompt = torch.randn(prompt_patches, *PATCH, generator=g) if prompt_patches else None
    return (
        torch.randint(CONFIG.backbone.vocab_size, (length,), generator=g),
        prompt,
        torch.randn(4, *PATCH, generator=g),
    )


def test_sentences_spoken_together_equal_those_spoken_alone(talker):
    sentences = [sentence(1, 3), sentence(2, 9, 2), sentence(3, 5)]
    together = speak(talker, sentences, [4, 0, 2])
    for row, alone in enumerate(speak(talker, [s], [1]) for s in sentences):
        for step, single in zip(together, alone, strict=True):
            assert_close(step.patch[row], single.patch[0], atol=2e-5, rtol=1e-4)
            assert_close(step.samples[row], single.samples[0], atol=2e-5, rtol=1e-4)
            assert_close(step.stop[row], single.stop[0], atol=1e-5, rtol=1e-4)


def test_a_slot_used_before_speaks_like_a_fresh_one(talker):
    state, grid = TalkerState(talker, 1), talker.time_grid()
    slot = torch.zeros(1, dtype=torch.long)

    @torch.inference_mode()
    def first_patch(ids, prompt, noise):
        state.free(0)
        length = len(talker.prefill(state, 0, ids, prompt))
        return talker.step(state, slot, noise[:1], length + 1, PATCH[0], grid)

    fresh = first_patch(*sentence(1, 4))
    first_patch(*sentence(2, 7, 2))
    again = first_patch(*sentence(1, 4))
    assert_close(again.patch, fresh.patch)
    assert_close(again.samples, fresh.samples)


def test_the_cache_gives_what_reading_everything_again_gives(talker):
    ids, _, noise = sentence(5, 6)
    steps = speak(talker, [(ids, None, noise)], [0])
    with torch.inference_mode():
        embedded = torch.cat([talker.backbone.embedding(ids), *(step.next_embedding for step in steps[:3])])
        hidden = talker.backbone(embedded[None])[0]
        history = steps[2].patch
        patch = talker.sample(hidden[-1:], history, noise[3:4], talker.time_grid())
    assert_close(patch, steps[3].patch, atol=2e-5, rtol=1e-4)


def test_a_prompt_is_the_first_history(talker):
    ids, prompt, noise = sentence(6, 6, 2)
    with_other_end = prompt.clone()
    with_other_end[-1] += 1
    first, other = (speak(talker, [(ids, p, noise)], [0], 1)[0].patch for p in (prompt, with_other_end))
    assert not torch.allclose(first, other)


def test_guidance_moves_past_the_conditional_velocity(talker):
    patch, history, hidden = torch.randn(2, *PATCH), torch.randn(2, *PATCH), torch.randn(2, 64)
    time = torch.tensor(0.4)
    with torch.inference_mode():
        conditional = talker.flow(patch, time, hidden, history)
        unconditional = talker.flow(patch, time, torch.zeros_like(hidden), history)
        guided = talker.flow.guided(time[None], hidden, history, 2.0)(patch, 0)
        assert_close(guided, 3 * conditional - 2 * unconditional, atol=1e-5, rtol=1e-4)
        assert_close(talker.flow.guided(time[None], hidden, history, 0.0)(patch, 0), conditional)


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_more_flow_steps_compute_no_more_tables(guidance):
    """Times, conditions and rotary angles are the same for every patch on the way, so a step computes them once."""

    class Sines(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += function is torch.ops.aten.sin.default
            return function(*args, **(kwargs or {}))

    talker, counts = Talker(TalkerConfig(guidance=guidance)).eval(), []
    for steps in (1, 10):
        with torch.no_grad(), Sines() as sines:
            talker.sample(torch.ones(1, 64), torch.zeros(1, *PATCH), torch.zeros(1, *PATCH), talker.time_grid(steps))
        counts.append(sines.count)
    assert counts == [2, 2]  # of time and of position


def test_the_published_time_grid_is_dense_near_the_noise():
    expected = [0, 0.0048, 0.0192, 0.0431, 0.0761, 0.1685, 0.2929, 0.4444, 0.6173, 0.8049, 1]
    assert_close(speech_grid(10), torch.tensor(expected), atol=5e-5, rtol=0)
    rounded = [0, 0.0039, 0.0195, 0.0430, 0.0742, 0.1680, 0.2930, 0.4453, 0.6172, 0.8047, 1]
    assert_close(speech_grid(10, torch.bfloat16).float(), torch.tensor(rounded), atol=5e-5, rtol=0)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 9, 11, 32])
def test_any_number_of_steps_has_a_grid_from_noise_to_data(steps):
    grid = speech_grid(steps)
    assert len(grid) == steps + 1 and (grid.diff() > 0).all()
    assert (grid[0], grid[-1]) == (0, 1)


def test_reference_numerics_round_the_time_grid_and_the_rotary_tables_in_bf16_only():
    grids = {}
    for numerics in ("native", "reference"):
        talker = Talker(TalkerConfig(numerics=numerics))
        assert talker.flow.body.config.numerics == talker.backbone.config.numerics == numerics
        grids[numerics, 32], grids[numerics, 16] = talker.time_grid(), talker.to(torch.bfloat16).time_grid()
    assert torch.equal(grids["native", 32], grids["reference", 32])
    assert torch.equal(grids["native", 32], grids["native", 16])
    assert grids["reference", 16].dtype == torch.bfloat16


def test_rotation_turns_neighbouring_channels_of_the_chosen_heads_only():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).view(1, 2, 2)  # one position, two heads, two channels
    cos, sin = torch.zeros(1, 1, 2), torch.tensor([[[-1.0, 1.0]]])  # a quarter turn
    assert_close(rotate_pairs(x, cos, sin, None), torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]))
    assert_close(rotate_pairs(x, cos, sin, 1), torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))


def test_frames_that_fill_no_patch_are_dropped(talker):
    assert talker.patches(torch.zeros(11, PATCH[1])).shape == (2, *PATCH)


def test_padding_changes_no_training_loss(talker):
    ids, latents = torch.randint(160, (1, 5)), torch.randn(1, 3, *PATCH)
    padded_ids, padded = torch.zeros(1, 9, dtype=torch.long), torch.randn(1, 6, *PATCH)
    padded_ids[:, :5], padded[:, :3] = ids, latents

    def losses(ids, latents):
        g = torch.Generator().manual_seed(0)
        return talker(ids, torch.tensor([5]), latents, torch.tensor([3]), g)

    plain, with_padding = losses(ids, latents), losses(padded_ids, padded)
    assert_close(plain["flow"], with_padding["flow"], atol=1e-5, rtol=1e-5)
    assert_close(plain["stop"], with_padding["stop"], atol=1e-5, rtol=1e-5)


def test_training_reads_the_states_that_generation_has(talker):
    """With the stop head as a probe: the loss of three patches is that of the probabilities seen while speaking."""
    ids, _, noise = sentence(9, 5)
    steps = speak(talker, [(ids, None, noise)], [0], 3)
    latents = torch.cat([step.patch for step in steps])[None]
    with torch.inference_mode():
        loss = talker(ids[None], torch.tensor([5]), latents, torch.tensor([3]), torch.Generator().manual_seed(0))
    stops = torch.cat([step.stop for step in steps])
    expected = -(torch.log(1 - stops[0]) + torch.log(1 - stops[1]) + torch.log(stops[2])) / 3
    assert_close(loss["stop"], expected, atol=1e-5, rtol=1e-4)


def test_the_losses_train_every_weight_that_speaks():
    talker = Talker(TalkerConfig())
    generator = torch.Generator().manual_seed(0)
    ids, latents = torch.arange(12).view(2, 6), torch.randn(2, 4, *PATCH)
    losses = talker(ids, torch.tensor([6, 4]), latents, torch.tensor([4, 2]), generator)
    (losses["flow"] + losses["stop"]).backward()
    untrained = [
        n for n, p in talker.named_parameters() if not n.startswith("vae.") and (p.grad is None or not p.grad.any())
    ]
    assert untrained == []


def test_the_nano_talker_keeps_its_budget():
    with torch.device("meta"):
        talker = Talker(talker_nano())
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in talker.named_children()}
    assert count["vae"] <= 8e6
    assert sum(count.values()) - count["vae"] <= 16e6
    assert 2.5e6 < count["flow"] < 4e6
    assert talker.config.patch_seconds >= 0.1


def test_the_published_sizes_build():
    with torch.device("meta"):
        talker = Talker(talker_preview())
    assert talker.flow.body.embed.weight.shape == (1024, 64)


def test_a_saved_talker_speaks_the_same(talker, tmp_path):
    talker.save_pretrained(tmp_path)
    again = Talker.from_pretrained(tmp_path).eval()
    assert all(torch.equal(a, b) for a, b in zip(talker.parameters(), again.parameters(), strict=True))
    assert (again.config.flow.use_qk_norm, again.config.backbone.vocab_size) == (True, 160)
