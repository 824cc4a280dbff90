"""Scenes -> pictures (B, 3, S, S) and who owns each pixel (B, S, S), all scenes at once, on the CPU or a GPU alike.

Each thing is sampled into a small window and blended where it belongs: every scene's first thing, then the second, ...
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ming_omni.data.bank import TEXTURE_SIDE, Bank
from ming_omni.data.names import COLOURS, INKS
from ming_omni.data.scenes import Background, Scene, Thing
from ming_omni.data.sprites import GLYPH_SIDE, GLYPH_SIZE

SMALL = 0.25
"""Things of at most this part of a 256 picture are drawn from the halved sprites."""
LUMINANCE = (0.299, 0.587, 0.114)


@dataclass
class Rendered:
    pictures: Tensor
    """(B, 3, S, S) uint8"""
    owners: Tensor
    """(B, S, S) uint8: 0 background, k the k-th thing, 255 a letter"""

    def mask(self, scene: int, numbers: Sequence[int]) -> Tensor:
        """Where the given things (counted from 0) are seen, (S, S)."""
        wanted = torch.tensor([number + 1 for number in numbers], dtype=torch.uint8, device=self.owners.device)
        return torch.isin(self.owners[scene], wanted)


@torch.no_grad()
def render(bank: Bank, scenes: Sequence[Scene], size: int = 256) -> Rendered:
    canvas = Canvas(draw_backgrounds(bank, [scene.background for scene in scenes], size))
    for number in range(max((len(scene.things) for scene in scenes), default=0)):
        rows = [(i, scene.things[number]) for i, scene in enumerate(scenes) if len(scene.things) > number]
        _draw_things(bank, canvas, rows, number + 1)
    letters = [_letters(bank, scene) for scene in scenes]
    for number in range(max(map(len, letters), default=0)):
        rows = [(i, line[number]) for i, line in enumerate(letters) if len(line) > number]
        _draw_letters(bank, canvas, rows)
    return canvas.finish()


# Backgrounds


def draw_backgrounds(bank: Bank, backgrounds: Sequence[Background], size: int) -> Tensor:
    """(B, S, S, 3) in [0, 255]"""
    device = bank.device

    def column(values) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float32, device=device)

    line = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size  # (S)
    horizon = column(b.horizon for b in backgrounds)[:, None]
    above = (line / horizon).clamp(0, 1)[..., None]  # (B, S, 1)
    below = ((line - horizon) / (1 - horizon).clamp(min=1e-3)).clamp(0, 1)[..., None]
    sky, ground = column(b.sky for b in backgrounds), column(b.ground for b in backgrounds)  # (B, 2, 3)
    sky = torch.lerp(sky[:, :1], sky[:, 1:], above)
    ground = torch.lerp(ground[:, :1], ground[:, 1:], below)
    rows = torch.where((line < horizon)[..., None], sky, ground)  # (B, S, 3)
    pictures = rows[:, :, None].repeat(1, 1, size, 1)  # (B, S, S, 3)

    if patterned := [i for i, b in enumerate(backgrounds) if b.pattern]:
        amount = torch.stack([_pattern(bank, backgrounds[i], size) for i in patterned])[..., None]
        ink = column(backgrounds[i].ink for i in patterned)[:, None, None]
        pictures[patterned] = torch.lerp(pictures[patterned], ink, amount)
    if photographed := [i for i, b in enumerate(backgrounds) if b.photo >= 0]:
        photos = bank.photos[[backgrounds[i].photo for i in photographed]].float()
        pictures[photographed] = _crops(photos, [backgrounds[i].shift for i in photographed], size).permute(0, 2, 3, 1)
    if noisy := [i for i, b in enumerate(backgrounds) if b.noise]:
        pixels = torch.arange(size, device=device) * 256 // size
        y, x = column(backgrounds[i].shift for i in noisy).long().unbind(1)
        rows, columns = (y[:, None] + pixels) % TEXTURE_SIDE, (x[:, None] + pixels) % TEXTURE_SIDE
        texture = bank.texture[rows[:, :, None], columns[:, None, :]]  # (n, S, S)
        strength = column(backgrounds[i].noise for i in noisy)[:, None, None] * 255
        pictures[noisy] += (texture * strength)[..., None]
    return pictures.clamp_(0, 255)


def _pattern(bank: Bank, background: Background, size: int) -> Tensor:
    """How much ink each pixel takes, (S, S) in [0, 1]; edges one pixel soft."""
    line = (torch.arange(size, device=bank.device, dtype=torch.float32) + 0.5) / size
    y, x = line[:, None], line[None]
    turn = math.radians(background.angle)
    shift_y, shift_x = (s / 512 for s in background.shift)
    a = (x * math.cos(turn) + y * math.sin(turn)) * background.scale + shift_x
    b = (-x * math.sin(turn) + y * math.cos(turn)) * background.scale + shift_y
    edge = size / background.scale  # pixels of a period
    if background.pattern == "stripes":
        wave = (0.25 - ((a % 1) - 0.5).abs()) * edge
    elif background.pattern == "checks":
        half_a, half_b = 0.25 - ((a % 1) - 0.5).abs(), 0.25 - ((b % 1) - 0.5).abs()
        wave = half_a.sign() * half_b.sign() * torch.minimum(half_a.abs(), half_b.abs()) * edge
    elif background.pattern == "dots":
        wave = (0.28 - torch.hypot((a % 1) - 0.5, (b % 1) - 0.5)) * edge
    else:  # stars: one in each cell, somewhere; the texture decides where and how bright
        cell_a, cell_b = a.floor().long(), b.floor().long()
        noise = bank.texture[(cell_a * 37 + cell_b * 101) % TEXTURE_SIDE, (cell_a * 59 + cell_b * 17) % TEXTURE_SIDE]
        place = 0.5 + noise.clamp(-0.4, 0.4)
        wave = (0.03 + 0.03 * noise.abs() - torch.hypot((a % 1) - place, (b % 1) - (1 - place))) * edge
        wave = torch.where(y < background.horizon, wave, -1.0)
    return (wave + 0.5).clamp(0, 1)


def _crops(photos: Tensor, shifts: Sequence[tuple[int, int]], size: int) -> Tensor:
    """(n, 3, H, W) -> a window of each (n, 3, S, S), 60 to 100 % wide, some mirrored, placed by the shift."""
    theta = []
    for vertical, horizontal in shifts:
        width = 0.6 + 0.4 * ((vertical * 7 + horizontal * 13) % 512) / 512
        x, y = (1 - width) * (horizontal / 256 - 1), (1 - width) * (vertical / 256 - 1)
        theta.append([[width * (-1 if vertical % 2 else 1), 0, x], [0, width, y]])
    grid = F.affine_grid(torch.tensor(theta, device=photos.device), (len(photos), 3, size, size), align_corners=False)
    return F.grid_sample(photos, grid, align_corners=False, padding_mode="reflection")


# Things and letters


class Canvas:
    """Pictures being painted, one row for each pixel, and the number of the thing seen there."""

    def __init__(self, pictures: Tensor):
        self.count, self.size = pictures.shape[:2]
        self.pictures = pictures.reshape(-1, 3)
        self.owners = torch.zeros(len(self.pictures), dtype=torch.uint8, device=pictures.device)

    def blend(self, rows: Tensor, top: Tensor, left: Tensor, window: Tensor, owner: int) -> None:
        """Lay windows (n, 4, h, w), premultiplied in [0, 255], over pictures `rows` (n); outside nothing happens."""
        h, w = window.shape[2:]
        y = top[:, None] + torch.arange(h, device=top.device)  # (n, h)
        x = left[:, None] + torch.arange(w, device=top.device)
        is_inside = ((y >= 0) & (y < self.size))[:, :, None] & ((x >= 0) & (x < self.size))[:, None, :]
        y, x = y.clamp(0, self.size - 1), x.clamp(0, self.size - 1)
        place = (rows[:, None, None] * self.size + y[:, :, None]) * self.size + x[:, None, :]  # (n, h, w)
        alpha = window[:, 3]
        keep = is_inside & (alpha > 1)
        place, layer = place[keep], window.permute(0, 2, 3, 1)[keep]  # (m), (m, 4)
        alpha = layer[:, 3:] / 255
        self.pictures[place] = self.pictures[place] * (1 - alpha) + layer[:, :3]
        self.owners[place[layer[:, 3] > 127]] = owner

    def finish(self) -> Rendered:
        shape = (self.count, self.size, self.size)
        pictures = self.pictures.view(*shape, 3).clamp(0, 255).round().to(torch.uint8).permute(0, 3, 1, 2)
        return Rendered(pictures.contiguous(), self.owners.view(shape))


def _draw_things(bank: Bank, canvas: Canvas, rows: list[tuple[int, Thing]], owner: int) -> None:
    """Large and small ones apart, each in windows as large as the largest needs."""
    small = [row for row in rows if row[1].size * canvas.size <= SMALL * 256]
    large = [row for row in rows if row[1].size * canvas.size > SMALL * 256]
    for group, atlas in ((small, bank.small), (large, bank.sprites)):
        if not group:
            continue
        things = [thing for _, thing in group]
        sprites = atlas[[thing.sprite for thing in things]].float()  # (n, 4, s, s)
        sprites = _tint(sprites, things)
        rows_at = torch.tensor([i for i, _ in group], device=bank.device)
        place = torch.tensor(
            [[t.x, t.y, t.size, math.radians(t.angle), -1.0 if t.is_mirrored else 1.0] for t in things],
            dtype=torch.float32,
            device=bank.device,
        )
        _stamp(canvas, rows_at, sprites, place, owner)


def _stamp(canvas: Canvas, rows: Tensor, sprites: Tensor, place: Tensor, owner: int) -> None:
    """Sample sprites (n, 4, s, s) at places (n, 5): x, y, size in parts of the picture, turn, mirror."""
    x, y, size = (place[:, :3] * canvas.size).unbind(1)
    turn, mirror = place[:, 3], place[:, 4]
    reach = (size * (turn.cos().abs() + turn.sin().abs())).max().item()
    window = math.ceil(reach) + 2
    left, top = (x - window / 2).floor(), (y - window / 2).floor()
    line = torch.arange(window, device=rows.device) + 0.5
    dx = left[:, None] + line - x[:, None]  # (n, w)
    dy = top[:, None] + line - y[:, None]
    cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None]
    u = (dx[:, None, :] * cos + dy[:, :, None] * sin) * mirror[:, None, None]
    v = -dx[:, None, :] * sin + dy[:, :, None] * cos
    grid = torch.stack([u, v], dim=-1) * (2 / size)[:, None, None, None]
    sampled = F.grid_sample(sprites, grid, align_corners=False, padding_mode="zeros")
    canvas.blend(rows, top.long(), left.long(), sampled, owner)


def _tint(sprites: Tensor, things: Sequence[Thing]) -> Tensor:
    """Light and shade stay, the hue becomes the asked one; middle grey turns into the colour itself."""
    tinted = [i for i, thing in enumerate(things) if thing.colour]
    if not tinted:
        return sprites
    chosen = sprites[tinted]
    alpha = chosen[:, 3:] / 255
    weights = torch.tensor(LUMINANCE, device=sprites.device)[:, None, None]
    light = (chosen[:, :3] * weights).sum(1, keepdim=True) / alpha.clamp(min=1e-3) / 255  # (n, 1, s, s)
    # The brightest part of a drawing becomes the pure colour; a third of its contrast stays as shade.
    brightest = F.avg_pool2d(light * (alpha > 0.5), 8).amax(dim=(1, 2, 3), keepdim=True)
    shade = (0.45 + 0.55 * light / brightest.clamp(min=0.05)).clamp(0.3, 1.08)
    colour = torch.tensor([COLOURS[things[i].colour][1] for i in tinted], device=sprites.device, dtype=torch.float32)
    sprites[tinted, :3] = (colour[:, :, None, None] * shade).clamp(0, 255) * alpha
    return sprites


@dataclass(frozen=True)
class Letter:
    glyph: int
    colour: tuple[int, int, int]
    x: float
    y: float
    size: float


def _letters(bank: Bank, scene: Scene) -> list[Letter]:
    """Every line of type, letter by letter: where the middle of each cell comes to stand."""
    found = []
    for line in scene.words:
        font = bank.fonts[line.font]
        numbers = [font.letters.index(letter) for letter in line.text]
        cursor = line.x - line.size * sum(font.advances[i] for i in numbers) / 2
        for i in numbers:
            advance = font.advances[i] * line.size
            found.append(Letter(font.first + i, INKS[line.colour][1], cursor + advance / 2, line.y, line.size))
            cursor += advance
    return found


def _draw_letters(bank: Bank, canvas: Canvas, rows: list[tuple[int, Letter]]) -> None:
    letters = [letter for _, letter in rows]
    alpha = bank.glyphs[[letter.glyph for letter in letters]].float()  # (n, 1, 48, 48)
    colour = torch.tensor([letter.colour for letter in letters], device=bank.device, dtype=torch.float32)
    cells = torch.cat([colour[:, :, None, None] * alpha / 255, alpha], dim=1)
    cell = GLYPH_SIDE / GLYPH_SIZE
    place = torch.tensor(
        [[a.x, a.y, a.size * cell, 0.0, 1.0] for a in letters], dtype=torch.float32, device=bank.device
    )
    _stamp(canvas, torch.tensor([i for i, _ in rows], device=bank.device), cells, place, 255)
