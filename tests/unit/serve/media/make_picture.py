"""Builds pictures, among them some that cost a decoder much."""

import io

import numpy as np
import PIL.Image

from serve.media.decode.jpeg import count_scans
from serve.media.samples import stranger


def encoded(kind: str, width: int, height: int, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(stranger()).resize((width, height)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(*, progressive: bool, side: int = 64) -> bytes:
    """Return a JPEG of little noise for a small ``side``, and of one colour for a large one."""
    pixels = np.random.default_rng(7).integers(0, 255, (side, side, 3) if side < 100 else (1, 1, 3), np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).resize((side, side)).save(buffer, "JPEG", progressive=progressive)
    return buffer.getvalue()


def with_scans(count: int, side: int = 64) -> bytes:
    """Return a progressive JPEG whose last scan is repeated until it has ``count`` of them."""
    data = jpeg(progressive=True, side=side)
    last = data.rfind(b"\xff\xda")
    repeats = count - count_scans(data, 1000)
    return data[:-2] + data[last:-2] * repeats + data[-2:]


BOMB = with_scans(2000, side=2000)
