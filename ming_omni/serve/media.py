"""Pictures, sounds and films that strangers send -> what the processor reads, within limits; else a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from anyio import CapacityLimiter, to_thread
from PIL import Image as Pillow
from torch import Tensor

from ming_omni.errors import InputError
from ming_omni.inputs.audio import read_audio
from ming_omni.inputs.image import fetch_image, load_image
from ming_omni.inputs.messages import Audio, Image, Video
from ming_omni.inputs.source import data_url
from ming_omni.inputs.video import measure
from ming_omni.ming import Ming
from ming_omni.serve.capabilities import capabilities, require
from ming_omni.serve.door import Refused
from ming_omni.serve.fetch import Web

MAX_PIXELS = 50_000_000
"""Of one picture. Opened, a transparent one takes 15 bytes a pixel for a moment."""
MAX_MEDIA = 64
MAX_ADDRESSES = 16
MAX_FETCHING = 8
MAX_SAMPLES = 60_000_000
"""Over all channels: ten minutes of stereo at 48 kHz, 240 MB."""
MAX_FILM_SECONDS = 3600.0
MAX_FILM_PIXELS = 36_000_000
MAX_FILM_WORK = 1e11
"""Pixels to decode for the frames that are looked at: a minute or two of one core."""
KINDS = {Image: ("picture", ("image/",)), Audio: ("sound", ("audio/", "video/")), Video: ("film", ("video/", "image/"))}
ANY_TYPE = ("", "application/octet-stream", "binary/octet-stream", "application/ogg")
MEDIA = {
    "image_url": (Image, "image_in"),
    "audio_url": (Audio, "audio_in"),
    "video_url": (Video, "video_in"),
    "input_audio": (Audio, "audio_in"),
}
"""Parts of messages: the kind of medium, and what a model has to be able to do."""


def picture(data: bytes) -> Pillow.Image:
    """A picture at its own size."""
    return load_image(data, max_pixels=MAX_PIXELS)


def small_picture(data: bytes, factor: int) -> Pillow.Image:
    """A picture at the size a model sees: sides are multiples of `factor`."""
    return fetch_image(picture(data), factor=factor)


def sound(data: bytes, max_seconds: float) -> tuple[Tensor, int]:
    """(channels, n) samples and their rate."""
    return read_audio(data, max_samples=MAX_SAMPLES, max_seconds=max_seconds)


def film(data: bytes) -> bytes:
    """The same bytes, once it is certain that looking at some of their frames is little work."""
    found = measure(data)
    if found.seconds > MAX_FILM_SECONDS:
        raise InputError(
            f"the film takes {found.seconds / 60:.0f} minutes; at most {MAX_FILM_SECONDS / 60:.0f} are read"
        )
    if found.pixels > MAX_FILM_PIXELS:
        raise InputError(f"the film has frames of {found.pixels:,} pixels; at most {MAX_FILM_PIXELS:,} are read")
    if found.work > MAX_FILM_WORK:
        raise InputError("the film takes too long to decode; send a smaller or a shorter one, or one with key frames")
    return data


class Media:
    """Opens the media of requests."""

    def __init__(self, ming: Ming, web: Web):
        self.web, self.fetching = web, CapacityLimiter(MAX_FETCHING)
        self.able, self.name = capabilities(ming), ming.name
        self.factor = ming.processor.image_processor.factor
        self.max_seconds = 60 * ming.engine.longest / ming.processor.audio_processor.num_tokens(60 * 100)
        """A longer sound would not fit into a prompt."""

    async def fetch(self, messages: Iterable[Mapping]) -> dict[str, bytes]:
        """The files behind all addresses on the web, before the prompt is read."""
        wanted: dict[str, type] = {}
        num_media = 0
        for part in (part for m in messages if isinstance(m["content"], list) for part in m["content"]):
            kind = part.get("type")
            if kind not in MEDIA:
                continue
            medium, capability = MEDIA[kind]
            require(self.able, capability, self.name)
            num_media += 1
            url = part[kind].get("url") if isinstance(part.get(kind), Mapping) else part.get(kind)
            if isinstance(url, str) and url[:5].lower() != "data:":
                wanted[url] = medium
        if num_media > MAX_MEDIA or len(wanted) > MAX_ADDRESSES:
            raise InputError(f"a request has at most {MAX_MEDIA} media, {MAX_ADDRESSES} of them by address")
        files = await asyncio.gather(*(self._fetch(url, medium) for url, medium in wanted.items()))
        return dict(zip(wanted, files, strict=True))

    async def _fetch(self, url: str, medium: type) -> bytes:
        data, media_type = await to_thread.run_sync(self.web.fetch, url, limiter=self.fetching)
        check_type(media_type, medium)
        return data

    def reader(self, fetched: Mapping[str, bytes]):
        """What `from_openai` asks for the content behind an address."""

        def read(address: str, medium: type) -> Any:
            if address in fetched:
                data = fetched[address]
            elif address[:5].lower() == "data:":
                check_type(address[5:].partition(",")[0].partition(";")[0].strip().lower(), medium)
                data = data_url(address)
            else:
                raise InputError("media are sent as data: URLs, or by an https address")
            if medium is Image:
                # Made small at once, so that a request with many pictures holds one large one at a time.
                return small_picture(data, self.factor)
            return sound(data, self.max_seconds) if medium is Audio else film(data)

        return read


def check_type(media_type: str, medium: type) -> None:
    name, types = KINDS[medium]
    if media_type not in ANY_TYPE and not media_type.startswith(types):
        raise Refused(415, f"a {name} is wanted, and this says that it is {media_type[:80]}")
