"""Pictures of every kind and in every condition -> upright RGB, or one clear sentence."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ming_omni.errors import InputError
from ming_omni.inputs import image as images
from ming_omni.inputs.behaviour import PUBLISHED
from ming_omni.inputs.image import fetch_image, load_image
from ming_omni.inputs.patches import ImageProcessor
from tests.media import board, data_url, picture_file

RED, BLUE = (220, 30, 30), (30, 30, 220)


def sources(tmp_path):
    data = picture_file(board())
    path = tmp_path / "my board.png"
    path.write_bytes(data)
    yield from (path, str(path), path.as_uri(), data, bytearray(data), memoryview(data), io.BytesIO(data))
    yield from (data_url(data), board(), np.array(board()), np.array(board()) / 255.0)


def test_a_picture_is_the_same_from_wherever_it_comes(tmp_path):
    for source in sources(tmp_path):
        image = load_image(source)
        assert image.mode == "RGB" and image.size == (90, 60)
        assert np.array_equal(np.array(image), np.array(board())), type(source)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_common_formats_are_read(file_format):
    original = board(square=30)
    image = load_image(picture_file(original, file_format))
    assert np.abs(np.array(image).astype(int) - np.array(original)).mean() < 8


def test_a_picture_is_turned_as_the_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # held with the left side up: turn a quarter clockwise
    data = picture_file(board(), "JPEG", exif=exif, quality=95)
    assert load_image(data).size == (60, 90)
    assert load_image(data, PUBLISHED).size == (90, 60)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(mode):
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (0, 0, 20, 40))
    image = load_image(picture_file(clear.convert(mode)))
    assert image.getpixel((5, 5)) == (0, 0, 0)
    assert image.getpixel((35, 35)) == (255, 255, 255)


def test_printers_colours_become_screen_colours():
    image = load_image(picture_file(board().convert("CMYK"), "JPEG", quality=95))
    assert np.abs(np.array(image).astype(int) - np.array(board())).mean() < 12


def test_sixteen_bits_are_scaled_to_eight():
    ramp = np.linspace(0, 65_535, 64).astype(np.uint16)[None].repeat(64, 0)
    for source in (picture_file(Image.fromarray(ramp)), ramp):
        row = np.array(load_image(source))[0, :, 0]
        assert row[0] == 0 and row[-1] == 255
        assert (np.diff(row.astype(int)) >= 3).all()


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_read(file_format):
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE)]
    data = picture_file(frames[0], file_format, save_all=True, append_images=frames[1:])
    assert np.abs(np.array(load_image(data)).astype(int) - RED).max() < 8


def png_of_size(width: int, height: int) -> bytes:
    """A header that promises that many pixels, and a file that ends after it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize("size", [(20_000, 20_000), (60_000, 60_000), (images.MAX_IMAGE_PIXELS + 1, 1)])
def test_a_picture_too_large_is_refused_before_it_is_decoded(size):
    with pytest.raises(InputError, match="too large"):
        load_image(png_of_size(*size))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_half_a_picture_is_refused(file_format):
    data = picture_file(board(300, 300, 7), file_format)
    with pytest.raises(InputError, match="cannot be read"):
        load_image(data[: len(data) // 2])


def test_an_opened_picture_that_breaks_off_is_refused():
    image = Image.open(io.BytesIO(picture_file(board(300, 300, 7))[:600]))
    with pytest.raises(InputError, match="cannot be read"):
        load_image(image)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nowhere.png", "there is no picture file"),
        (b"", "unknown or damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unknown or damaged"),
        ("https://example.com/cat.png", "https addresses are not fetched"),
        ("ftp://example.com/cat.png", "ftp addresses are not fetched"),
        ("data:image/png;base64,%%%", "not valid base64"),
        ("data:image/png;base64", "needs a comma"),
        ("a\0b.png", "cannot be opened|there is no picture"),
        ("x" * 5000, "cannot be opened|there is no picture"),
        (42, "cannot be read from int"),
        (None, "cannot be read from NoneType"),
        (np.zeros((3, 4, 5, 6)), "is not a picture"),
        (np.zeros((0, 4, 3), np.uint8), "is empty"),
        (np.full((4, 4), np.nan), "not finite"),
        (np.array([["a"]]), "cannot be made of"),
    ],
)
def test_what_is_not_a_picture_is_told_in_one_sentence(source, reason):
    with pytest.raises(InputError, match=reason) as error:
        load_image(source)
    assert "\n" not in str(error.value)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_a_picture_or_an_input_error(data):
    for head in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBPVP8 "):
        with contextlib.suppress(InputError):
            assert load_image(head + data).mode == "RGB"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]), st.data())
def test_a_picture_with_damaged_bytes_is_a_picture_or_an_input_error(file_format, data):
    file = bytearray(picture_file(board(30, 30), file_format))
    for _ in range(data.draw(st.integers(1, 8))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputError):
        assert load_image(bytes(file)).mode == "RGB"


def test_the_loader_takes_limits_and_sizes_per_picture():
    image = board(300, 500)
    assert fetch_image(image).size == (504, 308)
    assert fetch_image(image, max_pixels=28 * 28 * 16).size == (140, 84)
    assert fetch_image(image, resized_height=56, resized_width=112).size == (112, 56)


def test_patches_of_one_token_are_neighbours_and_a_still_picture_fills_two_frames():
    # Each 14x14 patch is one grey, numbered row by row over 4 rows of 6.
    greys = np.arange(24).reshape(4, 6).repeat(14, 0).repeat(14, 1).astype(np.uint8)
    processor = ImageProcessor(min_pixels=1, image_mean=(0, 0, 0), image_std=(1, 1, 1))
    rows, grid = processor([Image.fromarray(greys).convert("RGB")])
    assert grid.tolist() == [[1, 4, 6]]
    assert rows.shape == (24, 3 * 2 * 14 * 14)
    numbers = (rows * 255).round().int()
    assert (numbers == numbers[:, :1]).all()
    assert numbers[:8, 0].tolist() == [0, 1, 6, 7, 2, 3, 8, 9]
    assert processor.num_tokens(grid[0]) == 6


def test_frames_of_a_video_go_in_pairs():
    frames = torch.arange(4.0)[:, None, None, None].expand(4, 3, 28, 28)
    processor = ImageProcessor(image_mean=(0, 0, 0), image_std=(1, 1, 1))
    rows, grid = processor.videos([frames])
    assert grid.tolist() == [[2, 2, 2]]
    assert (rows[0].view(3, 2, 196) * 255)[0].mean(1).tolist() == pytest.approx([0, 1])
    assert (rows[4].view(3, 2, 196) * 255)[0].mean(1).tolist() == pytest.approx([2, 3])
    with pytest.raises(InputError, match="multiple of 2 frames, not 3"):
        processor.videos([frames[:3]])
