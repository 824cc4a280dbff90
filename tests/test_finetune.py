"""examples/finetune: each worked example, from a user's folder to a model that has learned what the folder holds."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image

from ming_omni import checkpoint
from ming_omni.inputs.messages import Audio, Message, Text
from ming_omni.inputs.processor import MingProcessor
from ming_omni.model.painter import Guidance
from ming_omni.model.painting import read_states
from ming_omni.train import log, parts, words
from ming_omni.train.batches import DataSet
from ming_omni.train.command import train_command
from ming_omni.train.examples import Reader
from ming_omni.train.folder import read as read_folder
from ming_omni.train.recipe import DataSettings, WordSettings, read

EXAMPLES = Path(__file__).parent.parent / "examples" / "finetune"
QUIET = ["output.tensorboard=false", "output.save_every=1000"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("my-data")
    runpy.run_path(str(EXAMPLES / "make_folders.py"))["main"](root)
    return root


def learn(name: str, data: Path, output: Path, *sets: str) -> tuple[list[dict], str]:
    """Train as the example says; rows of the log, and the recipe's file."""
    recipe = EXAMPLES / f"{name}.toml"
    [data_set] = read(recipe).data
    train_command(recipe, [f"data.{data_set}.folder={data / name}", *QUIET, *sets], False, False, output)
    return log.read(output), str(recipe)


def falls(rows: list[dict], name: str) -> float:
    """The mean of the last five steps, as a share of the first step."""
    return sum(row[name] for row in rows[-5:]) / 5 / rows[0][name]


def test_domain_words_are_transcribed_through_an_adapter_and_merged(data, tmp_path):
    rows, recipe = learn("domain_words", data, tmp_path)
    assert falls(rows, "loss/answer") < 0.25
    processor = MingProcessor.from_pretrained(tmp_path / "model")
    recording = str(data / "domain_words" / "Kelvox.wav")
    listed = words.prompt(["Kelvox", "Tulexa"])
    inputs = processor.prepare([Message("user", [Text(listed), Audio(recording)])])
    merged = checkpoint.load(tmp_path / "model").eval()
    with torch.inference_mode():
        ids = merged.generate(**inputs, max_new_tokens=30, eos_token_id=processor.gen_terminator)
    answer = processor.decode(ids[0, inputs["input_ids"].shape[1] :])
    assert answer.startswith("English\ttake "), answer

    fresh, _ = parts.load(read(recipe).model)
    fresh.audio.load_state_dict(merged.audio.state_dict())  # learned whole, beside the adapter
    adapted = PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
    with torch.inference_mode():
        torch.testing.assert_close(adapted(**inputs).logits, merged(**inputs).logits, atol=1e-3, rtol=1e-3)


def test_a_new_voice_is_nearer_to_its_recordings(data, tmp_path):
    rows, recipe = learn("new_voice", data, tmp_path)
    assert falls(rows, "loss/speak") < 0.75 and rows[-1]["loss/stop"] < 0.05
    fresh, processor = parts.load(read(recipe).model)
    trained = checkpoint.load(tmp_path / "model", load_talker=True)
    trained.talker.tokenizer = fresh.talker.tokenizer
    distances = [first_patch_distance(model, processor, data / "new_voice") for model in (fresh, trained)]
    assert distances[1] < 0.8 * distances[0]


@torch.inference_mode()
def first_patch_distance(model, processor, folder: Path) -> float:
    """How far the first patch that the talker speaks lies from the recording's."""
    talker, (lines, _) = model.talker.eval(), read_folder(folder)
    reader = Reader(model, processor, DataSettings(str(folder)), WordSettings(), lines, 0)
    batch, _ = DataSet("voice", DataSettings(str(folder), examples_per_step=4), lines, reader, "stop").batch(0)
    target = talker.vae.encode(batch.samples).mean[:, : talker.config.patch_frames]
    hidden = talker.backbone(talker.backbone.embedding(batch.ids))
    hidden = hidden[torch.arange(4), batch.text_lengths - 1]
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    spoken = talker.sample(hidden, torch.zeros_like(target), noise, talker.time_grid())
    return float((spoken - target).square().mean())


def test_a_picture_style_is_painted(data, tmp_path):
    rows, recipe = learn("picture_style", data, tmp_path)
    assert falls(rows, "loss/paint") < 0.75
    fresh, processor = parts.load(read(recipe).model)
    trained = checkpoint.load(tmp_path / "model", load_image_gen=True)
    inputs = processor.prepare("a barn in the style of stripes")
    distances = [painted_distance(model, inputs, data / "picture_style" / "0.png") for model in (fresh, trained)]
    assert distances[1] < 0.8 * distances[0]


@torch.inference_mode()
def painted_distance(model, inputs, path: Path) -> float:
    """How far the latents of a painted picture lie from those of the picture that was learned."""
    painter = model.painter.eval()
    pixels = torch.from_numpy(np.array(Image.open(path).resize((32, 32)))).permute(2, 0, 1)[None] / 127.5 - 1
    condition = painter.condition(read_states(model, inputs))
    *_, last = painter.sample(condition, size=(32, 32), seeds=[0], num_steps=10, guidance=Guidance(1.5))
    return float((last.latents - painter.vae.encode(pixels.float())).square().mean())
