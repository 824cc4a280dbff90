"""The official client against a real server: pictures painted, edited, segmented, refused and abandoned."""

import base64
import io
import json

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from tests.media import board, picture_file
from tests.serving import openai_client, serving, tiny_ming, until, whole_ming
from tests.test_server import slow_request

PICTURE = ("board.png", picture_file(board()), "image/png")
FAST = {"steps": 2}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(whole_ming(tmp_path_factory.mktemp("voices"))) as served:
        yield served


@pytest.fixture(scope="module")
def client(served):
    with openai_client(served) as client:
        yield client


def pixels(b64: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(b64))))


def test_a_generated_picture_is_what_python_paints(client, served):
    options = FAST | {"seed": 3, "negative": "dark"}
    answer = client.images.generate(model="tiny", prompt="a red cat", n=2, size="64x64", extra_body=options)
    expected = served.ming.paint("a red cat", n=2, size="64x64", **options)
    assert [
        (pixels(item.b64_json) == np.asarray(e.image)).all() for item, e in zip(answer.data, expected, strict=True)
    ] == [1, 1]
    assert (answer.size, answer.output_format) == ("64x64", "png")
    assert [item.seed for item in answer.data] == [3, 4]


def test_the_model_and_the_size_may_be_left_out(client):
    assert pixels(client.images.generate(prompt="a cat", extra_body=FAST).data[0].b64_json).shape == (64, 64, 3)


@pytest.mark.parametrize("several", [False, True])
def test_an_edited_picture_is_what_python_edits(client, served, several):
    pictures = [PICTURE, ("other.png", picture_file(board(30, 30)))] if several else PICTURE
    answer = client.images.edit(model="tiny", image=pictures, prompt="make it green", extra_body=FAST | {"seed": 1})
    sources = [data for _, data, *_ in (pictures if several else [pictures])]
    [expected] = served.ming.edit(sources, "make it green", seed=1, **FAST)
    assert (pixels(answer.data[0].b64_json) == np.asarray(expected.image)).all()


def test_pictures_that_an_edit_looks_at_are_made_small_before_the_next_is_opened(served, client, monkeypatch):
    edit, sizes = served.ming.edit, []

    def watched(images, *args, **options):
        sizes.extend(image.size for image in images)
        return edit(images, *args, **options)

    monkeypatch.setattr(served.ming, "edit", watched)
    large = ("large.png", picture_file(board(1200, 1600)))
    client.images.edit(image=[large, large], prompt="make it green", extra_body=FAST)
    assert sizes[0] == (1600, 1200) and sizes[1][0] * sizes[1][1] <= 1024 * 28**2


def segment(served, files=None, **fields) -> httpx.Response:
    files = {"image": PICTURE} if files is None else files
    data = {"what": "the red squares", "steps": 2, "seed": 1} | fields
    return httpx.post(f"{served.url}/v1/images/segmentations", files=files, data=data, timeout=60)


def test_masks_are_those_of_python_with_box_and_score(served):
    answer = segment(served, threshold=0.05).json()
    [mask] = served.ming.segment(PICTURE[1], "the red squares", threshold=0.05, seed=1, **FAST).masks
    [item] = answer["data"]
    assert (pixels(item["b64_json"]) == mask.inside).all() and mask.area > 0
    assert (tuple(item["box"]), item["area"], item["name"]) == (mask.box, mask.area, "the red squares")
    assert 0 < item["score"] < 1 and answer["size"] == "90x60"


def test_several_names_give_one_mask_each(served):
    answer = segment(served, what=["cat", "dog"]).json()
    assert [item["name"] for item in answer["data"]] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"response_format": "url"}, "response_format is not supported by this server"),
        ({"quality": "high"}, "quality is not supported by this server"),
        ({"output_format": "webp"}, "output_format is not supported by this server"),
        ({"stream": True}, "stream is not supported by this server"),
        ({"size": "9999x9999"}, "a picture of 9999x9999 is too large"),
        ({"size": "large"}, "a size is width x height"),
        ({"n": 11}, "n: input should be less than or equal to 10"),
        ({"prompt": ""}, "prompt: string should have at least 1 character"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"extra_body": {"negative": "x" * 32_001}}, "negative: string should have at most 32000 characters"),
        ({"extra_body": {"text": "x" * 32_001}}, "text: string should have at most 32000 characters"),
        ({"extra_body": {"step": 3}}, "there is no parameter step; did you mean steps?"),
    ],
)
def test_what_a_painter_cannot_do_is_said_in_a_sentence(client, options, message):
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**{"model": "tiny", "prompt": "a cat"} | options)
    assert message in caught.value.body["message"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": PICTURE}, "mask is not supported by this server"),
        ({"image": ("a.png", b"no picture")}, "the picture cannot be read"),
        ({"image": ("a.png", PICTURE[1][:200])}, "the picture cannot be read"),
        ({"size": "64x64"}, "size: input should be 'auto'"),
        ({"image": [PICTURE] * 18}, "Too many files"),
    ],
)
def test_edits_that_cannot_be_done_are_refused_in_a_sentence(client, options, message):
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(**{"model": "tiny", "image": PICTURE, "prompt": "x"} | options)
    assert message in caught.value.body["message"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"color": "pink"}, "a mask is painted in"), ({"what": " "}, "the name of what to segment is empty")],
)
def test_segmentations_that_cannot_be_done_are_refused_in_a_sentence(served, fields, message):
    answer = segment(served, **fields)
    assert answer.status_code == 400 and message in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["edits", "segmentations"])
def test_json_where_a_form_belongs_is_refused(served, path):
    answer = httpx.post(f"{served.url}/v1/images/{path}", json={"prompt": "x"})
    assert answer.status_code == 415 and "multipart/form-data" in answer.json()["error"]["message"]


def test_an_unknown_model_paints_nothing(client):
    with pytest.raises(openai.NotFoundError, match="there is no model 'dall-e-2'"):
        client.images.generate(model="dall-e-2", prompt="x")


def test_a_model_without_a_painter_says_so():
    ming = tiny_ming()
    with serving(ming) as served, openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=5) as client:
        with pytest.raises(openai.BadRequestError, match="tiny cannot paint: this model has no painter"):
            client.images.generate(model="tiny", prompt="x")
        with pytest.raises(openai.BadRequestError, match="tiny cannot paint: this model has no painter"):
            client.images.edit(model="tiny", image=PICTURE, prompt="x")


def test_whoever_leaves_ends_the_painting_after_the_step_and_those_behind_go_on(served, client, monkeypatch):
    steps, sample = [], served.ming.model.painter.sample

    def counted(*args, **options):
        for step in sample(*args, **options):
            steps.append(step.index)
            yield step

    monkeypatch.setattr(served.ming.model.painter, "sample", counted)
    body = {"prompt": "a cat", "steps": 1000}
    leaver = slow_request(served.url, path="/v1/images/generations", body=json.dumps(body).encode())
    until(lambda: steps)
    leaver.close()
    assert client.images.generate(model="tiny", prompt="a dog", extra_body=FAST).data[0].b64_json
    assert len(steps) < 900 and steps[-2:] == [0, 1]
