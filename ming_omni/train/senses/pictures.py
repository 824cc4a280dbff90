"""A bank of drawings and a number -> a batch of pictures or films that nobody has seen before, and what is asked.

Everything happens on a CPU, in a process of its own; drawing takes about 7 ms a picture on one core.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ming_omni.data import films, prompts, questions
from ming_omni.data.bank import Bank, Stock
from ming_omni.data.names import COLOURS
from ming_omni.data.render import render
from ming_omni.data.scenes import Scene, background, text_width, words
from ming_omni.data.splits import generator
from ming_omni.data.turns import turns
from ming_omni.errors import InputError
from ming_omni.inputs.image import fetch_image
from ming_omni.inputs.messages import Image, Video
from ming_omni.inputs.sizes import smart_resize
from ming_omni.inputs.video import frame_size
from ming_omni.train.senses.cells import NOTHING
from ming_omni.train.senses.rows import Batch, Row, Writer, collate
from ming_omni.train.senses.settings import PictureSettings


class Labels:
    """What a cell of a picture may show: a thing, its colour, the letters in its left and right half."""

    def __init__(self, bank: Bank):
        self.things = {name: i for i, name in enumerate(sorted(bank.concepts), 1)}  # 0: background
        self.colours = {name: i for i, name in enumerate(COLOURS, 1)}  # 0: its own
        letters = sorted({letter for font in bank.fonts for letter in font.letters} - {" "})
        self.letters = {letter: i for i, letter in enumerate(letters, 1)}  # 0: none

    @property
    def sizes(self) -> dict[str, int]:
        things, colours, letters = len(self.things) + 1, len(self.colours) + 1, len(self.letters) + 1
        return {"thing": things, "colour": colours, "left": letters, "right": letters}

    @property
    def names(self) -> dict[str, list[str]]:
        """What the labels from 1 on mean."""
        return {"thing": list(self.things), "colour": list(self.colours), "letter": list(self.letters)}

    def cells(self, stock: Stock, scene: Scene, side: int) -> np.ndarray:
        """(side, side, 4) labels in the order of `sizes`; colour is judged only where a thing is."""
        found = np.zeros((side, side, 4), np.int16)
        found[..., 1] = NOTHING
        middle = (np.arange(side) + 0.5) / side
        for thing in scene.things:
            reach = np.hypot(middle[None] - thing.x, middle[:, None] - thing.y)
            inside = reach < 0.36 * thing.size
            if not inside.any():
                inside = reach == reach.min()
            found[inside, 0] = self.things[thing.concept]
            found[inside, 1] = self.colours.get(thing.colour, 0)
        for line in scene.words:
            cursor = line.x - line.size * text_width(stock, line.font, line.text) / 2
            font = stock.bank.fonts[line.font]
            row = min(int(line.y * side), side - 1)
            for letter in line.text:
                advance = font.advances[font.letters.index(letter)] * line.size
                half = int((cursor + advance / 2) * side * 2)
                if 0 <= half < 2 * side and letter in self.letters:
                    found[row, half // 2, 2 + half % 2] = self.letters[letter]
                cursor += advance
        return found


class Pictures:
    """Batches of stills with many turns each, or of films with one."""

    def __init__(self, stock: Stock, writer: Writer, settings: PictureSettings, kind: str, tokens: int, seed: int):
        """kind: pictures or films; tokens: of a batch."""
        self.stock, self.writer, self.settings, self.kind, self.seed = stock, writer, settings, kind, seed
        self.labels = Labels(stock.bank)
        self.is_film = kind == "films"
        self.size = settings.film_pixels if self.is_film else settings.pixels
        self.length = settings.film_tokens if self.is_film else settings.tokens
        self.num_rows = tokens // self.length
        self.grid = still_grid(writer, self.size) if not self.is_film else film_grid(writer, self.size)
        self.beginning = writer.looking(Video if self.is_film else Image, self.grid)
        self.side = self.grid[1] // 2
        if len(self.beginning) + 32 > self.length:
            raise InputError(
                f"{kind} of {len(self.beginning)} tokens leave no room for a turn in rows of {self.length}"
            )

    def batch(self, number: int) -> Batch:
        examples = [self.example(number * self.num_rows + i) for i in range(self.num_rows)]
        batch = collate(
            self.kind, [row for _, row in examples], self.length, self.writer.tokenizer.pad_token_id or 0, self.num_rows
        )
        scenes = [scene for scenes, _ in examples for scene in scenes]
        batch.media["pictures"] = render(self.stock.bank, scenes, self.size).pictures.numpy()
        judged = [scene for scenes, _ in examples for scene in (scenes[::2] if self.is_film else scenes)]
        batch.media["cells"] = np.stack([self.labels.cells(self.stock, scene, self.side) for scene in judged])
        return batch

    def example(self, index: int) -> tuple[tuple[Scene, ...], Row]:
        numbers = generator(self.seed, f"{self.stock.split} {self.kind}", index)
        is_chinese = bool(numbers.random() < self.settings.chinese)
        if self.is_film:
            film = films.film(numbers, self.stock, is_chinese)
            said = [self.writer.turn(film.prompt, film.answer)]
            return film.scenes, self.writer.with_turns(self.beginning, said, self.length)
        scene, asked = self.scene(numbers, is_chinese)
        said = [self.writer.turn(*turn) for turn in asked]
        return (scene,), self.writer.with_turns(self.beginning, said, self.length)

    def scene(self, numbers: np.random.Generator, is_chinese: bool) -> tuple[Scene, list[tuple[str, str]]]:
        """A scene built around one question, whose answers are evenly spread, and everything else worth asking."""
        chances = self.settings.kinds
        kind = numbers.choice(list(chances), p=np.array(list(chances.values())) / sum(chances.values()))
        if kind == "lines":
            scene = lines(numbers, self.stock)
            first = []
        else:
            maker = prompts.caption if kind == "caption" else questions.QUESTIONS[kind]
            example = maker(numbers, self.stock, is_chinese)
            (scene,) = example.scenes
            first = [(example.prompt, example.answer)]
        listing, *rest = turns(numbers, self.stock, scene, is_chinese) or [None]
        more = [turn for turn in rest if turn not in first]
        if numbers.random() < 0.3:  # the other language sees the same picture
            more += turns(numbers, self.stock, scene, not is_chinese)[:4]
        return scene, first + ([listing] if listing else []) + more


def lines(numbers: np.random.Generator, stock: Stock) -> Scene:
    """Two to four lines of type and nothing else: many letters for one picture."""
    ground = background(numbers, stock)
    count = int(numbers.integers(2, 5))
    found = []
    for i in range(count):
        y = (i + 0.5) / count + float(numbers.uniform(-0.02, 0.02))
        line = words(numbers, stock, bool(stock.chinese_fonts) and numbers.random() < 0.5, y, ground.name)
        found.append(replace(line, size=min(line.size, 0.75 / count)))
    return Scene(ground, (), tuple(found))


def still_grid(writer: Writer, pixels: int) -> tuple[int, int, int]:
    """What a square picture of that many pixels becomes: (1, rows, columns) of patches."""
    (side, _), processor = still_sizes(writer, pixels)[-1], writer.processor.image_processor
    return 1, side // processor.patch_size, side // processor.patch_size


def still_sizes(writer: Writer, pixels: int) -> list[tuple[int, int]]:
    """Sizes of a square picture after the loader's and the processor's resize."""
    from PIL import Image as Pillow

    processor = writer.processor.image_processor
    loaded = fetch_image(Pillow.new("RGB", (pixels, pixels)), factor=processor.factor)
    read = smart_resize(
        loaded.height,
        loaded.width,
        factor=processor.factor,
        min_pixels=processor.min_pixels,
        max_pixels=processor.max_pixels,
        clamp=False,
    )
    return [(loaded.height, loaded.width), read]


def film_grid(writer: Writer, pixels: int) -> tuple[int, int, int]:
    """Frames in pairs, each of (rows, columns) of patches."""
    height, width = frame_size(pixels, pixels, films.FRAMES, writer.processor.video_options)
    patch = writer.processor.image_processor.patch_size
    return films.FRAMES // 2, height // patch, width // patch
