"""What decoding an image will cost, by its header, so that it can be refused or made to wait."""

import math
from dataclasses import dataclass

import PIL.Image

from deployments.wire import Image
from serve.media.decode.jpeg import count_scans
from serve.media.errors import MediaTooLarge
from serve.media.images import open_image, reduce_while_decoding, to_pixels

_BYTES_PER_PIXEL = {"JPEG": 20, "WEBP": 32}
_BYTES_PER_PIXEL_OF_OTHERS = 23
"""The most memory that ``to_pixels`` uses for each pixel of a JPEG, a WebP or another format.

Measured by ``benchmarks/media_worker.py``: 15.1 bytes for a progressive JPEG, 30.9 for a lossless
WebP and 21.7 for a PNG, the last two with transparency.
"""


@dataclass(frozen=True)
class Claim:
    """The costs of an image: ``working_bytes`` while it is decoded, ``result_bytes`` after."""

    pixels: int
    working_bytes: int
    result_bytes: int


def open_within(data: bytes, max_pixels: int, max_scans: int) -> PIL.Image.Image:
    """Return the image file ``data`` as a Pillow image that is not decoded yet.

    Raises ``MediaError`` for a file that is not an image, and ``MediaTooLarge`` for more than
    ``max_pixels`` pixels or ``max_scans`` scans.
    """
    check_scans(data, max_scans)
    return open_image(data, max_pixels)


def claim_of(image: PIL.Image.Image, max_side: int | None) -> Claim:
    """Return what an image that is not decoded yet costs, if it is reduced to ``max_side``."""
    width, height = image.size
    each = _BYTES_PER_PIXEL.get(image.format or "", _BYTES_PER_PIXEL_OF_OTHERS)
    share = 1.0 if max_side is None else min(1.0, max_side / max(width, height)) ** 2
    return Claim(width * height, each * width * height, math.ceil(3 * width * height * share) + 3 * (width + height))


def decode_reduced(image: PIL.Image.Image, max_side: int | None) -> Image:
    """Return an image that is not decoded yet as uint8 RGB ``[height, width, 3]``.

    If a side is longer than ``max_side`` pixels, the image is scaled down to it. Raises what
    ``to_pixels`` raises.
    """
    return to_pixels(image) if max_side is None else reduce_while_decoding(image, max_side)


def check_scans(data: bytes, limit: int) -> None:
    """Raise ``MediaTooLarge`` for a JPEG file of more than ``limit`` scans.

    Each scan of a progressive JPEG costs as much time as decoding the image once, and few bytes.
    """
    if data[:2] == b"\xff\xd8" and count_scans(data, limit) > limit:
        raise MediaTooLarge(f"the JPEG has more than {limit} scans; save it again as an ordinary JPEG")
