"""POST /v1/images/generations, edits and segmentations: words and pictures -> pictures and masks, as PNG in JSON."""

from __future__ import annotations

import time
from base64 import b64encode
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from ming_omni.ming import Ming
from ming_omni.paint.picture import Picture
from ming_omni.paint.segment import Segmentation
from ming_omni.paint.verbs import MAX_STEPS, Cancelled, OnStep
from ming_omni.serve.capabilities import capabilities, require
from ming_omni.serve.door import check_model, check_running
from ming_omni.serve.form import described, read_form
from ming_omni.serve.media import picture, small_picture
from ming_omni.serve.schema import Body
from ming_omni.serve.work import Studio

MOST_INSIDE = 16
"""Requests; one is painted at a time, the others wait."""
MOST_PICTURES = 10
MOST_LOOKED_AT = 16
"""Pictures of one edit."""
MOST_CHARACTERS = 32_000
"""Of each text; all three as OpenAI limits them."""
UNSUPPORTED = {
    "background": ("auto", "opaque"),
    "complexity": (),
    "frame_count": (),
    "frame_duration_ms": (),
    "input_fidelity": (),
    "markup": (),
    "mask": (),
    "moderation": ("auto",),
    "output_compression": (),
    "partial_images": (0, "0"),
    "prompt_rewriter": (),
    "quality": ("auto", "standard"),
    "response_format": ("b64_json",),
    "output_format": ("png",),
    "safety_identifier": (),
    "stream": (False, "false"),
    "style": (),
    "svg": (),
}


class PaintingBody(Body):
    """What generations and edits have in common."""

    without = UNSUPPORTED
    model: str | None = None
    prompt: str = Field(min_length=1, max_length=MOST_CHARACTERS)
    n: int = Field(1, ge=1, le=MOST_PICTURES)
    size: str = "auto"
    user: str = ""
    # Ours
    seed: int | None = Field(None, ge=0, lt=2**64)
    steps: int | None = Field(None, ge=1, le=MAX_STEPS)
    guidance: float | None = Field(None, ge=0, le=100)
    negative: str | None = Field(None, max_length=MOST_CHARACTERS)
    text: str | None = Field(None, max_length=MOST_CHARACTERS)

    @property
    def options(self) -> dict[str, Any]:
        names = ("n", "seed", "steps", "guidance", "negative", "text")
        return {name: getattr(self, name) for name in names}


class GenerationBody(PaintingBody):
    """POST /v1/images/generations"""

    # Ours
    aspect: str | None = None


class EditBody(PaintingBody):
    """The fields of POST /v1/images/edits besides its pictures; the first one is changed, the others looked at."""

    size: Literal["auto"] = "auto"
    image_guidance: float | None = Field(None, ge=0, le=100)


class SegmentationBody(Body):
    """The fields of POST /v1/images/segmentations besides its picture; several `what` give one mask each."""

    without = {"response_format": ("b64_json",), "output_format": ("png",), "n": (1, "1"), "size": ("auto",)}
    model: str | None = None
    what: list[str] = Field(min_length=1)
    instances: bool = False
    color: str = "red"
    threshold: float | None = Field(None, ge=0, lt=1)
    user: str = ""
    seed: int | None = Field(None, ge=0, lt=2**64)
    steps: int | None = Field(None, ge=1, le=MAX_STEPS)


def router(ming: Ming) -> APIRouter:
    routes, studio, able = APIRouter(), Studio(MOST_INSIDE), capabilities(ming)
    factor = ming.processor.image_processor.factor

    def check(body: PaintingBody | SegmentationBody) -> None:
        check_running(ming)
        check_model(ming, body.model)
        require(able, "image_out", ming.name)

    async def painted(http: Request, work) -> Response:
        """Pictures or masks as JSON; whoever left needs no answer."""
        try:
            result = await studio.paint(http, work)
        except Cancelled:
            result = None
        if result is None:
            return Response()
        shown = _masks(result) if isinstance(result, Segmentation) else _pictures(result)
        return JSONResponse({"created": int(time.time()), "output_format": "png", **shown})

    @routes.post("/v1/images/generations")
    async def generations(http: Request, body: GenerationBody) -> Response:
        check(body)
        size = None if body.size == "auto" else body.size
        return await painted(
            http,
            lambda on_step: ming.paint(body.prompt, size=size, aspect=body.aspect, on_step=on_step, **body.options),
        )

    @routes.post("/v1/images/edits", openapi_extra=described(EditBody, ("image",), several=True))
    async def edits(http: Request) -> Response:
        files, body = await read_form(http, EditBody, ("image",), max_files=MOST_LOOKED_AT + 1)
        check(body)
        options = body.options | {"image_guidance": body.image_guidance}

        def edited(on_step: OnStep) -> list[Picture]:
            first, *others = files["image"]
            # Those that are only looked at are made small at once, so that one large picture is held at a time.
            looked_at = [small_picture(data, factor) for data in others]
            return ming.edit([picture(first), *looked_at], body.prompt, on_step=on_step, **options)

        return await painted(http, edited)

    @routes.post("/v1/images/segmentations", openapi_extra=described(SegmentationBody, ("image",)))
    async def segmentations(http: Request) -> Response:
        files, body = await read_form(http, SegmentationBody, ("image",), ("what",))
        check(body)
        what, classes = (body.what[0], None) if len(body.what) == 1 else (None, body.what)
        options = {name: getattr(body, name) for name in ("instances", "color", "threshold", "seed", "steps")}
        return await painted(
            http,
            lambda on_step: ming.segment(picture(files["image"][0]), what, classes=classes, on_step=on_step, **options),
        )

    return routes


def _pictures(pictures: list[Picture]) -> dict[str, Any]:
    width, height = pictures[0].size
    data = [{"b64_json": b64encode(picture.png()).decode(), "seed": picture.seed} for picture in pictures]
    return {"size": f"{width}x{height}", "background": "opaque", "data": data}


def _masks(found: Segmentation) -> dict[str, Any]:
    width, height = found.image.size
    data = [
        {
            "b64_json": b64encode(mask.png()).decode(),
            "name": mask.name,
            "color": mask.color,
            "box": mask.box,
            "area": mask.area,
            "score": round(mask.score, 4),
        }
        for mask in found.masks
    ]
    return {"size": f"{width}x{height}", "seed": found.edited.seed, "data": data}
