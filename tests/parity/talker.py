"""Set `talker`: language model, flow head, stop head, aggregator, AudioVAE whole and streaming (spec 7, 7.5)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ming_omni.checkpoint import talker as checkpoint
from ming_omni.model.audio_vae import AudioVAE, DecodeStream
from ming_omni.model.flow import speech_grid, uneven_times
from ming_omni.model.talker import Talker, TalkerState
from tests.parity import Check, difference, keys, same, tensors


def matches(folder: Path) -> bool:
    return any("cfm.model.x_embedder.weight" in keys(file) for file in folder.glob("model*.safetensors"))


def compare(folder: Path) -> Iterator[Check]:
    inputs, expected = tensors(folder / "inputs.safetensors"), tensors(folder / "outputs.safetensors")
    # Whatever the weights are stored in, the numbers were computed in this.
    talker = checkpoint.load(folder, dtype=expected["noprompt.prefill_hidden"].dtype)
    seen = []
    for check in _all(talker, inputs, expected):
        seen.append(check.key)
        yield check
    yield same("every recorded key is compared", sorted(expected.keys() - set(seen)), [])


def _all(talker: Talker, inputs: dict[str, Tensor], expected: dict[str, Tensor]) -> Iterator[Check]:
    prompt = talker.patches(inputs["prompt_wav_latent"][0])
    yield from _spoken("noprompt", talker, inputs, expected, None)
    embedded = talker.aggregator(prompt)[None]
    yield difference("prompt.prompt_emb", embedded, expected["prompt.prompt_emb"], 1e-4)
    yield from _spoken("prompt", talker, inputs, expected, prompt)
    yield from _flow_head(talker, prompt[-1:], inputs, expected)
    yield from _times(expected)
    yield from _vae(talker.vae, inputs, expected)


def _spoken(kind: str, talker: Talker, inputs: dict, expected: dict, prompt: Tensor | None) -> Iterator[Check]:
    """The generation loop with the recorded noise, one sentence."""
    state, slot = TalkerState(talker, 1), torch.zeros(1, dtype=torch.long)
    hidden = talker.prefill(state, 0, inputs["text_prefix_ids"][0], prompt)
    yield difference(f"{kind}.prefill_hidden", hidden[None], expected[f"{kind}.prefill_hidden"], 1e-4)
    length, grid = hidden.shape[0], talker.time_grid()
    for i, noise in enumerate(inputs["cfm_noise"]):
        key, is_first = f"{kind}.step{i}", i == 0
        before = state.hidden[None].clone()
        num_latents = (i + 1) * noise.shape[1]
        step = talker.step(state, slot, noise, length + i + 1, num_latents, grid)
        stop = torch.stack([1 - step.stop, step.stop], -1)
        yield difference(f"{key}.hidden", before, expected[f"{key}.hidden"], 1e-4 if is_first else 5e-4)
        yield difference(f"{key}.latent", step.patch, expected[f"{key}.latent"], 2e-4 if is_first else 1e-3)
        yield difference(
            f"{key}.next_embed", step.next_embedding[None], expected[f"{key}.next_embed"], 2e-4 if is_first else 1e-3
        )
        yield difference(f"{key}.stop_prob", stop, expected[f"{key}.stop_prob"], 1e-4)


def _flow_head(talker: Talker, history: Tensor, inputs: dict, expected: dict) -> Iterator[Check]:
    """One call at t = 0.3 on what step 0 with the prompt sees."""
    hidden, noise, time = expected["prompt.step0.hidden"][0], inputs["cfm_noise"][0], torch.tensor(0.3)
    whole = talker.flow.outputs(noise, time, hidden, history)
    yield difference("dit.single_t0p3", whole, expected["dit.single_t0p3"], 1e-4)
    pair = [talker.flow(noise, time, h, history) for h in (hidden, torch.zeros_like(hidden))]
    yield difference("dit.cfg_pair_t0p3", torch.cat(pair), expected["dit.cfg_pair_t0p3"], 1e-4)


def _times(expected: dict[str, Tensor]) -> Iterator[Check]:
    for key, value in expected.items():
        if match := re.fullmatch(r"timesteps(_swayed)?\.(\d+)", key):
            times = (speech_grid if match[1] else uneven_times)(int(match[2]))
            yield difference(key, times, value, 1e-6)


def _vae(vae: AudioVAE, inputs: dict, expected: dict) -> Iterator[Check]:
    posterior = vae.encode(inputs["vae_waveform_16k"])
    noise = inputs["vae_posterior_noise_bdt"].transpose(1, 2)
    yield difference("vae.encoder_out", _raw(vae, inputs["vae_waveform_16k"]), expected["vae.encoder_out"], 1e-4)
    yield difference("vae.latent_mean", posterior.mean, expected["vae.latent_mean"], 1e-4)
    yield difference("vae.latent_std", posterior.std, expected["vae.latent_std"], 1e-4)
    sampled = posterior.mean + posterior.std * noise
    yield difference("vae.latent_sampled", sampled, expected["vae.latent_sampled"], 1e-4)
    latents = inputs["vae_decode_latent"]
    yield difference("vae.decode_full", vae.decode(latents)[:, None], expected["vae.decode_full"], 1e-5)
    single = DecodeStream(vae).feed(latents, is_last=True)
    yield difference("vae.stream_single_last_chunk", single[:, None], expected["vae.stream_single_last_chunk"], 1e-5)
    for kind in ("stream", "stream_uneven"):
        yield from _stream(kind, vae, latents, expected)


def _raw(vae: AudioVAE, samples: Tensor) -> Tensor:
    """The encoder's output before it is read as mean and spread."""
    outputs = []
    handle = vae.encoder.register_forward_hook(lambda module, args, out: outputs.append(out))
    vae.encode(samples)
    handle.remove()
    return outputs[0]


def _stream(kind: str, vae: AudioVAE, latents: Tensor, expected: dict[str, Tensor]) -> Iterator[Check]:
    """Pieces as long as the recorded chunks: the first is 1.5 hops short, the last 1.5 hops long."""
    count = sum(key.startswith(f"vae.{kind}.chunk") for key in expected)
    lengths = [expected[f"vae.{kind}.chunk{i}"].shape[-1] for i in range(count)]
    lengths[0] += vae.trim
    lengths[-1] -= vae.trim
    stream, chunks = DecodeStream(vae), []
    pieces = latents.split([length // vae.config.hop_samples for length in lengths], 1)
    for i, piece in enumerate(pieces):
        chunks.append(stream.feed(piece, is_last=i == count - 1)[:, None])
        yield difference(f"vae.{kind}.chunk{i}", chunks[-1], expected[f"vae.{kind}.chunk{i}"], 1e-5)
    if f"vae.{kind}.concat" in expected:
        yield difference(f"vae.{kind}.concat", torch.cat(chunks, -1), expected[f"vae.{kind}.concat"], 1e-5)
