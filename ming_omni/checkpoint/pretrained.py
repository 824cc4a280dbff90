"""The model as users load it: `from_pretrained` for published, own and packed folders, and saving in either layout."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from ming_omni import config as presets
from ming_omni.checkpoint import detect, devices, fill, packed_parts, quantise, save, shards
from ming_omni.config import MingConfig
from ming_omni.errors import InputError
from ming_omni.model import omni

HUB_OPTIONS = ("cache_dir", "revision", "token", "force_download", "local_files_only")
# Options of transformers and of the published scripts that change nothing here: weights are always read as safetensors
# with flat memory, code in the folder is never run, and only one painter was published.
WITHOUT_EFFECT = ("trust_remote_code", "use_safetensors", "weights_only", "low_cpu_mem_usage", "code_revision")
WITHOUT_EFFECT += ("load_vlm", "dit_type", "_from_auto", "_commit_hash", "adapter_kwargs", "name_or_path")
SWITCHES = {"numerics": ("native", "reference"), "video_positions": ("published", "3d")}
"""Fields of ThinkerConfig that a caller may choose when loading, and their values."""
ATTENTION = (None, "eager", "sdpa", "flash_attention_2")
OPTIONAL_PARTS = ("painter", "talker")
"""In our layout each lies in a folder of its name, so that it can be left out when loading."""


class MingForConditionalGeneration(omni.MingForConditionalGeneration):
    """Text, pictures, video and sound in; text, pictures and speech out."""

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        config: MingConfig | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        attn_implementation: str | None = None,
        experts: str | None = None,
        packed: bool | None = False,
        load_image_gen: bool = False,
        load_talker: bool = False,
        **options: Any,
    ) -> MingForConditionalGeneration:
        """Load "nano", "tiny", a folder, or a hub id; what a folder holds is told from its contents.

        config               instead of the folder's own
        dtype                torch_dtype is its older name; None or "auto": as stored
        device_map           a device, "auto", or a dict in published or our module names
        attn_implementation  "eager", "sdpa" or "flash_attention_2", for every part
        experts              "fp8" or "int4" quantises the routed experts while loading; "bf16" leaves them plain
        packed               True keeps a packed thinker packed: fast on a CPU, close to the plain one, not trainable;
                             None: do so unless another dtype, device or form of the experts is asked for
        load_image_gen, load_talker   a folder without them gives a model without them, and a warning
        options              those of the hub (revision, token, ...); `numerics` and `video_positions` of ThinkerConfig
        """
        hub = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
        switches = {name: options.pop(name) for name in SWITCHES if name in options}
        if unknown := options.keys() - set(WITHOUT_EFFECT):
            raise InputError(f"from_pretrained has no option {', '.join(sorted(unknown))}")
        if experts not in (None, "bf16", *quantise.FORMATS):
            raise InputError(f"experts are kept as bf16, fp8 or int4, not {experts!r}")
        dtype = _dtype(dtype if dtype is not None else torch_dtype)

        if name_or_folder == "tiny":
            model = _tiny(cls, _configure(config or presets.tiny(), attn_implementation, switches), experts)
            _add_tiny_parts(model, load_image_gen, load_talker)
            device = next(iter(devices.place(model, device_map, torch.float32).values()))
            model.config.name_or_path = "tiny"
            return model.to(device, dtype or torch.float32)
        found = detect.recognise(detect.locate(name_or_folder, **hub))
        entries = shards.tensors(found.folder)
        detect.check_tensors(found, entries)
        config = _configure(config or fill.read_config(found), attn_implementation, switches)
        if packed is None:
            packed = fill.is_packed(entries) and dtype is None and experts is None and device_map in (None, "cpu")
        dtype = dtype or fill.stored_dtype(entries)
        if packed:
            if experts is not None:
                raise InputError("a packed thinker keeps its experts as they are stored; leave out experts")
            model, placement = packed_parts.load(cls, config, found, entries)
        else:
            model = fill.empty(cls, config)
            placement = fill.fill(model, found, entries, dtype=dtype, experts=experts, device_map=device_map)
        config.name_or_path = str(name_or_folder)
        config.dtype = dtype
        model = devices.dispatch(model.eval(), placement)
        if load_image_gen:
            model.painter = _load_painter(found.folder, placement["thinker.head"], dtype)
        if load_talker:
            wanted = device_map.get("talker") if isinstance(device_map, dict) else None
            device = placement["thinker.head"] if wanted is None else devices.device(wanted)
            model.talker = _load_talker(found.folder, device, dtype, config.thinker.numerics)
        return model

    def attach(self, part: str) -> PreTrainedModel:
        """The painter or the talker, loaded now from where the model came if that has not been done before."""
        source = self.config.name_or_path
        if getattr(self, part) is None and source == "tiny":
            _add_tiny_parts(self, part == "painter", part == "talker")
            getattr(self, part).to(self.device, self.dtype)
        elif getattr(self, part) is None and source:
            folder = detect.locate(source)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the sentence below says it better
                if part == "painter":
                    self.painter = _load_painter(folder, self.device, self.dtype)
                else:
                    self.talker = _load_talker(folder, self.device, self.dtype, self.config.thinker.numerics)
            if getattr(self, part) is None:
                raise InputError(f"{Path(source).name} has no {part}")
        return self.require(part)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write our layout: quantised experts stay quantised, painter and talker get folders of their own."""
        present = [part for part in OPTIONAL_PARTS if getattr(self, part) is not None]
        if present:
            state = options.pop("state_dict", None) or self.state_dict()
            options["state_dict"] = {name: t for name, t in state.items() if name.partition(".")[0] not in present}
        super().save_pretrained(save_directory, **options)
        for part in present:
            getattr(self, part).save_pretrained(Path(save_directory) / part)

    def save_published(self, folder: str | Path, **options: Any) -> None:
        """Write the layout that the released scripts read; see save.py."""
        save.save_published(self, folder, **options)


