"""What callers order while processes are killed: small requests of several kinds, by a seed."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import av
import numpy as np
import PIL.Image

from deployments.wire import Image
from serve.http.examples import payload
from serve.media.samples import clip, data_uri, stranger

Way = Literal["stay", "poll", "listen", "wait", "leave"]
"""How a caller gets its result: by the connection of its POST, by reading the record again and
again, by the events, by a wait for the result, or only after everybody else has theirs."""
WAYS: tuple[Way, ...] = ("stay", "poll", "listen", "wait", "leave")
SMALL = {"width": 64, "height": 64, "length": 5, "steps": 3}
SLOW = {"width": 128, "height": 128, "length": 9, "steps": 8}
SWAPPED = {"width": 128, "height": 128, "length": 5, "steps": 2}


@dataclass(frozen=True)
class Kind:
    """A request that is ordered again and again, so that its result is known."""

    name: str
    endpoint: str
    body: dict[str, Any]
    accept: str


@dataclass(frozen=True)
class Order:
    """One request of a caller, by which it wants one job."""

    number: int
    caller: int
    kind: Kind
    way: Way

    @property
    def key(self) -> str:
        """The idempotency key, under which the request may be sent several times."""
        return f"order-{self.number}"


@cache
def slow() -> Kind:
    """Return a video that takes some seconds."""
    return Kind("slow", "wan2.6", {**payload("wan2.6"), **SLOW, "seed": 3}, "video/mp4")


@cache
def kinds() -> tuple[Kind, ...]:
    """Return what is ordered: videos of text and of pictures, with and without swaps, and swaps."""
    film = data_uri(clip(stranger(), count=6), "video/mp4")
    return (
        Kind("text 1", "wan2.6", {**payload("wan2.6"), **SMALL, "seed": 1}, "video/mp4"),
        Kind("text 2", "wan2.6", {**payload("wan2.6"), **SMALL, "seed": 2}, "video/mp4"),
        Kind("picture", "wan2.6-i2v", {**payload("wan2.6-i2v"), **SMALL}, "video/mp4"),
        Kind("swapped", "wan2.6-i2v-faceswap", {**payload("wan2.6-i2v-faceswap"), **SWAPPED}, "video/mp4"),
        Kind("image", "image-faceswap", payload("image-faceswap"), "image/png"),
        Kind("film", "batch-video-faceswap", {**payload("batch-video-faceswap"), "source_video": film}, "video/mp4"),
    )


def make_orders(rng: random.Random, count: int, callers: int, ordered: Sequence[Kind] = ()) -> list[Order]:
    """Return ``count`` orders, of every way and kind of ``ordered``, as the seed arranges them."""
    of = ordered or kinds()
    made = [
        Order(number, number % callers, of[number % len(of)], WAYS[number // len(of) % len(WAYS)]) for number in range(count)
    ]
    rng.shuffle(made)
    return made


def frames_of(data: bytes) -> list[Image]:
    """Return the frames of a result, each uint8 RGB ``[height, width, 3]``."""
    if data[4:8] != b"ftyp":
        return [np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))]
    with av.open(io.BytesIO(data), mode="r") as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


def same_frames(one: bytes, other: bytes) -> bool:
    """Return whether two results show the same, frame by frame."""
    ours, theirs = frames_of(one), frames_of(other)
    return len(ours) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
