"""The causal transformer of talker and AudioVAE: transformers' Qwen2 with our names, and a cache of slots."""

import pytest
import torch
from torch.testing import assert_close
from transformers import Qwen2Config, Qwen2Model

from ming_omni.checkpoint.talker import QWEN2, _published, _rows
from ming_omni.config import BackboneConfig
from ming_omni.model.backbone import Backbone, SlotCache


class Holder(torch.nn.Module):
    """The loader finds parameters by their path from a root."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(4, 2, None), (4, 4, None), (6, 1, None), (2, 1, 24)])
def test_it_is_qwen2(heads, kv_heads, head_dim):
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": heads, "num_key_value_heads": kv_heads}
    extra = {"head_dim": head_dim} if head_dim else {}
    theirs = Qwen2Model(Qwen2Config(vocab_size=4, rope_theta=5_000.0, **sizes, **extra)).eval()
    ours = Backbone(BackboneConfig(head_dim=head_dim, rope_theta=5_000.0, **sizes)).eval()
    for parameter in theirs.parameters():
        parameter.data.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.1)
    weights, root = theirs.state_dict(), Holder(ours)
    for name, _ in ours.named_parameters():
        for part in range(3 if ".qkv." in name else 1):
            source = weights[_published(name, part, QWEN2)]
            _rows(root, f"backbone.{name}", part).data.copy_(source)
    x = torch.randn(2, 9, 48)
    with torch.inference_mode():
        assert_close(ours(x), theirs(inputs_embeds=x).last_hidden_state, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_rows_of_different_length_grow_in_their_slots_as_if_alone():
    torch.manual_seed(0)
    config = BackboneConfig()
    backbone = Backbone(config).eval()
    first, second = torch.randn(1, 7, 48), torch.randn(1, 4, 48)
    cache = SlotCache(config, 3, 2, first)
    backbone(first[:, :5], cache.rows(torch.tensor([2]), 5))
    backbone(second[:, :2], cache.rows(torch.tensor([0]), 2))
    both = torch.cat([second[:, 2:], first[:, 5:]])
    grown = backbone(both, cache.rows(torch.tensor([0, 2]), 7))
    assert cache.lengths.tolist() == [4, 0, 7]
    assert cache.capacity >= 7
    assert_close(grown[0], backbone(second)[0, 2:], atol=1e-5, rtol=1e-4)
    assert_close(grown[1], backbone(first)[0, 5:], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_freed_slot_has_no_memory():
    config = BackboneConfig()
    backbone, x = Backbone(config).eval(), torch.randn(1, 3, 48)
    cache, slot = SlotCache(config, 1, 8, x), torch.tensor([0])
    backbone(torch.randn(1, 5, 48), cache.rows(slot, 5))
    cache.free(0)
    assert_close(backbone(x, cache.rows(slot, 3)), backbone(x), atol=1e-5, rtol=1e-4)
