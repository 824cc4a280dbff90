"""The whole model: ids, patches and mel frames -> one stream of embeddings -> next-token logits, or an answer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.utils import ModelOutput

from ming_omni.config import MODALITIES, MingConfig
from ming_omni.errors import InputError
from ming_omni.model.audio_encoder import AudioEncoder
from ming_omni.model.layers import Part
from ming_omni.model.moe import Routing
from ming_omni.model.positions import next_positions, positions
from ming_omni.model.sampling import GREEDY, Sampling, choose
from ming_omni.model.thinker import Thinker
from ming_omni.model.vision_encoder import VisionEncoder

TEXT, IMAGE, AUDIO = range(len(MODALITIES))

MEDIA_KEYS = (
    "pixel_values",
    "image_grid_thw",
    "pixel_values_videos",
    "video_grid_thw",
    "audio_feats",
    "audio_feats_lengths",
    "audio_placeholder_loc_lens",
)
"""What the processor adds to `input_ids` and `attention_mask`, by its published names (spec 5.3)."""
PAINTING_PREFIX = "image_gen_"
"""Options of painting; the processor adds some of them to every prompt."""
OPTIONAL_PARTS = {
    "vision": "a checkpoint folder with vision weights",
    "audio": "a checkpoint folder with audio weights",
    "painter": "load_image_gen=True and a checkpoint folder with mlp/, connector/, transformer/ and vae/",
    "talker": "load_talker=True and a checkpoint folder with talker/",
}


@dataclass(frozen=True)
class Prompt:
    """Everything the thinker reads, one row per request."""

    ids: Tensor
    """(B, T)"""
    embeddings: Tensor
    """(B, T, D)"""
    positions: Tensor
    """(3, B, T) time, height, width"""
    delta: Tensor
    """(B,) what a later token adds to the number of tokens before it, to find its position"""
    modality: Tensor | None = None
    """(B, T) which router each token uses; None: all text"""
    mask: Tensor | None = None
    """(B, T) True for real tokens; None: all are"""

    def __add__(self, more: Prompt) -> Prompt:
        """The same requests with more tokens at their end."""
        modality = mask = None
        if self.modality is not None:
            text = torch.full_like(more.ids, TEXT)
            modality = torch.cat([self.modality, text if more.modality is None else more.modality], 1)
        if self.mask is not None:
            real = torch.ones_like(more.ids, dtype=torch.bool)
            mask = torch.cat([self.mask, real if more.mask is None else more.mask], 1)
        return Prompt(
            torch.cat([self.ids, more.ids], 1),
            torch.cat([self.embeddings, more.embeddings], 1),
            torch.cat([self.positions, more.positions], 2),
            self.delta,
            modality,
            mask,
        )


@dataclass(frozen=True)
class Step:
    """One new token for every row."""

    ids: Tensor
    """(B,) padding in rows that had ended before"""
    logprobs: Tensor
    """(B,) of the ids, under the model itself"""
    logits: Tensor
    """(B, V) that the ids were picked from"""
    ended: Tensor
    """(B,) True for rows that need no further token"""


@dataclass
class MingOutput(ModelOutput):
    loss: Tensor | None = None
    logits: Tensor | None = None
    """(B, T, V), or the last `num_logits_to_keep` tokens only"""
    hidden_states: tuple[Tensor, ...] | None = None
    routing: list[Routing] | None = None


class MingForConditionalGeneration(Part):
    """Owns the parts. No request leaves anything behind: positions and cache live in the call that needs them."""

    config_class = MingConfig
    config: MingConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True

    def __init__(self, config: MingConfig):
        super().__init__(config)
        self.thinker = Thinker(config.thinker)
        self.vision = VisionEncoder(config.vision) if config.vision else None
        self.audio = AudioEncoder(config.audio) if config.audio else None
        self.painter: nn.Module | None = None
        self.talker: nn.Module | None = None
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.thinker.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.thinker.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        return self.thinker.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.thinker.set_output_embeddings(value)

    def require(self, part: str) -> Any:
        """The part of that name, or a sentence that says how to get it."""
        if getattr(self, part) is None:
            raise InputError(f"this model was loaded without its {part}; it takes {OPTIONAL_PARTS[part]}")
        return getattr(self, part)

    def prepare(self, inputs: Mapping[str, Tensor | None]) -> Prompt:
        """Processor output -> prompt: media become tokens, and take the places that the ids hold for them."""
        config = self.config.thinker
        ids = inputs["input_ids"]
        if not isinstance(ids, Tensor) or ids.ndim != 2 or not ids.numel() or ids.is_floating_point():
            raise InputError("input_ids is a tensor (B, T) of token ids")
        if self.device.type != "meta":  # offloaded: accelerate's hooks move what they need
            ids = ids.to(self.device)
        mask = inputs.get("attention_mask")
        if mask is not None and mask.shape != ids.shape:
            raise InputError(f"attention_mask is {tuple(mask.shape)}, input_ids are {tuple(ids.shape)}")
        mask = None if mask is None or mask.all() else mask.bool().to(ids.device)
        grids = inputs.get("image_grid_thw"), inputs.get("video_grid_thw")
        placed, delta = positions(config, ids, mask, *grids, inputs.get("second_per_grid_ts"))

        embeddings = self.thinker.embed(ids)  # (B, T, D)
        modality = torch.full_like(ids, TEXT)
        seen = (
            ("image", config.image_patch_token, inputs.get("pixel_values"), grids[0]),
            ("video", config.video_patch_token, inputs.get("pixel_values_videos"), grids[1]),
        )
        for name, patch_token, patches, grid in seen:
            place = ids == patch_token
            tokens = embeddings[:0, 0] if patches is None else self.see(patches, grid)
            if place.sum() != len(tokens):
                raise InputError(f"the prompt has {place.sum()} {name} tokens, its {name}s have {len(tokens)}")
            embeddings = _fill(embeddings, place, tokens)
            modality = modality.masked_fill(place, IMAGE)
        heard = tuple(inputs.get(key) for key in ("audio_feats", "audio_feats_lengths", "audio_placeholder_loc_lens"))
        if heard[0] is not None:
            place, tokens, spans = self._hear(ids, *heard)
            if (modality[spans] != TEXT).any():
                raise InputError("an audio clip and a picture claim the same place in the prompt")
            embeddings = _fill(embeddings, place, tokens)
            modality = modality.masked_fill(spans, AUDIO)
        has_media = heard[0] is not None or any(patches is not None for _, _, patches, _ in seen)
        return Prompt(ids, embeddings, placed, delta, modality if has_media else None, mask)

    def see(self, patches: Tensor, grid: Tensor | None) -> Tensor:
        """Patches (P, C·T·p·p) and grids (n, 3) of pictures or videos -> tokens (P/4, D)."""
        if grid is None:
            raise InputError("pixel values come with the grids that describe them")
        return self.require("vision")(patches, grid)

    def _hear(
        self, ids: Tensor, features: Tensor, lengths: Tensor | None, spans: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Clips -> where their tokens go (B, T), the tokens (N, D), and the spans that the prompt declares (B, T).

        features (1, F, M) and lengths (1, n) of the clips, row after row
        spans    (B, n, 2) start and length of each clip's place; a length of 0 is filler
        """
        if lengths is None or spans is None or len(spans) != len(ids):
            raise InputError("audio features come with the clips' lengths and one row of spans per prompt")
        declared = [(row, *span) for row, row_spans in enumerate(spans.tolist()) for span in row_spans if span[1]]
        if len(declared) != lengths.numel():
            raise InputError(f"the prompt has places for {len(declared)} audio clips, {lengths.numel()} are given")
        tokens, counts = self.require("audio")(features, lengths, torch.tensor([row for row, *_ in declared]))
        clips = tokens.split(counts.flatten().tolist())
        place, inside = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
        kept = []
        end_of_last = (0, 0)
        for (row, start, length), clip in zip(declared, clips, strict=True):
            if start < 0 or (row, start) < end_of_last or start + length > ids.shape[1]:
                raise InputError(f"audio spans follow one another inside the prompt; ({start}, {length}) does not")
            if len(clip) > length:
                warnings.warn(f"an audio clip of {len(clip)} tokens is cut to its span of {length}", stacklevel=3)
            used = min(len(clip), length)
            place[row, start : start + used] = True
            inside[row, start : start + length] = True
            kept.append(clip[:used])
            end_of_last = (row, start + length)
        return place, torch.cat(kept), inside

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        second_per_grid_ts: Tensor | None = None,
        audio_feats: Tensor | None = None,
        audio_feats_lengths: Tensor | None = None,
        audio_placeholder_loc_lens: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        num_logits_to_keep: int = 0,
        output_hidden_states: bool = False,
        output_router_logits: bool = False,
    ) -> MingOutput:
        """Read whole prompts once; the processor's keys keep their published names.

        input_ids, attention_mask (B, T)
        pixel_values, image_grid_thw, pixel_values_videos, video_grid_thw   (P, C·T·p·p) patches and (n, 3) grids
        second_per_grid_ts  (n,) duration of one time step of each video
        audio_feats (1, F, M), audio_feats_lengths (1, n), audio_placeholder_loc_lens (B, n, 2)   see `_hear`
        position_ids        (3, B, T) instead of those that the prompt's pictures imply
        labels              (B, T) ids to predict, -100 where nothing is asked; gives the loss
        num_logits_to_keep  logits of the last tokens only; 0: of all
        """
        prompt = self.prepare(
            {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "pixel_values": pixel_values,
                "image_grid_thw": image_grid_thw,
                "pixel_values_videos": pixel_values_videos,
                "video_grid_thw": video_grid_thw,
                "second_per_grid_ts": second_per_grid_ts,
                "audio_feats": audio_feats,
                "audio_feats_lengths": audio_feats_lengths,
                "audio_placeholder_loc_lens": audio_placeholder_loc_lens,
            }
        )
        output = self.thinker(
            prompt.embeddings,
            prompt.positions if position_ids is None else position_ids.to(prompt.positions.device),
            modality=prompt.modality,
            mask=prompt.mask,
            collect_hidden_states=output_hidden_states,
            collect_routing=output_router_logits,
        )
        logits = self.thinker.logits(output.hidden[:, -num_logits_to_keep:])
        loss = None
        if labels is not None:
            shifted = F.pad(labels.to(logits.device), (0, 1), value=-100)[:, 1:][:, -num_logits_to_keep:]
            loss = F.cross_entropy(logits.flatten(0, 1).float(), shifted.flatten(), ignore_index=-100)
        return MingOutput(loss, logits, tuple(output.hidden_states) or None, output.routing or None)

    def steps(
        self,
        inputs: Mapping[str, Tensor | None],
        sampling: Sampling | Sequence[Sampling] = GREEDY,
        *,
        max_new_tokens: int = 512,
        eos_token_id: int | Sequence[int] | None = None,
        use_cache: bool = True,
    ) -> Iterator[Step]:
        """Answer token by token, all rows together, until each has ended. Bad input is refused before the first step.

        Prompts of different lengths are padded on the left. `use_cache=False` reads everything anew for each token:
        the plain twin of the cache.
        """
        if not isinstance(max_new_tokens, Integral) or max_new_tokens < 0:
            raise InputError(f"max_new_tokens is a whole number, 0 or more, not {max_new_tokens!r}")
        with torch.no_grad():
            prompt = self.prepare(inputs)
        num_rows, length = prompt.ids.shape
        limit = self.config.thinker.max_position_embeddings
        if length >= limit:
            raise InputError(f"the prompt is {length} tokens long; this model reads fewer than {limit}")
        if prompt.mask is not None and not prompt.mask[:, -1].all():
            raise InputError("prompts of different lengths are padded on the left")
        rows = [sampling] * num_rows if isinstance(sampling, Sampling) else list(sampling)
        if len(rows) != num_rows:
            raise InputError(f"{num_rows} prompts need {num_rows} sampling settings, not {len(rows)}")
        ends = self.config.thinker.eos_token_id if eos_token_id is None else eos_token_id
        ends = [ends] if isinstance(ends, int) else list(ends or [])
        return self._steps(prompt, rows, min(max_new_tokens, limit - length), ends, use_cache)

    @torch.no_grad()
    def _steps(
        self, prompt: Prompt, sampling: list[Sampling], max_new_tokens: int, ends: list[int], use_cache: bool
    ) -> Iterator[Step]:
        device = prompt.ids.device
        generators = [s.generator() for s in sampling]
        ends, pad = torch.tensor(ends, dtype=torch.long, device=device), self.config.thinker.pad_token_id or 0
        ended = torch.zeros(len(sampling), dtype=torch.bool, device=device)
        read, forgotten = prompt.ids.shape[1], torch.tensor([not s.penalize_prompt for s in sampling], device=device)
        cache = self.thinker.new_cache() if use_cache else None
        unread = prompt
        for _ in range(max_new_tokens):
            hidden = self.thinker(
                unread.embeddings, unread.positions, modality=unread.modality, mask=prompt.mask, cache=cache
            ).hidden
            logits = self.thinker.logits(hidden[:, -1])  # (B, V)
            history = prompt.ids if prompt.mask is None else prompt.ids.where(prompt.mask, -1)
            history = history.masked_fill(
                forgotten[:, None] & (torch.arange(history.shape[1], device=device) < read), -1
            )
            ids, logprobs = choose(logits, history, sampling, generators)
            ids = ids.where(~ended, pad)
            ended = ended | torch.isin(ids, ends)
            yield Step(ids, logprobs, logits, ended)
            if ended.all():
                return
            place = next_positions(prompt.delta, prompt.ids.shape[1])
            token = Prompt(ids[:, None], self.thinker.embed(ids[:, None]), place, prompt.delta)
            prompt = prompt + token
            unread = token if use_cache else prompt

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        max_new_tokens: int | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        use_cache: bool = True,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        generation_config: GenerationConfig | None = None,
        streamer: Any = None,
        num_logits_to_keep: int = 1,
        num_beams: int | None = None,
        image_gen: bool = False,
        **inputs: Any,
    ) -> Tensor:
        """Prompts (B, T) -> prompts and answers (B, T + new), as the published scripts call it.

        Greedy unless `do_sample` or a temperature says otherwise; 512 tokens at most unless told otherwise. What is
        None here is looked up in `generation_config`. `streamer` is a transformers streamer;
        `num_logits_to_keep` is accepted as the scripts pass it: only the last token's logits are ever computed.
        With `image_gen` the answer is a picture, see painting.py.
        """
        unknown = [key for key in inputs if key not in MEDIA_KEYS and not key.startswith(PAINTING_PREFIX)]
        if unknown:
            raise InputError(f"generate has no option {', '.join(unknown)}")
        if image_gen:
            from ming_omni.model import painting  # heavy, and most prompts ask for words

            return painting.generate(self, {"input_ids": input_ids, "attention_mask": attention_mask, **inputs})
        options = {"max_new_tokens": max_new_tokens, "eos_token_id": eos_token_id, "num_beams": num_beams}
        options |= {"do_sample": do_sample, "temperature": temperature, "top_p": top_p, "top_k": top_k}
        options |= {"repetition_penalty": repetition_penalty}
        options = _settings(generation_config, options)
        if options.get("num_beams", 1) != 1:
            raise InputError("this model does not search with beams: num_beams is 1")
        is_sampling = options.get("do_sample", bool(options.get("temperature")))
        kept = {name: options[name] for name in ("top_p", "top_k", "repetition_penalty") if name in options}
        sampling = Sampling(temperature=options.get("temperature", 1.0) if is_sampling else 0.0, seed=seed, **kept)
        media = {key: inputs.get(key) for key in MEDIA_KEYS}
        steps = self.steps(
            {"input_ids": input_ids, "attention_mask": attention_mask, **media},
            sampling,
            max_new_tokens=options.get("max_new_tokens", 512),
            eos_token_id=options.get("eos_token_id"),
            use_cache=use_cache,
        )
        ids = [input_ids]
        if streamer is not None:
            streamer.put(input_ids.cpu())  # transformers streamers expect the prompt first
        for step in steps:
            ids.append(step.ids[:, None].to(input_ids.device))
            if streamer is not None:
                streamer.put(step.ids.cpu())
        if streamer is not None:
            streamer.end()
        return torch.cat(ids, 1)


def _settings(config: GenerationConfig | None, options: dict[str, Any]) -> dict[str, Any]:
    """What was given: the options that are not None, and from transformers' own object those that are."""
    given = {} if config is None else config.to_diff_dict()
    given = {name: value for name, value in given.items() if value is not None and name != "transformers_version"}
    if unknown := given.keys() - options.keys() - {"use_cache", "pad_token_id", "bos_token_id"}:
        raise InputError(f"generation_config asks for {', '.join(sorted(unknown))}, which generate has not")
    return given | {name: value for name, value in options.items() if value is not None}


def _fill(embeddings: Tensor, place: Tensor, tokens: Tensor) -> Tensor:
    """Put tokens (N, D) where place (B, T) is True, in reading order."""
    return embeddings.masked_scatter(place[..., None], tokens.to(embeddings))
