"""Draws one image with the inputs and results of all endpoints."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw

from deployments.wire import Image
from serve.media.data_uri import decode_base64
from serve.media.decode.opening import open_source
from serve.media.decode.source import SourceLimits

HEIGHT = 128
"""The height of each image in pixels."""
SHOWN = 6
"""The most frames of an answer that are shown."""
MARGIN = 8
"""The space between images in pixels."""
_INPUTS = ("source_image", "source_video", "reference_image", "face_image")
_LIMITS = SourceLimits(pixels=2**26, frames=10_000, seconds=3600)


def overview(answers: Sequence[tuple[str, dict[str, Any], bytes]]) -> PIL.Image.Image:
    """Return an image with a row for each (endpoint, body, answer).

    A row shows the endpoint's name and prompt, the images in the body, and frames of the answer.
    """
    rows = [_row(name, body, data) for name, body, data in answers]
    inputs_width = max(row[1].width for row in rows)
    width = inputs_width + MARGIN + max(row[2].width for row in rows)
    sheet = PIL.Image.new("RGB", (width + 2 * MARGIN, len(rows) * (HEIGHT + 24) + MARGIN), "white")
    draw = PIL.ImageDraw.Draw(sheet)
    for i, (title, inputs, frames) in enumerate(rows):
        top = i * (HEIGHT + 24)
        draw.text((MARGIN, top + 6), title, fill="black", font_size=13)
        sheet.paste(inputs, (MARGIN, top + 24))
        sheet.paste(frames, (MARGIN + inputs_width + MARGIN, top + 24))
    return sheet


def _row(name: str, body: dict[str, Any], data: bytes) -> tuple[str, PIL.Image.Image, PIL.Image.Image]:
    inputs = [_frames(decode_base64(body[field]))[0] for field in _INPUTS if field in body]
    frames = _frames(data)
    chosen = sorted({round(i * (len(frames) - 1) / (SHOWN - 1)) for i in range(SHOWN)})
    prompt = f': "{body["prompt"]}"' if "prompt" in body else ""
    return f"/{name}{prompt}", _side_by_side(inputs), _side_by_side([frames[i] for i in chosen])


def _frames(data: bytes) -> list[Image]:
    return [frame for frame, _ in open_source(data, _LIMITS).frames()]


def _side_by_side(images: list[Image]) -> PIL.Image.Image:
    if not images:
        return PIL.Image.new("RGB", (1, HEIGHT), "white")
    scaled = [PIL.Image.fromarray(image) for image in images]
    scaled = [image.resize((round(image.width * HEIGHT / image.height), HEIGHT)) for image in scaled]
    return PIL.Image.fromarray(np.concatenate([np.asarray(image) for image in scaled], axis=1))
