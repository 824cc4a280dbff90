"""Pictures and frames -> rows of pixels (P, 1176) and grids (n, 3): the image processor, without the loader."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ming_omni.errors import InputError
from ming_omni.inputs.sizes import smart_resize

# CLIP's own statistics (spec 3.4).
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ImageProcessor:
    """The second resize of a still picture, then patches. Set `min_pixels`, `max_pixels` to change token counts."""

    def __init__(
        self,
        patch_size: int = 14,
        temporal_patch_size: int = 2,
        merge_size: int = 2,
        min_pixels: int = 78_400,
        max_pixels: int = 2_007_040,
        image_mean: Sequence[float] = MEAN,
        image_std: Sequence[float] = STD,
    ):
        self.patch_size, self.temporal_patch_size, self.merge_size = patch_size, temporal_patch_size, merge_size
        self.min_pixels, self.max_pixels = min_pixels, max_pixels
        self.image_mean, self.image_std = tuple(image_mean), tuple(image_std)

    @property
    def factor(self) -> int:
        """Pixels along one side of a token."""
        return self.patch_size * self.merge_size

    def __call__(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Each picture twice along time -> rows (P, C·2·14·14), grid (n, 3) of (frame pairs, rows, columns)."""
        return self._join([self._still(image) for image in images])

    def videos(self, videos: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Videos (T, 3, H, W) of 0..255, already resized -> rows, grid. Consecutive frames share a patch."""
        return self._join(videos)

    def num_tokens(self, grid: Sequence[int]) -> int:
        frames, rows, columns = (int(n) for n in grid)
        return frames * rows * columns // self.merge_size**2

    def _still(self, image: Image.Image) -> Tensor:
        height, width = smart_resize(
            image.height,
            image.width,
            factor=self.factor,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
            clamp=False,
        )
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        frame = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return frame.expand(self.temporal_patch_size, -1, -1, -1)

    def _join(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        rows, grids = zip(*(self._patches(clip) for clip in clips), strict=True)
        return torch.cat(rows), torch.tensor(grids)

    def _patches(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Merge blocks stay together: rows run over (t, h, w, 2, 2), columns over (channel, time, y, x)."""
        if len(frames) % self.temporal_patch_size:
            raise InputError(f"a video needs a multiple of {self.temporal_patch_size} frames, not {len(frames)}")
        mean = torch.tensor(self.image_mean)[:, None, None]
        std = torch.tensor(self.image_std)[:, None, None]
        pixels = (frames.float() * (1 / 255) - mean) / std  # (T, 3, H, W)
        p, merge = self.patch_size, self.merge_size
        rows = rearrange(
            pixels,
            "(t l) c (h a y) (w b x) -> (t h w a b) (c l y x)",
            l=self.temporal_patch_size, a=merge, b=merge, y=p, x=p,
        )  # fmt: skip
        length, _, height, width = frames.shape
        return rows, (length // self.temporal_patch_size, height // p, width // p)
