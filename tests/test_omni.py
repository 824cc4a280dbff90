"""The whole model: media take their places, fast paths equal plain ones, and what cannot be answered is refused."""

import warnings

import pytest
import torch
from accelerate import cpu_offload
from torch.testing import assert_close
from transformers import GenerationConfig, TextStreamer

from ming_omni.config import tiny
from ming_omni.errors import InputError
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.model.sampling import Sampling
from tests.prompts import Prompts, prompt

IMAGE, WIDE, VIDEO = ("image", (1, 4, 6)), ("image", (1, 6, 10)), ("video", (2, 4, 4))
MIXED = (5, IMAGE, 3, VIDEO, 2, ("audio", 37), 1, ("audio", 22), 4)


def build(attn_implementation: str = "sdpa", **thinker) -> MingForConditionalGeneration:
    """Weights large enough that a wrong position, router or neighbour changes the answer."""
    config = tiny()
    config.thinker.initializer_range = 0.15
    for name, value in thinker.items():
        setattr(config.thinker, name, value)
    config._attn_implementation = attn_implementation
    torch.manual_seed(0)
    return MingForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def model() -> MingForConditionalGeneration:
    return build()


def answer(model, inputs, max_new_tokens=6, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (B, new) and their logits (B, new, V)."""
    steps = list(model.steps(inputs, max_new_tokens=max_new_tokens, eos_token_id=[], **options))
    return torch.stack([s.ids for s in steps], 1), torch.stack([s.logits for s in steps], 1)


@pytest.mark.parametrize("video_positions", ["published", "3d"])
@pytest.mark.parametrize("pieces", [(7,), MIXED, (1,)], ids=["text", "media", "one token"])
def test_the_cache_changes_nothing(video_positions, pieces):
    model = build(video_positions=video_positions)
    inputs = prompt(model.config, *pieces)
    cached, recomputed = answer(model, inputs), answer(model, inputs, use_cache=False)
    assert torch.equal(cached[0], recomputed[0])
    assert_close(cached[1], recomputed[1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_forward_agrees_with_the_answer_step_by_step(model):
    inputs = prompt(model.config, *MIXED)
    ids, logits = answer(model, inputs)
    whole = inputs | {"input_ids": torch.cat([inputs["input_ids"], ids[:, :-1]], 1), "attention_mask": None}
    assert_close(model(**whole).logits[:, -len(ids[0]) :], logits, atol=1e-4, rtol=1e-4)


RAGGED = [MIXED, (9,), (2, WIDE, 1), (3, ("audio", 50), 2), (1, VIDEO, IMAGE, 6)]


@pytest.mark.parametrize("video_positions", ["published", "3d"])
def test_a_ragged_batch_equals_its_prompts_one_by_one(video_positions):
    model = build(video_positions=video_positions)
    batch = Prompts(model.config)
    for pieces in RAGGED:
        batch.add(*pieces)
    ids, logits = answer(model, batch.tensors())
    again = Prompts(model.config)  # the same random numbers, drawn in the same order
    for row, pieces in enumerate(RAGGED):
        alone_ids, alone_logits = answer(model, Prompts.tensors(_only(again, pieces)))
        assert torch.equal(ids[row], alone_ids[0]), pieces
        assert_close(logits[row], alone_logits[0], atol=1e-4, rtol=1e-4)


def _only(prompts: Prompts, pieces: tuple) -> Prompts:
    """The next row of `prompts`, by itself."""
    single = Prompts(prompts.config)
    single.random = prompts.random
    return single.add(*pieces)


def test_padding_on_the_left_changes_nothing(model):
    inputs = prompt(model.config, 3, IMAGE, 4)
    padded = inputs | {
        "input_ids": torch.nn.functional.pad(inputs["input_ids"], (5, 0), value=model.config.thinker.pad_token_id),
        "attention_mask": torch.nn.functional.pad(inputs["attention_mask"], (5, 0), value=0),
    }
    assert_close(answer(model, padded), answer(model, inputs), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_eager_equals_sdpa_and_reaches_every_part(model):
    eager = build("eager")
    for part in (eager, eager.thinker, eager.vision, eager.audio):
        assert part.config._attn_implementation == "eager"
    inputs = Prompts(model.config).add(*MIXED).add(9).tensors()
    real = inputs["attention_mask"].bool()
    assert_close(eager(**inputs).logits[real], model(**inputs).logits[real], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_attention_can_be_switched_on_a_built_model(model):
    switched, inputs = build(), prompt(model.config, *MIXED)
    switched.set_attn_implementation("eager")
    assert {p.config._attn_implementation for p in (switched.thinker, switched.vision, switched.audio)} == {"eager"}
    assert_close(switched(**inputs).logits, model(**inputs).logits, atol=1e-4, rtol=1e-4)


def test_offloaded_weights_are_fetched_when_needed(model):
    offloaded, inputs = cpu_offload(build(), torch.device("cpu")), prompt(model.config, *MIXED)
    assert offloaded.device.type == "meta"
    assert_close(answer(offloaded, inputs), answer(model, inputs))


def test_flash_that_is_not_installed_becomes_sdpa_with_one_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = build("flash_attention_2")
    assert [str(w.message) for w in caught if "flash" in str(w.message)] == [
        "flash-attn is not installed: attention runs as sdpa"
    ]
    assert {part.config._attn_implementation for part in (model, model.thinker, model.vision, model.audio)} == {"sdpa"}


def test_each_token_goes_to_the_router_of_its_modality(model):
    inputs = prompt(model.config, 2, IMAGE, 1, VIDEO, ("audio", 5))
    modality = model.prepare(inputs).modality[0].tolist()
    assert modality == [0] * 3 + [1] * 6 + [0] * 3 + [1] * 8 + [0] * 2 + [2] * 2 + [0]
    assert model.prepare(prompt(model.config, 4)).modality is None


@torch.no_grad()
def test_media_tokens_stand_at_their_places(model):
    inputs = prompt(model.config, 2, IMAGE, ("audio", 5), 1)
    embeddings = model.prepare(inputs).embeddings[0]
    assert torch.equal(embeddings[3:9], model.see(inputs["pixel_values"], inputs["image_grid_thw"]))
    heard, _ = model.audio(inputs["audio_feats"], inputs["audio_feats_lengths"])
    assert torch.equal(embeddings[11:13], heard)
    text = [0, 1, 2, 9, 10, 13, 14]
    assert torch.equal(embeddings[text], model.thinker.embed(inputs["input_ids"])[0, text])


@torch.no_grad()
def test_a_clip_longer_than_its_span_is_cut_and_a_shorter_one_leaves_placeholders(model):
    inputs = prompt(model.config, 1, ("audio", 12), 1)  # 3 tokens, at 2
    heard, _ = model.audio(inputs["audio_feats"], inputs["audio_feats_lengths"])
    placeholder = model.thinker.embed(inputs["input_ids"])[0, 2]

    short_span = inputs | {"audio_placeholder_loc_lens": torch.tensor([[[2, 2]]])}
    with pytest.warns(UserWarning, match="3 tokens is cut to its span of 2"):
        cut = model.prepare(short_span)
    assert torch.equal(cut.embeddings[0, 2:5], torch.stack([heard[0], heard[1], placeholder]))

    less = {"audio_feats": inputs["audio_feats"][:, :4], "audio_feats_lengths": torch.tensor([[4]])}
    kept = model.prepare(inputs | less)
    assert torch.equal(kept.embeddings[0, 3], placeholder)
    assert kept.modality[0].tolist() == [0, 0, 2, 2, 2, 0, 0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"pixel_values": None}, "6 image tokens"),
        ({"pixel_values_videos": None}, "8 video tokens"),
        ({"image_grid_thw": None}, "grids"),
        ({"image_grid_thw": torch.tensor([[1, 4, 4]])}, "(16, 1176)"),
        ({"video_grid_thw": torch.tensor([[1, 4, 4]])}, "32"),
        ({"audio_feats_lengths": torch.tensor([[37, 23]])}, "60"),
        ({"audio_feats_lengths": None}, "lengths"),
        ({"audio_placeholder_loc_lens": None}, "spans"),
        ({"audio_placeholder_loc_lens": torch.tensor([[[29, 10]]])}, "1 audio clips, 2"),
        ({"audio_placeholder_loc_lens": torch.tensor([[[29, 10], [33, 6]]])}, "(33, 6)"),
        ({"audio_placeholder_loc_lens": torch.tensor([[[29, 10], [52, 6]]])}, "(52, 6)"),
        ({"audio_placeholder_loc_lens": torch.tensor([[[6, 10], [42, 6]]])}, "same place"),
    ],
)
def test_media_that_do_not_fit_the_prompt_are_refused(model, change, complaint):
    with pytest.raises(InputError, match=complaint.replace("(", r"\(").replace(")", r"\)")):
        model.steps(prompt(model.config, *MIXED) | change)


@pytest.mark.parametrize("part", ["vision", "audio"])
def test_a_model_without_an_encoder_says_so(part):
    config = tiny()
    setattr(config, part, None)
    model = MingForConditionalGeneration(config)
    with pytest.raises(InputError, match=f"without its {part}"):
        model.prepare(prompt(tiny(), *MIXED))
    assert model.prepare(prompt(tiny(), 5)).embeddings.shape == (1, 5, 64)


def test_generate_returns_prompts_and_answers(model):
    batch = Prompts(model.config).add(*MIXED).add(9).tensors()
    ids, _ = answer(model, batch)
    generated = model.generate(**batch, max_new_tokens=6, use_cache=True, num_logits_to_keep=1, eos_token_id=[])
    assert torch.equal(generated, torch.cat([batch["input_ids"], ids], 1))


def test_a_row_that_has_ended_is_padded_while_others_go_on(model):
    batch = Prompts(model.config).add(*MIXED).add(9).tensors()
    ids, _ = answer(model, batch)
    end, pad = ids[0, 1].item(), model.config.thinker.pad_token_id
    assert end not in ids[0, :1] and end not in ids[1]
    generated = model.generate(**batch, max_new_tokens=6, eos_token_id=end)[:, -6:]
    assert generated[0].tolist() == [*ids[0, :2].tolist(), pad, pad, pad, pad]
    assert torch.equal(generated[1], ids[1])


def test_generation_stops_when_every_row_has_ended(model):
    inputs = prompt(model.config, 9)
    ids, _ = answer(model, inputs)
    generated = model.generate(**inputs, max_new_tokens=6, eos_token_id=[5, ids[0, 2].item()])
    assert torch.equal(generated[0, 9:], ids[0, :3])
    model.config.thinker.eos_token_id, saved = ids[0, 0].item(), model.config.thinker.eos_token_id
    try:  # the model's own end token is the default
        assert model.generate(**inputs, max_new_tokens=6).shape == (1, 10)
    finally:
        model.config.thinker.eos_token_id = saved


def test_a_seed_gives_the_same_answer_in_any_batch(model):
    sampling = [Sampling(temperature=0.8, top_p=0.9, seed=seed) for seed in (1, 2, 3)]
    batch = Prompts(model.config).add(9).add(4).add(12).tensors()
    together, _ = answer(model, batch, sampling=sampling)
    again = Prompts(model.config)
    for row, pieces in enumerate([(9,), (4,), (12,)]):
        alone, _ = answer(model, Prompts.tensors(_only(again, pieces)), sampling=sampling[row])
        assert torch.equal(together[row], alone[0])
    inputs = prompt(model.config, 9)
    options = {"do_sample": True, "temperature": 1.5, "max_new_tokens": 8, "eos_token_id": []}
    assert torch.equal(model.generate(**inputs, **options, seed=4), model.generate(**inputs, **options, seed=4))
    assert not torch.equal(model.generate(**inputs, **options, seed=4), model.generate(**inputs, **options, seed=5))


def test_a_temperature_without_sampling_is_greedy(model):
    inputs = prompt(model.config, 9)
    greedy = model.generate(**inputs, max_new_tokens=4, eos_token_id=[])
    assert torch.equal(
        model.generate(**inputs, max_new_tokens=4, eos_token_id=[], do_sample=False, temperature=5), greedy
    )


def test_padding_does_not_count_as_repetition(model):
    inputs = prompt(model.config, 9)
    favourite = answer(model, inputs, max_new_tokens=1)[0].item()
    padded = {
        "input_ids": torch.nn.functional.pad(inputs["input_ids"], (3, 0), value=favourite),
        "attention_mask": torch.nn.functional.pad(inputs["attention_mask"], (3, 0), value=0),
    }
    sampling = Sampling(repetition_penalty=5.0)
    expected, _ = answer(model, inputs, sampling=sampling)
    assert torch.equal(answer(model, padded, sampling=sampling)[0], expected)


def test_a_penalty_on_the_answer_alone_keeps_the_words_of_the_question_likely(model):
    inputs = {"input_ids": torch.arange(32, 280)[None]}
    likeliest = answer(model, inputs, max_new_tokens=1)[0].item()
    assert likeliest in inputs["input_ids"]
    strong = {"repetition_penalty": 50.0}
    assert answer(model, inputs, max_new_tokens=1, sampling=Sampling(**strong))[0].item() != likeliest
    told = answer(model, inputs, max_new_tokens=12, sampling=Sampling(**strong, penalize_prompt=False))[0][0]
    assert told[0].item() == likeliest
    assert len(told.unique()) == len(told)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_beams": 2}, "num_beams"),
        ({"generation_config": GenerationConfig(num_beams=3)}, "num_beams"),
        ({"generation_config": GenerationConfig(no_repeat_ngram_size=10)}, "no_repeat_ngram_size"),
        ({"max_new_tokens": 1.5}, "max_new_tokens is a whole number"),
        ({"max_new_tokens": -1}, "max_new_tokens is a whole number"),
        ({"attention_mask": torch.ones(1, 3)}, r"attention_mask is \(1, 3\)"),
        ({"input_ids": [[1, 2]]}, "input_ids is a tensor"),
        ({"input_ids": torch.tensor([1, 2])}, "input_ids is a tensor"),
        ({"input_ids": torch.zeros(1, 2)}, "input_ids is a tensor"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.long)}, "input_ids is a tensor"),
        ({"max_lenght": 3}, "max_lenght"),
        ({"image_gen": True}, "load_image_gen=True"),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_generate_refuses_what_it_cannot_do(model, options, complaint):
    with pytest.raises(InputError, match=complaint):
        model.generate(**prompt(model.config, 4) | options)


def test_a_generation_config_counts_where_the_call_says_nothing(model):
    ids = prompt(model.config, 5)["input_ids"]
    config = GenerationConfig(max_new_tokens=3, do_sample=True, temperature=2.0, top_k=40, eos_token_id=[])
    whole = model.generate(ids, generation_config=config, seed=1)
    said = {"do_sample": True, "temperature": 2.0, "top_k": 40, "eos_token_id": []}
    assert torch.equal(whole, model.generate(ids, max_new_tokens=3, seed=1, **said))
    greedy = model.generate(ids, generation_config=config, max_new_tokens=5, do_sample=False)
    assert torch.equal(greedy, model.generate(ids, max_new_tokens=5, eos_token_id=[]))


def test_generate_takes_the_painting_options_that_the_processor_adds(model):
    inputs = prompt(model.config, 4) | {"image_gen_text": ["A"], "image_gen_height": torch.tensor([512])}
    assert model.generate(**inputs, num_beams=1, max_new_tokens=2, eos_token_id=[]).shape == (1, 6)


def test_parts_that_were_not_loaded_name_what_they_take(model):
    with pytest.raises(InputError, match="load_talker=True"):
        model.require("talker")
    assert model.require("vision") is model.vision


def test_a_streamer_receives_the_prompt_then_each_token(model):
    class Letters:
        def decode(self, ids, **_):
            return "".join(chr(65 + i % 26) for i in ids)

    class Kept(TextStreamer):
        text = ""

        def on_finalized_text(self, text, stream_end=False):
            self.text += text

    inputs, streamer = prompt(model.config, 4), Kept(Letters(), skip_prompt=True)
    generated = model.generate(**inputs, max_new_tokens=5, eos_token_id=[], streamer=streamer)
    assert streamer.text == Letters().decode(generated[0, 4:].tolist())


def test_a_prompt_over_the_limit_is_refused_and_an_answer_ends_at_it():
    model = build(max_position_embeddings=12)
    with pytest.raises(InputError, match="12 tokens long"):
        model.steps(prompt(model.config, 12))
    assert model.generate(**prompt(model.config, 9), max_new_tokens=50, eos_token_id=[]).shape == (1, 12)


def test_padding_on_the_right_cannot_be_continued(model):
    inputs = {"input_ids": torch.tensor([[40, 41, 28]]), "attention_mask": torch.tensor([[1, 1, 0]])}
    with pytest.raises(InputError, match="left"):
        model.steps(inputs)


@torch.no_grad()
def test_forward_keeps_the_logits_asked_for_and_honours_given_positions(model):
    inputs = prompt(model.config, *MIXED)
    everything = model(**inputs).logits
    assert_close(model(**inputs, num_logits_to_keep=2).logits, everything[:, -2:])
    places = model.prepare(inputs).positions
    assert torch.equal(model(**inputs, position_ids=places).logits, everything)
    assert not torch.allclose(model(**inputs, position_ids=places.flip(-1)).logits, everything)


@torch.no_grad()
def test_the_loss_predicts_each_next_token(model):
    inputs = prompt(model.config, 6)
    ids = inputs["input_ids"]
    labels = ids.clone()
    labels[0, :3] = -100
    output = model(**inputs, labels=labels, output_hidden_states=True, output_router_logits=True)
    logprobs = output.logits.log_softmax(-1)[0]
    assert_close(output.loss, -torch.stack([logprobs[i - 1, ids[0, i]] for i in (3, 4, 5)]).mean())
    assert len(output.hidden_states) == model.config.thinker.num_hidden_layers + 1
    assert len(output.routing) == model.config.thinker.num_hidden_layers - model.config.thinker.num_dense_layers
    assert model(**inputs).keys() == {"logits"}


def test_gradients_reach_every_part_and_are_the_same_with_checkpointing():
    gradients = []
    for is_checkpointed in (False, True):
        model = build().train()
        if is_checkpointed:
            model.gradient_checkpointing_enable()
            assert model.thinker.layers[0].gradient_checkpointing and model.audio.layers[0].gradient_checkpointing
        inputs = prompt(model.config, *MIXED)
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        watched = (model.thinker.layers[0].attention.qkv, model.vision.patch_embedding, model.audio.conv1)
        gradients.append([module.weight.grad for module in watched])
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])
    assert_close(*gradients)


def test_no_request_leaves_a_trace_on_the_model(model):
    inputs = prompt(model.config, 9)
    before = answer(model, inputs)
    answer(model, prompt(model.config, *MIXED, seed=3))
    interrupted = iter(model.steps(prompt(model.config, *MIXED)))
    next(interrupted)
    assert_close(answer(model, inputs), before, atol=0, rtol=0)


def test_a_saved_model_answers_the_same(tmp_path, model):
    model.save_pretrained(tmp_path)
    loaded = MingForConditionalGeneration.from_pretrained(tmp_path)
    inputs = prompt(model.config, *MIXED)
    assert_close(answer(loaded, inputs), answer(model, inputs), atol=1e-5, rtol=1e-5)


def test_tied_embeddings_are_one_tensor_and_saved_once(tmp_path):
    model = build(tie_word_embeddings=True)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path)
    loaded = MingForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.thinker.head.weight is loaded.thinker.embedding.weight
    assert_close(loaded.thinker.head.weight, model.thinker.head.weight)


def test_layers_of_every_part_stay_whole_on_one_device(model):
    assert set(model._no_split_modules) >= {"ThinkerLayer", "VisionLayer", "AudioLayer"}


@torch.no_grad()
def test_media_in_another_dtype_are_taken_as_they_come():
    model = build().bfloat16()
    inputs = prompt(model.config, *MIXED)
    low = {key: value.bfloat16() if value.is_floating_point() else value for key, value in inputs.items()}
    assert torch.equal(model(**inputs).logits, model(**low).logits)
    assert model(**inputs).logits.dtype == torch.bfloat16


@pytest.mark.gpu
def test_a_gpu_answers_as_the_cpu_does(model):
    batch = Prompts(model.config).add(*MIXED).add(9).add(2, WIDE, 1).tensors()
    sampling = [Sampling(), Sampling(temperature=0.7, top_p=0.9, seed=1), Sampling(repetition_penalty=1.3, banned=(5,))]
    expected = answer(model, batch, sampling=sampling)
    on_gpu = build().cuda()
    for placed in (batch, {key: value.cuda() for key, value in batch.items()}):
        ids, logits = answer(on_gpu, placed, sampling=sampling)
        assert torch.equal(ids.cpu(), expected[0])
        assert_close(logits.cpu(), expected[1], atol=1e-3, rtol=1e-3)
