"""What the users of a load test send: the examples of `ryla smoke` and of the tests, in two sizes.

``short`` is for a CPU and takes seconds; ``full`` is the example as it is, with the defaults of the
service.
"""

import random
from functools import cache
from typing import Any

from serve.http.examples import payload
from serve.media.samples import PORTRAIT, clip, data_uri, stranger

SIZES = ("short", "full")
VIDEOS = ("wan2.6", "wan2.6-i2v", "wan2.6-i2v-faceswap", "wan22-i2v", "wan22-i2v-faceswap")
"""The endpoints that make videos."""
SWAPS = ("image-faceswap", "batch-video-faceswap")
"""The endpoints that swap a face into what the caller sends."""
SHORT_VIDEO = {"width": 64, "height": 64, "num_frames": 5, "steps": 4}
FILM_FRAMES = {"short": 33, "full": 240}
"""The frames of a studio's film."""


def body(endpoint: str, size: str = "short") -> dict[str, Any]:
    """Return a body for an endpoint; that of a video has a seed of its own."""
    if size not in SIZES:
        raise ValueError(f"unknown size `{size}`; there are {', '.join(SIZES)}")
    made = endpoint in VIDEOS
    return payload(endpoint) | (SHORT_VIDEO if made and size == "short" else {}) | ({"seed": new_seed()} if made else {})


def new_seed() -> int:
    """Return a seed, so that no two requests are the same."""
    return random.getrandbits(31)


@cache
def film(size: str = "short") -> bytes:
    """Return a studio's film, an MP4 file in which a face is seen from start to end."""
    return clip(stranger(), count=FILM_FRAMES[size])


def swap_body(video: bytes, media_type: str) -> dict[str, Any]:
    """Return a body that asks for the portrait's face in ``video``."""
    return {"source_video": data_uri(video, media_type), "reference_image": data_uri(PORTRAIT.read_bytes(), "image/jpeg")}
