"""LoRA from peft on the whole model: it attaches to attention, learns, saves, and merges back."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.testing import assert_close

from ming_omni.config import tiny
from ming_omni.model.omni import MingForConditionalGeneration
from tests.prompts import prompt

TARGETS = {
    "thinker": r"thinker\.layers\.\d+\.attention\.(qkv|out)",
    "encoders": r"(vision|audio)\.layers\.\d+\.attention\.(qkv|query|value|out)",
}
PIECES = (5, ("image", (1, 4, 6)), 3, ("audio", 37), 4)


def build() -> MingForConditionalGeneration:
    config = tiny()
    config.thinker.initializer_range = 0.15
    torch.manual_seed(0)
    return MingForConditionalGeneration(config)


def learn(model: PeftModel, num_steps: int) -> list[float]:
    """Losses of a few steps on one prompt."""
    inputs = prompt(model.config, *PIECES)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(num_steps):
        loss = model(**inputs, labels=inputs["input_ids"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("part", TARGETS)
def test_lora_learns_saves_and_merges_back(part, tmp_path):
    base = build()
    model = get_peft_model(base, LoraConfig(r=4, target_modules=TARGETS[part], init_lora_weights=True))
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trainable and all("attention" in name and "lora_" in name for name in trainable)
    frozen = base.thinker.layers[1].mlp.experts.gate.clone()
    losses = learn(model, 5)
    assert losses[-1] < losses[0]
    assert torch.equal(base.thinker.layers[1].mlp.experts.gate, frozen)

    inputs = prompt(base.config, *PIECES)
    with torch.no_grad():
        adapted = model(**inputs).logits
        model.save_pretrained(tmp_path)
        reloaded = PeftModel.from_pretrained(build(), tmp_path)
        assert_close(reloaded(**inputs).logits, adapted, atol=1e-5, rtol=1e-4)
        merged = model.merge_and_unload()
        assert isinstance(merged, MingForConditionalGeneration)
        assert not any("lora_" in name for name, _ in merged.named_parameters())
        assert_close(merged(**inputs).logits, adapted, atol=1e-4, rtol=1e-4)
        assert (build()(**inputs).logits - adapted).abs().max() > 1e-3


def test_lora_trains_with_gradient_checkpointing():
    """Frozen embeddings carry no gradient; checkpointing must not lose the adapters' own."""
    base = build()
    model = get_peft_model(base, LoraConfig(r=4, target_modules=TARGETS["thinker"]))
    base.gradient_checkpointing_enable()
    base.enable_input_require_grads()
    losses = learn(model, 4)
    assert losses[-1] < losses[0]


def test_an_adapted_model_generates():
    model = get_peft_model(build(), LoraConfig(r=4, target_modules=TARGETS["thinker"]))
    inputs = prompt(model.config, *PIECES)
    generated = model.generate(**inputs, max_new_tokens=3, eos_token_id=[])
    assert torch.equal(generated, build().generate(**inputs, max_new_tokens=3, eos_token_id=[]))
