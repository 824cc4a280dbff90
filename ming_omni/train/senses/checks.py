"""Before a run: the feed against the processor, the network against the model, the device against the CPU."""

from __future__ import annotations

from copy import deepcopy

import torch
from PIL import Image as Pillow
from torch import Tensor

from ming_omni.data.render import render
from ming_omni.data.splits import generator
from ming_omni.inputs.messages import Audio, Image, Message, Text
from ming_omni.train import words
from ming_omni.train.senses import ears, eyes, looks
from ming_omni.train.senses.bench import Bench, make_pictures, make_sounds
from ming_omni.train.senses.learner import Moved, on_device
from ming_omni.train.senses.network import Rows
from ming_omni.train.senses.rows import collate

PIXEL = 2.5 / 255 / 0.26
"""Two steps of 255, and a little, in units of the patches: Pillow rounds between rows and columns."""
TOLERANCE = {"cpu": 1e-4, "cuda": 0.2}
"""Of logits and losses: fp32, and bf16 against fp32 or against bf16 in another order (0.07 after a run)."""


def check(bench: Bench) -> dict[str, float]:
    """Differences, none of which may be large."""
    found = {}
    if "pictures" in bench.settings.kinds:
        found |= pictures(bench)
    if "speech" in bench.settings.kinds:
        found |= speech(bench)
    return found


def pictures(bench: Bench) -> dict[str, float]:
    """A picture with one turn: ids, patches and logits as the product's own path has them; losses as on the CPU."""
    maker = make_pictures(bench.settings, "pictures")
    numbers = generator(bench.settings.seed, "check")
    scene, asked = maker.scene(numbers, False)
    question, answer = asked[0]
    drawn = render(maker.stock.bank, [scene], maker.size).pictures
    picture = Pillow.fromarray(drawn[0].permute(1, 2, 0).numpy())
    inputs = bench.processor.prepare([Message("user", [Image(picture), Text(question)])], answer_start=answer)
    row = maker.writer.with_turns(maker.beginning, [maker.writer.turn(question, answer)], 10_000)
    assert row.ids == inputs["input_ids"][0].tolist(), "the feed writes other ids than the processor"
    sizes = bench.learner.sizes
    patches = eyes.still_patches(drawn.to(bench.device), sizes.still_sizes, bench.processor.image_processor)
    pixel = float((patches.cpu() - inputs["pixel_values"]).abs().max())
    assert pixel < PIXEL, f"the feed's patches differ from the processor's by {pixel}"
    batch = collate("pictures", [row], len(row), 0, 1)
    batch.media["pictures"] = drawn.numpy()
    batch.media["cells"] = maker.labels.cells(maker.stock, scene, maker.side)[None]
    moved = on_device(batch, bench.device, None, bench.num_mel_bins)
    with torch.no_grad(), bench.learner.autocast():
        tokens, _ = bench.learner.eyes(inputs["pixel_values"].to(bench.device), 1, sizes.still_grid)
    return {
        "check/pixel": pixel,
        **_logits(bench, "pictures", moved.rows, tokens, inputs),
        **_losses(bench, moved),
    }


def speech(bench: Bench) -> dict[str, float]:
    """The first clip, as it is, likewise."""
    maker = make_sounds(bench.settings, bench.makers["speech"].args[1])
    clip = min(maker.clips, key=lambda clip: abs(clip.length - 32_000))
    samples = bench.store[clip.start : clip.start + clip.length]
    parts = [Text(words.prompt(clip.context)), Audio(looks.wav(samples.cpu().numpy().astype("float32") / 32768))]
    inputs = bench.processor.prepare([Message("user", parts)], answer_start=clip.answer)
    count = maker.processor.num_tokens(max(clip.length, 201) // 160)
    row = maker.writer.listening(words.prompt(clip.context), count, clip.answer)
    assert row.ids == inputs["input_ids"][0].tolist(), "the feed writes other ids than the processor"
    lengths = torch.tensor([clip.length], device=bench.device)
    mels = ears.log_mels(samples[None].float() / 32768, lengths, bench.num_mel_bins)
    wanted = inputs["audio_feats"]
    mel = float((mels[:, : wanted.shape[1]].cpu() - wanted).abs().max())
    assert mel < 1e-2, f"the feed's mel frames differ from the processor's by {mel}"
    batch = collate("speech", [row], len(row), 0, 1)
    moved = on_device(batch, bench.device, bench.store, bench.num_mel_bins)
    with torch.no_grad(), bench.learner.autocast():
        tokens = bench.learner.ears(bench.learner.ears.encode(mels, ears.num_frames(lengths)))
    return {"check/mel": mel, **_logits(bench, "speech", moved.rows, tokens, inputs)}


def _logits(bench: Bench, kind: str, rows: Rows, media: Tensor, inputs) -> dict[str, float]:
    """The network's logits against the model's."""
    asked = {name: value.to(bench.device) for name, value in inputs.items() if isinstance(value, Tensor)}
    with torch.no_grad():
        ours = bench.learner.network.logits(bench.learner.network((rows, media)).hidden).float()
        with bench.learner.merged() as model, bench.learner.autocast():
            theirs = model(**asked).logits[0].float()
    difference = float((ours - theirs).norm() / theirs.norm())
    assert difference < TOLERANCE[bench.device.type], f"the network differs from the model by {difference}"
    return {f"check/network/{kind}": difference}


def _losses(bench: Bench, batch: Moved) -> dict[str, float]:
    """Losses on the device against losses on the CPU in fp32."""
    if bench.device.type == "cpu":
        return {}
    twin = deepcopy(bench.learner).float().cpu()
    twin.biases = None
    cpu = torch.device("cpu")
    here = Moved(
        batch.kind,
        Rows(*(value if value is None else value.to(cpu) for value in vars(batch.rows).values())),
        batch.asked.to(cpu),
        batch.answers.to(cpu),
        {name: value.to(cpu) for name, value in batch.media.items()},
    )
    with torch.no_grad():
        found, wanted = (float(learner([own])[batch.kind]) for learner, own in ((bench.learner, batch), (twin, here)))
    difference = abs(found - wanted) / max(1.0, wanted)  # what is known by heart has next to no loss
    assert difference < TOLERANCE["cuda"], f"{batch.kind} on the device: {found}, on the CPU: {wanted}"
    return {f"check/{batch.kind}": difference}
