"""Videos of every kind -> the frames the rules choose, at the size the rules give."""

import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ming_omni.errors import InputError
from ming_omni.inputs.behaviour import PUBLISHED
from ming_omni.inputs.video import FrameOptions, choose_frames, frame_indices, frame_size, load_video, resize_frames
from tests.media import board, data_url, grey, movie, picture_file, tone, wav

SMALL = {"min_pixels": 28 * 28, "max_pixels": 56 * 56}


def numbers(frames: torch.Tensor, total: int) -> list[int]:
    """Which frame of `movie` each one is, read from its grey."""
    greys = np.array([grey(i, total) for i in range(total)])
    return [int(np.abs(greys - value).argmin()) for value in frames.float().mean((1, 2, 3)).tolist()]


def test_a_short_clip_is_read_whole_and_a_long_one_twice_a_second():
    options = FrameOptions(**SMALL)
    assert numbers(load_video(movie(12, fps=4), options), 12) == list(range(12))
    assert numbers(load_video(movie(20, fps=4), options), 20) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 19]


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp4", "mpeg4"),
        ("mp4", "libx264"),
        ("matroska", "mpeg4"),
        ("webm", "libvpx"),
        ("avi", "mpeg4"),
        ("mpegts", "mpeg2video"),
    ],
)
def test_common_containers_are_read(container, codec):
    fps = 24 if codec == "mpeg2video" else 4
    frames = load_video(movie(12, fps, container=container, codec=codec), FrameOptions(**SMALL))
    assert frames.dtype == torch.uint8
    assert numbers(frames, 12) == list(range(12))


@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "mpeg4"), ("mp4", "libx264"), ("mpegts", "mpeg2video"), ("matroska", "libx264")]
)
def test_jumping_over_long_gaps_finds_the_same_frames_as_reading_on(container, codec):
    total = 200
    clip = movie(total, fps=30, container=container, codec=codec, gop=10)
    frames = load_video(clip, FrameOptions(nframes=4, **SMALL))
    expected = frame_indices(total, 4)
    greys = [grey(i, total) for i in expected]
    assert frames.float().mean((1, 2, 3)).tolist() == pytest.approx(greys, abs=2.5)


def test_bytes_paths_data_urls_folders_and_lists_give_the_same_frames(tmp_path):
    clip = movie(4)
    (tmp_path / "clip.mp4").write_bytes(clip)
    options = FrameOptions(**SMALL)
    whole = load_video(clip, options)
    for source in (tmp_path / "clip.mp4", str(tmp_path / "clip.mp4"), data_url(clip, "video/mp4")):
        assert torch.equal(load_video(source, options), whole)
    folder = tmp_path / "frames"
    folder.mkdir()
    pictures = [board(60 + i, 90) for i in range(4)]
    for i, picture in enumerate(pictures):
        (folder / f"{i:02}.png").write_bytes(picture_file(picture))
    (folder / "notes.txt").write_text("not a frame")
    listed = load_video(pictures, options)
    assert torch.equal(load_video(folder, options), listed)
    assert torch.equal(load_video([str(p) for p in sorted(folder.glob("*.png"))], options), listed)
    arrays = np.stack([np.array(board())] * 4)
    assert torch.equal(load_video(arrays, options), load_video(torch.from_numpy(arrays).permute(0, 3, 1, 2), options))


@pytest.mark.parametrize(("count", "expected"), [(1, [0, 0]), (2, [0, 1]), (3, [0, 1, 2, 2]), (5, [0, 1, 2, 4])])
def test_any_number_of_frames_will_do_unless_published_behaviour_is_asked_for(count, expected):
    frames = [np.full((56, 56, 3), grey(i, count), np.uint8) for i in range(count)]
    assert numbers(load_video(frames, FrameOptions(**SMALL)), count) == expected
    assert numbers(load_video(movie(count), FrameOptions(**SMALL)), count) == expected
    if count < 4:
        with pytest.raises(InputError, match="frames were asked for"):
            load_video(frames, FrameOptions(**SMALL), PUBLISHED)
    else:
        assert len(load_video(frames, FrameOptions(**SMALL), PUBLISHED)) == count


@pytest.mark.parametrize(
    ("total", "options", "expected"),
    [
        (10, {}, list(range(10))),
        (301, {}, [0, 2, 4, 7, 9, 11, 14, 16, 18, 21]),
        (301, {"max_frames": 40}, [0, 7, 15, 23, 30, 38, 46, 53, 61, 69]),
        (301, {"max_frames": 40, "sample": "uniform"}, [3, 10, 18, 25, 33, 40, 48, 55, 63, 70]),
        (5, {}, [0, 1, 2, 4]),
        (20, {"nframes": 7}, [0, 2, 5, 8, 10, 13, 16, 19]),
    ],
)
def test_frames_are_chosen_as_published(total, options, expected):
    indices, _ = choose_frames(total, 0.0, FrameOptions(**options), PUBLISHED)
    assert indices[:10] == expected
    assert choose_frames(total, 0.0, FrameOptions(**options))[0] == indices


