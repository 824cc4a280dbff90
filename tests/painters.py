"""Small painters for tests. A new one paints nothing but noise, because its branches start closed; these are open."""

import torch
from torch import nn

from ming_omni.config import tiny
from ming_omni.config import tiny_painter as tiny_config
from ming_omni.model.dit import Closed
from ming_omni.model.omni import MingForConditionalGeneration
from ming_omni.model.painter import Painter


def open_up(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(part, Closed):
            nn.init.normal_(part.weight, std=0.1)
    return module.eval()


def tiny_painter(**settings) -> Painter:
    torch.manual_seed(0)
    config = tiny_config()
    for name, value in settings.items():
        setattr(config, name, value)
    return open_up(Painter(config))


def tiny_model(**settings) -> MingForConditionalGeneration:
    """The whole tiny model with its painter."""
    torch.manual_seed(0)
    model = MingForConditionalGeneration(tiny()).eval()
    model.painter = tiny_painter(**settings)
    return model
