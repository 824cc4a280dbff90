"""A recorded run of the published processors -> the largest deviation of every key of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as Core
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor

from ming_omni.buckets import bucket
from ming_omni.errors import InputError
from ming_omni.inputs import sizes, video
from ming_omni.inputs.audio import load_audio
from ming_omni.inputs.behaviour import PUBLISHED
from ming_omni.inputs.canvas import glyph_text
from ming_omni.inputs.image import MAX_PIXELS, MIN_PIXELS, fetch_image, load_image
from ming_omni.inputs.patches import ImageProcessor
from ming_omni.inputs.processor import MingProcessor
from ming_omni.inputs.templates import TEMPLATES
from ming_omni.inputs.tokenizer import MEDIA_TOKENS, Tokenizer
from tests.parity import Check, difference, same, tensors

PIXELS, MEL = 1e-4, 1e-4
LEVEL = 1 / 255 / min(0.26862954, 0.26130258, 0.27577711)
"""One step of an 8-bit frame after normalisation: the original resizes videos on a GPU."""


def matches(folder: Path) -> bool:
    file = folder / "expected.json"
    return file.is_file() and "frame_sampling" in json.loads(file.read_text(encoding="utf-8"))


def compare(folder: Path) -> Iterator[Check]:
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    arrays = tensors(folder / "arrays.safetensors")
    yield from images(folder, expected, arrays)
    yield from resizing(expected)
    yield from frames(expected)
    yield from videos(folder, expected, arrays)
    yield from sounds(expected, arrays)
    yield from chat(folder, expected)
    yield from expansion(folder, expected, arrays)
    yield from painter(folder, expected, arrays)
    yield from speech(expected)


def rows_check(key: str, rows: Tensor, arrays: dict[str, Tensor], tolerance: float) -> Iterator[Check]:
    """Recorded rows at recorded places, and the sum of every row."""
    recorded = arrays[f"{key}rows"]
    yield difference(f"{key}rows", rounded_like(rows[arrays[f"{key}rows_index"]], recorded), recorded, tolerance)
    if f"{key}row_sums_f64" in arrays:
        means = rows.double().mean(1), arrays[f"{key}row_sums_f64"] / rows.shape[1]
        yield difference(f"{key}row_sums_f64", *means, tolerance)


def rounded_like(actual: Tensor, recorded: Tensor) -> Tensor:
    """Where a record was rounded to 16-bit floats, take half of its last place off the difference."""
    if not torch.equal(recorded.half().float(), recorded):
        return actual
    last_place = 2.0 ** (recorded.abs().clamp(min=2**-14).log2().floor() - 10)
    gap = actual - recorded
    return recorded + gap.sign() * (gap.abs() - last_place / 2).clamp(min=0)


def images(folder: Path, expected: dict, arrays: dict[str, Tensor]) -> Iterator[Check]:
    for name, record in expected["images"].items():
        original = picture(folder, name)
        image = fetch_image(original)
        rows, grid = ImageProcessor()([image])
        yield same(f"images.{name}.input_hw", [original.height, original.width], record["input_hw"])
        yield same(f"images.{name}.after_fetch", [image.height, image.width], record["after_fetch_image_hw"])
        yield same(f"images.{name}.grid", grid.tolist(), record["image_grid_thw"])
        yield same(f"images.{name}.patches", list(rows.shape), record["patches"])
        yield from rows_check(f"images.{name}.", rows, arrays, PIXELS)
        if (key := f"images.{name}.fetched_uint8") in arrays:
            yield same(key, pixels(image), arrays[key])


def picture(folder: Path, name: str):
    (path,) = (folder / "images").glob(f"{name}.*")
    return load_image(path, PUBLISHED)


def pixels(image) -> Tensor:
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)


def outcome(call, *args, **kwargs) -> Any:
    """A result, or the fact that there is none: errors are compared as such, their wording is ours."""
    try:
        result = call(*args, **kwargs)
    except InputError:
        return "error"
    return list(result) if isinstance(result, tuple) else result


def recorded_outcome(value: Any) -> Any:
    return "error" if isinstance(value, str) else value


def resizing(expected: dict) -> Iterator[Check]:
    processor = ImageProcessor()
    still = {"factor": 28, "min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS}
    second = {"factor": 28, "min_pixels": processor.min_pixels, "max_pixels": processor.max_pixels, "clamp": False}
    for record in expected["smart_resize"]:
        for key, value in record.items():
            if key == "hw":
                continue
            if count := re.search(r"(\d+)_frames", key):
                actual = outcome(video.frame_size, *record["hw"], int(count[1]), video.FrameOptions())
            else:
                options = {"fetch_image": still, "image_processor": second}[key]
                actual = outcome(sizes.smart_resize, *record["hw"], **options)
            yield same(f"smart_resize.{key}.{record['hw']}", actual, recorded_outcome(value))


def frames(expected: dict) -> Iterator[Check]:
    for record in expected["frame_sampling"]:
        options = video.FrameOptions(**record["ele"])
        key = f"frame_sampling.{record['total']}.{record['ele']}"
        count = outcome(video.num_frames, record["total"], options, PUBLISHED)
        yield same(key, count, "error" if "error" in record else record["num_frames"])
        for sample in ("sequence", "uniform"):
            if sample in record:
                yield same(f"{key}.{sample}", video.frame_indices(record["total"], count, sample), record[sample])
    for record in expected["decord_path_indices"]:
        options = video.FrameOptions(**record.get("ele", {}))
        actual = outcome(video.choose_frames, record["total"], record["fps"], options, PUBLISHED)
        key = f"decord_path_indices.{record['total']}.{record['fps']}.{record.get('ele', {})}"
        yield same(key, actual, "error" if "error" in record else [record["indices"], record["sample_fps"]])


def videos(folder: Path, expected: dict, arrays: dict[str, Tensor]) -> Iterator[Check]:
    processor = ImageProcessor()
    record, clip = expected["video_decord"], arrays["video.clip_uint8_thwc"]
    options = video.FrameOptions(**record["ele"])
    indices, _ = video.choose_frames(len(clip), record["fps"], options, PUBLISHED)
    yield same("video_decord.total", len(clip), record["total"])
    yield same("video_decord.indices", indices, record["indices"])
    size = video.frame_size(*clip.shape[1:3], len(indices), options)
    fetched = video.resize_frames(clip[indices].permute(0, 3, 1, 2), size)
    yield same("video_decord.fetched_shape", list(fetched.shape), record["fetched_shape"])
    yield same("video_decord.fetched_dtype", str(fetched.dtype), record["fetched_dtype"])
    yield difference("video.decord_fetched", fetched, arrays["video.decord_fetched"], 1)
    rows, grid = processor.videos([fetched])
    yield same("video_decord.grid", grid.tolist(), record["video_grid_thw"])
    yield from rows_check("video.decord_", rows, arrays, LEVEL)

    paths = sorted((folder / "frames").iterdir())
    record = expected["video_frame_list"]
    fetched = video.load_video(paths[: record["frames"]], behaviour=PUBLISHED)
    yield same("video_frame_list.fetched_shape", list(fetched.shape), record["fetched_shape"])
    yield same("video_frame_list.fetched_dtype", str(fetched.dtype), record["fetched_dtype"])
    sampled = arrays["video.framelist_fetched_every7px"]
    yield difference("video.framelist_fetched_every7px", fetched[..., ::7, ::7], sampled, 1)
    result = outcome(processor.videos, [fetched])
    yield same("video_frame_list.patch_error", result == "error", "patch_error" in record)
    fetched = video.load_video(paths[:4], behaviour=PUBLISHED)
    rows, grid = processor.videos([fetched])
    yield same("video_frame_list_4.grid", grid.tolist(), expected["video_frame_list_4"]["video_grid_thw"])
    yield from rows_check("video.framelist4_", rows, arrays, LEVEL)


def sounds(expected: dict, arrays: dict[str, Tensor]) -> Iterator[Check]:
    processor = stand_in_processor()
    first, second = recorded_sounds(arrays)
    clips = [load_audio(first, PUBLISHED), load_audio(second, PUBLISHED)]
    yield difference("audio.resampled_16k", clips[0], arrays["audio.resampled_16k"], MEL)
    for name, key, use_whisper in (
        ("audio_whisper", "audio.whisper_feats", True),
        ("audio_default_without_use_whisper_encoder", "audio.default_fbank_feats", False),
    ):
        features, lengths = processor.audio_processor(clips, use_whisper)
        tokens = [processor.audio_processor.num_tokens(int(n), use_whisper) for n in lengths[0]]
        yield difference(key, features, arrays[key], MEL)
        yield same(f"{name}.audio_feats_lengths", lengths.tolist(), expected[name]["audio_feats_lengths"])
        yield same(f"{name}.encoder_feats_lengths", [tokens], expected[name]["encoder_feats_lengths"])
        if "width" in expected[name]:
            yield same(f"{name}.width", features.shape[-1], expected[name]["width"])


def recorded_sounds(arrays: dict[str, Tensor]) -> list[tuple[Tensor, int]]:
    """The clip to be resampled, then the one at 16 kHz: a name says its rate, as in `wave_24k_stereo`."""
    named = {int(re.search(r"(\d+)k", key)[1]): value for key, value in arrays.items() if key.startswith("audio.wave_")}
    rates_hz = {44: 44_100, 22: 22_050, 11: 11_025}
    return [(named[k], rates_hz.get(k, 1000 * k)) for k in sorted(named, key=lambda k: (k == 16, k))]


def stand_in_processor() -> MingProcessor:
    """Words and punctuation, all unknown but the special tokens: what the record was made with."""
    core = Core(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    core.pre_tokenizer = Whitespace()
    core.add_special_tokens(["<|role_end|>", "<role>", "</role>", *MEDIA_TOKENS])
    tokenizer = Tokenizer(core, eos_token="<|role_end|>", pad_token="<|role_end|>")
    return MingProcessor(tokenizer, behaviour=PUBLISHED)


def chat(folder: Path, expected: dict) -> Iterator[Check]:
    processor = stand_in_processor()
    for name, record in expected["chat_template"].items():
        text = processor.apply_chat_template(record["messages"], **record["kwargs"])
        yield same(f"chat_template.{name}", text, record["text"])
    for name, text in expected["system_prompts"].items():
        template = TEMPLATES["ming"]
        asked = template.thinking[name == "think"]
        system = template.system.format(system=template.default_system, thinking=asked).removesuffix(template.end)
        yield same(f"system_prompts.{name}", system, text)


def expansion(folder: Path, expected: dict, arrays: dict[str, Tensor]) -> Iterator[Check]:
    """Each recorded call again, with the recorded media its shapes say it had."""
    processor = stand_in_processor()
    seen: list[str] = []
    processor.tokenizer.encode = Recorder(processor.tokenizer.encode, seen)
    for name, record in expected["expansion"].items():
        inputs = processor(
            text=[record["text_in"]],
            **media_of(folder, record, expected, arrays),
            audio_kwargs={"use_whisper_encoder": True},
            return_tensors="pt",
            image_gen_highres=name.endswith("highres"),
            image_gen_aspect_ratio=aspect_ratio_of(name),
        )
        key = f"expansion.{name}"
        yield same(f"{key}.text_out", runs(seen[0]), record["text_out"])
        seen.clear()
        wanted = set(record["keys"]) - {"token_type_ids"}  # an output of the stand-in tokenizer
        yield same(f"{key}.keys", set(inputs), wanted)
        for field, shape in record["shapes"].items():
            if field in wanted:
                yield same(f"{key}.shapes.{field}", list(inputs[field].shape), shape)
        for field in ("audio_placeholder_loc_lens", "image_gen_height", "image_gen_width", "image_gen_text"):
            value = inputs.get(field)
            value = value.tolist() if isinstance(value, Tensor) else value
            yield same(f"{key}.{field}", value, record.get(field))


class Recorder:
    """Notes the text handed to the tokenizer."""

    def __init__(self, encode, seen: list[str]):
        self.encode, self.seen = encode, seen

    def __call__(self, text: str) -> list[int]:
        self.seen.append(text)
        return self.encode(text)


def runs(text: str) -> str:
    """`<imagePatch><imagePatch>` is recorded as `<imagePatch>{x2}`."""
    return re.sub(
        r"(<(image|frame|audio)Patch>)\1*", lambda match: f"{match[1]}{{x{len(match[0]) // len(match[1])}}}", text
    )


def aspect_ratio_of(name: str) -> float | None:
    found = re.search(r"aspect_ratio_([\d.]+)", name)
    return float(found[1]) if found else None


def media_of(folder: Path, record: dict, expected: dict, arrays: dict[str, Tensor]) -> dict[str, Any]:
    """The media of a recorded call: pictures by name from the messages of the same text, sounds by their length."""
    media: dict[str, Any] = {}
    shapes = record["shapes"]
    if "pixel_values" in shapes:
        media["images"] = [fetch_image(picture(folder, name)) for name in picture_names(expected, record["text_in"])]
    if "pixel_values_videos" in shapes:
        media["videos"] = [arrays["video.decord_fetched"]]
    if "audio_feats" in shapes:
        sounds = recorded_sounds(arrays)
        lengths = expected["audio_whisper"]["audio_feats_lengths"][0]
        if shapes["audio_feats_lengths"][1] == len(sounds):
            media["audios"] = sounds
        else:
            media["audios"] = [sounds[lengths.index(shapes["audio_feats"][1])]]
    return media


def picture_names(expected: dict, text: str) -> list[str]:
    """Names, without suffix, of the pictures in the recorded messages that render to this text."""
    (messages, *_) = (record["messages"] for record in expected["chat_template"].values() if record["text"] == text)
    parts = [part["image"] for message in messages for part in message["content"] if part["type"] == "image"]
    return [Path(name).stem for part in parts for name in (part if isinstance(part, list) else [part])]


def painter(folder: Path, expected: dict, arrays: dict[str, Tensor]) -> Iterator[Check]:
    for record in expected["process_ratio"]:
        size = record["h"], record["w"]
        target = bucket(*size, record["highres"])
        key = f"process_ratio.{record['h']}x{record['w']}.{record['highres']}"
        yield same(key, [list(target), list(sizes.cover(*size, target))], [record["bucket_hw"], record["resize_hw"]])
    for prompt, text in expected["image_gen_text"].items():
        yield same(f"image_gen_text.{prompt}", glyph_text(prompt), text)
    name = picture_names(expected, expected["expansion"]["image"]["text_in"])[0]
    inputs = stand_in_processor()(text=["<IMAGE>"], images=[fetch_image(picture(folder, name))])
    reference = inputs["image_gen_pixel_values_reference"]
    yield same("image_gen_reference.shape", list(reference.shape), expected["image_gen_reference"]["shape"])
    sampled = arrays["image_gen_reference_every8px"]
    yield difference("image_gen_reference_every8px", reference[..., ::8, ::8], sampled, PIXELS)


def speech(expected: dict) -> Iterator[Check]:
    from ming_omni.speech import published

    for i, record in enumerate(expected["speech_front"]):
        key, text = f"speech_front.{i}", record["text"]
        yield same(f"{key}.pieces", list(published.tokenize(text)), record["pieces"])
        fragments = published.cut(text, 50)
        cut = {
            "fragments": [fragment.text for fragment in fragments],
            "positions": {str(n): [fragment.start, fragment.end] for n, fragment in enumerate(fragments)},
        }
        yield same(f"{key}.cut50", cut, record["cut50"])
        yield same(f"{key}.is_chinese", published.is_chinese(text), record["is_chinese"])
        # The release spells numbers only in fragments without Chinese; the record holds the speller alone.
        yield same(f"{key}.normalize_numbers", published.expand_english_numbers(text), record["normalize_numbers"])