@pytest.mark.parametrize(("count", "size"), [(128, (280, 504)), (32, (560, 1008)), (4, (728, 1288))])
def test_more_frames_are_smaller_frames_as_published(count, size):
    assert frame_size(720, 1280, count, FrameOptions()) == size


@given(
    st.integers(1, 2000),
    st.floats(0, 120),
    st.builds(
        FrameOptions,
        nframes=st.none() | st.integers(1, 200),
        min_frames=st.none() | st.integers(1, 50),
        max_frames=st.none() | st.integers(1, 200),
        sample=st.sampled_from(["sequence", "uniform", "random"]),
    ),
)
def test_chosen_frames_exist_are_even_in_number_and_never_go_back(total, fps, options):
    indices, _ = choose_frames(total, fps, options)
    assert len(indices) % 2 == 0 < len(indices)
    assert indices == sorted(indices)
    assert indices[0] >= 0 and indices[-1] < total
    assert len(indices) <= total + total % 2


def test_random_frames_lie_one_in_each_part_and_are_the_same_next_time():
    indices = frame_indices(500, 20, "random")
    assert [index // 25 for index in indices] == list(range(20))
    assert indices == frame_indices(500, 20, "random")
    assert indices != frame_indices(500, 20, "uniform")


@given(st.integers(200, 3000), st.integers(200, 3000), st.integers(1, 64).map(lambda n: 2 * n))
def test_a_whole_video_stays_within_its_budget(height, width, count):
    new_height, new_width = frame_size(height, width, count, FrameOptions())
    assert new_height % 28 == new_width % 28 == 0
    share = max(96 * 128 * 784 / count * 2, int(128 * 784 * 1.05))
    assert new_height * new_width <= share


def test_a_clip_filmed_upright_is_shown_upright():
    import av

    file = io.BytesIO()
    half = np.zeros((48, 64, 3), np.uint8)
    half[:, 32:] = 255
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(4):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(half, format="rgb24")))
        output.mux(stream.encode(None))
    data = turned_by_90(file.getvalue())
    upright, stored = load_video(data), load_video(data, behaviour=PUBLISHED)
    assert upright.shape[2] > upright.shape[3] and stored.shape[2] < stored.shape[3]
    top, bottom = upright[0].float().chunk(2, dim=1)
    left, right = stored[0].float().chunk(2, dim=2)
    assert right.mean() - left.mean() > 200
    assert bottom.mean() - top.mean() > 200  # turned clockwise, what was on the right lies below


def turned_by_90(mp4: bytes) -> bytes:
    """The same file with a quarter turn in its track header's matrix."""
    at = mp4.index(b"tkhd")
    one = (0x10000).to_bytes(4, "big")
    matrix = mp4.index(one + b"\0" * 12 + one + b"\0" * 12 + (0x40000000).to_bytes(4, "big"), at)
    turn = b"\0" * 4 + one + b"\0" * 4 + (0xFFFF0000).to_bytes(4, "big")
    return mp4[:matrix] + turn + mp4[matrix + 16 :]


def test_bytes_stay_bytes_and_floats_keep_their_fractions():
    frames = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    exact = torch.nn.functional.interpolate(
        frames.float(), size=(28, 56), mode="bilinear", align_corners=False, antialias=True
    )
    assert torch.equal(resize_frames(frames, (28, 56)), exact.round().to(torch.uint8))
    assert torch.equal(resize_frames(frames.float(), (28, 56)), exact)


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (PLAYLIST, "cannot be read"),
        (b"ffconcat version 1.0\nfile '/etc/hostname'\n", "cannot be read"),
        (b"", "cannot be read"),
        (wav(tone()), "holds no video"),
        (movie(8)[:600], "cannot be read|holds no video"),
        ("nowhere.mp4", "there is no video file"),
        ("https://example.com/a.mp4", "not fetched"),
        ([], "list of frames is empty"),
        ([b"junk"], "cannot be read"),
        (np.zeros((4, 4)), "is not a video"),
    ],
)
def test_what_is_not_a_video_is_told_in_one_sentence(source, reason):
    with pytest.raises(InputError, match=reason) as error:
        load_video(source)
    assert "\n" not in str(error.value)


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no pictures"):
        load_video(tmp_path)


@pytest.mark.parametrize(
    "options", [{"sample": "best"}, {"nframes": 0}, {"max_frames": "many"}, {"min_pixels": -1}, {"max_video_fps": 0}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(InputError):
        FrameOptions(**options)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_are_a_video_or_an_input_error(data):
    for head in (b"", b"\0\0\0\x18ftypmp42", b"\x1aE\xdf\xa3", b"RIFF\0\0\0\0AVI LIST", b"OggS", b"FLV\x01\x05"):
        with contextlib.suppress(InputError):
            assert load_video(head + data).ndim == 4


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([movie(6), movie(6, codec="libx264"), movie(6, container="avi")]), st.data())
def test_a_video_with_damaged_bytes_is_a_video_or_an_input_error(clip, data):
    file = bytearray(clip)
    for _ in range(data.draw(st.integers(1, 12))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputError):
        assert len(load_video(bytes(file), FrameOptions(**SMALL))) % 2 == 0
