"""One picture of what all endpoints were given and what they made of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw

from deployments.wire import Image
from serve.media.decode import SourceLimits, open_source
from serve.media.images import decode_base64

HEIGHT = 128
SHOWN = 6
MARGIN = 8
_INPUTS = ("source_image", "source_video", "reference_image", "face_image")
_LIMITS = SourceLimits(pixels=2**26, frames=10_000, seconds=3600)


def overview(answers: Sequence[tuple[str, dict[str, Any], bytes]]) -> PIL.Image.Image:
    """A row for each (endpoint, body, answer): its name and prompt, the pictures that it was given, frames of the answer."""
    rows = [_row(name, body, data) for name, body, data in answers]
    left = max(row[1].width for row in rows)
    width = left + MARGIN + max(row[2].width for row in rows)
    sheet = PIL.Image.new("RGB", (width + 2 * MARGIN, len(rows) * (HEIGHT + 24) + MARGIN), "white")
    pen = PIL.ImageDraw.Draw(sheet)
    for i, (title, given, made) in enumerate(rows):
        top = i * (HEIGHT + 24)
        pen.text((MARGIN, top + 6), title, fill="black", font_size=13)
        sheet.paste(given, (MARGIN, top + 24))
        sheet.paste(made, (MARGIN + left + MARGIN, top + 24))
    return sheet


def _row(name: str, body: dict[str, Any], data: bytes) -> tuple[str, PIL.Image.Image, PIL.Image.Image]:
    given = [_frames(decode_base64(body[field]))[0] for field in _INPUTS if field in body]
    frames = _frames(data)
    chosen = sorted({round(i * (len(frames) - 1) / (SHOWN - 1)) for i in range(SHOWN)})
    prompt = f': "{body["prompt"]}"' if "prompt" in body else ""
    return f"/{name}{prompt}", _side_by_side(given), _side_by_side([frames[i] for i in chosen])


def _frames(data: bytes) -> list[Image]:
    return [frame for frame, _ in open_source(data, _LIMITS).frames()]


def _side_by_side(images: list[Image]) -> PIL.Image.Image:
    if not images:
        return PIL.Image.new("RGB", (1, HEIGHT), "white")
    scaled = [PIL.Image.fromarray(image) for image in images]
    scaled = [picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT)) for picture in scaled]
    return PIL.Image.fromarray(np.concatenate([np.asarray(picture) for picture in scaled], axis=1))
