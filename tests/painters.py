"""Small painters for tests. A new one paints nothing but noise, because its branches start closed; these are open."""

import torch
from torch import nn

from ming_omni.config import GlyphConfig, PainterConfig, tiny
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
    return open_up(Painter(PainterConfig(**{"glyphs": GlyphConfig(), **settings})))


def tiny_model(**settings) -> MingForConditionalGeneration:
    """The whole tiny model with its painter."""
    torch.manual_seed(0)
    model = MingForConditionalGeneration(tiny()).eval()
    model.painter = tiny_painter(**settings)
    return model