def _dtype(value: torch.dtype | str | None) -> torch.dtype | None:
    if value is None or value == "auto":
        return None
    dtype = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else value
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InputError(f"dtype is float32, bfloat16 or float16, not {value!r}")
    return dtype


def _configure(config: MingConfig, attn_implementation: str | None, switches: dict[str, Any]) -> MingConfig:
    """Apply what the caller chose; nested parts get it too (the published loader forgets them, spec Q15)."""
    if not isinstance(config, MingConfig):
        raise InputError(f"config is a MingConfig, not {type(config).__name__}")
    config = copy.deepcopy(config)
    for name, value in switches.items():
        if value not in SWITCHES[name]:
            raise InputError(f"{name} is {' or '.join(SWITCHES[name])}, not {value!r}")
        for part in (config.thinker, config.vision, config.audio):
            if hasattr(part, name):
                setattr(part, name, value)
    attn_implementation = attn_implementation or config._attn_implementation
    if attn_implementation not in ATTENTION:
        raise InputError(f"attn_implementation is one of {', '.join(ATTENTION[1:])}, not {attn_implementation!r}")
    if attn_implementation == "flash_attention_2" and not is_flash_attn_2_available():
        warnings.warn("flash-attn is not installed: attention runs as sdpa", stacklevel=3)
        attn_implementation = "sdpa"
    config._attn_implementation = attn_implementation
    return config


def _tiny(kind: type[PreTrainedModel], config: MingConfig, experts: str | None) -> MingForConditionalGeneration:
    model = _seeded(kind, config)
    if experts in quantise.FORMATS:
        quantise.convert(model, experts)
    return model


def _add_tiny_parts(model: MingForConditionalGeneration, has_painter: bool, has_talker: bool) -> None:
    if has_painter:
        from ming_omni.model.painter import Painter

        model.painter = _seeded(Painter, presets.PainterConfig())
    if has_talker:
        from ming_omni.model.talker import Talker

        model.talker = _seeded(Talker, presets.TalkerConfig())


def _seeded(kind: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """The same random weights every time; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config).eval()


def _load_painter(folder: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel | None:
    from ming_omni.checkpoint import painter

    if (folder / "painter" / "config.json").is_file():
        return painter.load_ours(folder / "painter", device, dtype)
    if painter.has_painter(folder):
        return painter.load_painter(folder, device, dtype)
    warnings.warn(f"{folder} holds no painter (mlp/, connector/, ...): the model is loaded without it", stacklevel=3)
    return None


def _load_talker(folder: Path, device: torch.device, dtype: torch.dtype, numerics: str) -> PreTrainedModel | None:
    from ming_omni.checkpoint import talker

    if talker.find(folder) is not None:
        return talker.load(folder, device=device, dtype=dtype, numerics=numerics)
    warnings.warn(f"{folder} holds no talker/: the model is loaded without it", stacklevel=3)
    return None
