"""Token ids (B, T) and grids of pictures and videos -> rotary positions (3, B, T): time, height, width.

Text advances all three together; a picture or video spreads in space around its start. The state between calls is
`delta`, which belongs to the request: a later token's position is the number of tokens before it plus delta.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ming_omni.config import ThinkerConfig
from ming_omni.errors import InputError

SPATIAL_MERGE = 2
"""Patches per token side; the published model fixes it, whatever its config says (spec 2.1)."""
TIME_SCALE = 2.0
"""Positions per grid step or per second, a constant of the published code (spec Q6)."""


def positions(
    config: ThinkerConfig,
    ids: Tensor,
    mask: Tensor | None = None,
    image_grid: Tensor | None = None,
    video_grid: Tensor | None = None,
    seconds_per_grid: Tensor | Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Positions of a whole prompt.

    ids              (B, T)
    mask             (B, T)  True for real tokens; padding, on either side, gets position 1
    image_grid       (n, 3)  time, height, width in patches, in order of appearance over all rows
    video_grid       (m, 3)  likewise
    seconds_per_grid (m,)    duration of one time step of each video
    returns (3, B, T) positions, (B,) delta
    """
    real = (torch.ones_like(ids) if mask is None else mask).bool()
    # A picture beside a video with known seconds stands still in time (spec 2.5).
    stills = None if seconds_per_grid is None or image_grid is None else [0.0] * len(image_grid)
    images, videos = _grids(image_grid, stills), _grids(video_grid, seconds_per_grid)
    placed = torch.ones(3, *ids.shape, dtype=torch.long)
    ends = torch.zeros(len(ids), dtype=torch.long)
    for row, (row_ids, row_real) in enumerate(zip(ids.cpu(), real.cpu(), strict=True)):
        blocks = list(_blocks(config, row_ids[row_real].tolist(), images, videos))
        placed[:, row, row_real] = torch.cat(blocks, 1)
        ends[row] = max(_end(config, block) for block in blocks)
    return placed.to(ids.device), (ends - ids.shape[1]).to(ids.device)


def next_positions(delta: Tensor, length: int, num_tokens: int = 1) -> Tensor:
    """Positions of text that follows `length` tokens, padding counted: delta (B,) -> (3, B, num_tokens)."""
    following = torch.arange(length, length + num_tokens, device=delta.device)
    return (following + delta[:, None]).expand(3, -1, -1)


Grid = tuple[int, int, int, float | None]
"""Time steps, rows and columns of tokens, seconds per time step when known."""


def _grids(patches: Tensor | None, seconds: Tensor | Sequence[float] | None) -> Iterator[Grid]:
    """(n, 3) in patches -> each item's size in tokens, to be taken in order."""
    sizes = [] if patches is None else [[int(n) for n in size] for size in patches]
    steps = [None] * len(sizes) if seconds is None else [float(s) for s in seconds][: len(sizes)]
    return iter([(t, h // SPATIAL_MERGE, w // SPATIAL_MERGE, s) for (t, h, w), s in zip(sizes, steps, strict=True)])


def _blocks(config: ThinkerConfig, ids: list[int], images: Iterator[Grid], videos: Iterator[Grid]) -> Iterator[Tensor]:
    """One row without padding -> positions (3, tokens) of its text, picture, text ... in turn."""
    start, done = 0, 0  # the next block's first position; tokens placed
    for index, patch in _items(config, ids):
        grid = next(videos if patch == config.video_patch_token else images, None)
        if grid is None:
            raise InputError("the prompt has more pictures or videos than grids were given")
        num_tokens = grid[0] * grid[1] * grid[2]
        if ids[index : index + num_tokens] != [patch] * num_tokens:
            raise InputError(f"a picture or video of {num_tokens} tokens has fewer patch tokens in the prompt")
        num_text = index - done
        block = (_3d_block if config.rope_variant == "3d" else _video_block)(start + num_text, *grid)
        yield _text(start, num_text)
        yield block
        start, done = _end(config, block), index + num_tokens
    yield _text(start, len(ids) - done)


def _items(config: ThinkerConfig, ids: list[int]) -> list[tuple[int, int]]:
    """Pictures and videos as (index of the first patch token, patch token): where a start marker precedes a patch."""
    if config.rope_variant == "vanilla":
        return []
    is_3d = config.video_positions == "3d"
    starts = {
        (config.image_start_token, config.image_patch_token),
        (config.video_marker_token if is_3d else config.video_start_token, config.video_patch_token),
    }
    return [(i, ids[i]) for i in range(1, len(ids)) if (ids[i - 1], ids[i]) in starts]


def _end(config: ThinkerConfig, block: Tensor) -> int:
    """First position after a block: video positions look along time only, 3d ones along all axes."""
    used = block if config.rope_variant == "3d" else block[0]
    return int(used.max()) + 1 if used.numel() else 0


def _text(start: int, num_tokens: int) -> Tensor:
    return torch.arange(start, start + num_tokens).expand(3, -1)


def _cells(time: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Time of each step (t,) -> time, row and column, broadcastable to (t, height, width)."""
    return time[:, None, None], torch.arange(height)[:, None], torch.arange(width)


def _video_block(first: int, num_steps: int, height: int, width: int, seconds: float | None) -> Tensor:
    """Space is centred on time, so height and width may be negative or pass later text (spec Q7)."""
    step = TIME_SCALE if seconds is None else TIME_SCALE * seconds
    time, row, column = _cells(first + torch.arange(num_steps, dtype=torch.float32) * step, height, width)
    axes = torch.broadcast_tensors(time, time + row - (height - 1) // 2, time + column - (width - 1) // 2)
    return torch.stack(axes).flatten(1).long()  # towards zero, as published


def _3d_block(first: int, num_steps: int, height: int, width: int, seconds: float | None) -> Tensor:
    """As in Qwen2-VL: time, row and column each count from the block's start."""
    time = torch.arange(num_steps)
    if seconds is not None:
        time = (time * seconds * TIME_SCALE).long()
    axes = torch.broadcast_tensors(*_cells(time, height, width))
    return torch.stack(axes).flatten(1) + first
