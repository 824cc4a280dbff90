"""A device map in published or our own names, "auto", or one device -> the device of every part of the model."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from ming_omni.checkpoint import names
from ming_omni.errors import InputError

Placement = dict[str, torch.device]
"""Device of each piece that is never cut: the embedding, a layer, the norm, the head, an encoder."""


def pieces(model: nn.Module) -> dict[str, list[str]]:
    """Tensor names of each piece that a device map may move, in the order data flows."""
    found: dict[str, list[str]] = {}
    for name in model.state_dict():
        found.setdefault(names.piece(name), []).append(name)
    return found


def place(model: nn.Module, device_map, dtype: torch.dtype) -> Placement:
    """Where each piece of a model goes; the model may still be on the meta device."""
    if isinstance(device_map, str) and device_map in ("auto", "balanced", "balanced_low_0", "sequential"):
        return _automatic(model, device_map, dtype)
    if not isinstance(device_map, dict):
        return dict.fromkeys(pieces(model), device("cpu" if device_map is None else device_map))
    return {piece: _wanted(piece, tensors, device_map) for piece, tensors in pieces(model).items()}


def _wanted(piece: str, tensors: list[str], device_map: dict) -> torch.device:
    """The one device that the map gives to all tensors of a piece."""
    found = set()
    for name in tensors:
        owner = names.parameter(name)
        published = names.to_published(owner, 0 if names.is_stacked(owner) else None)
        value = _longest(device_map, [n for n in (name, published) if n])
        if value is None:
            raise InputError(f"device_map gives no device to {published or name}")
        found.add(device(value))
    if len(found) > 1:
        raise InputError(f"device_map cuts {piece} over {', '.join(map(str, found))}; it must stay on one device")
    return found.pop()


def _longest(device_map: dict, tensor_names: list[str]):
    """The entry with the longest key that is one of the names or holds it."""
    matches = [
        key for key in device_map for name in tensor_names if key == "" or name == key or name.startswith(f"{key}.")
    ]
    return device_map[max(matches, key=len)] if matches else None


def device(value: int | str | torch.device) -> torch.device:
    """A number means that GPU; on a machine without any, it means the CPU, so that a published map still loads."""
    try:
        found = torch.device("cuda", value) if isinstance(value, int) else torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"there is no device {value!r}") from error
    if found.type != "cuda":
        return found
    if not torch.cuda.is_available():
        warnings.warn("there is no GPU here: the model goes to the CPU", stacklevel=2)
        return torch.device("cpu")
    if (found.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device_map names GPU {found.index}; this machine has {torch.cuda.device_count()}")
    return found


def _automatic(model: nn.Module, strategy: str, dtype: torch.dtype) -> Placement:
    """accelerate's plan: GPUs in order, then host memory."""
    if not torch.cuda.is_available():
        return dict.fromkeys(pieces(model), torch.device("cpu"))
    from accelerate.utils import get_balanced_memory, infer_auto_device_map

    settings = {"no_split_module_classes": sorted(whole_modules(model)), "dtype": dtype}
    memory = None
    if strategy != "sequential":
        memory = get_balanced_memory(model, low_zero=strategy == "balanced_low_0", **settings)
    device_map = infer_auto_device_map(model, max_memory=memory, **settings)
    if "disk" in device_map.values():
        raise InputError("the model does not fit the GPUs and host memory of this machine; see `ming info`")
    return place(model, dict(device_map), dtype)


def whole_modules(model: nn.Module) -> set[str]:
    """Class names that a map keeps on one device."""
    encoders = {type(part).__name__ for part in (model.vision, model.audio) if part is not None}
    return set(model._no_split_modules or ()) | encoders


def dispatch(model: nn.Module, placement: Placement) -> nn.Module:
    """Let data follow the parts: nothing to do on one device, accelerate's hooks on several."""
    if len(set(placement.values())) == 1:
        return model
    from accelerate import dispatch_model

    return dispatch_model(model, device_map=dict(placement), **offloading(model))


def offloading(model: nn.Module) -> dict:
    """How weights in host memory visit a GPU: a layer at a time, since routers and quantised experts (which are
    buffers) are used by the layer without a forward of their own."""
    return {"offload_buffers": True, "preload_module_classes": sorted(whole_modules(model))}
