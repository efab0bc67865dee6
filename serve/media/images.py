"""Pictures: base64 or data URI -> bytes -> pixels -> bytes."""

import base64
import binascii
import io
import re

import numpy as np
import PIL.Image
from PIL import ImageOps, UnidentifiedImageError

from deployments.wire import Image
from serve.media.errors import MediaError, MediaTooLarge

PIL.Image.MAX_IMAGE_PIXELS = None  # our own limit is checked first, with an answer of ours; Pillow's would warn

_DATA_URI = re.compile(r"data:[^,]{0,200}?,", re.IGNORECASE | re.DOTALL)
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
MAX_WEBP_SIDE = 16_383
MAX_JPEG_SIDE = 65_500
_SAVE = {
    "image/jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "image/png": ("PNG", {}),
    "image/webp": ("WEBP", {"quality": 90}),
}


def decode_base64(text: str) -> bytes:
    """The bytes of a data URI or of bare base64, with or without line breaks; raises MediaError."""
    head = text[:220].lstrip()
    if re.match(r"[a-z][a-z0-9+.-]*://", head, re.IGNORECASE):
        raise MediaError("a URL; this service fetches nothing: send the file itself, as a data URI or base64")
    if match := _DATA_URI.match(head):
        if ";base64" not in match.group().lower():
            raise MediaError("a data URI without `;base64`; encode the file as base64")
        text = text[len(text[:220]) - len(head) + match.end() :]
    try:
        data = base64.b64decode(_regular(text), validate=True)
    except (binascii.Error, ValueError):
        raise MediaError("neither a data URI nor base64; encode the file as base64") from None
    if not data:
        raise MediaError("empty; send the file as a data URI or base64")
    return data


def _regular(text: str) -> str:
    """Without line breaks, with the padding that some encoders leave out."""
    if re.search(r"\s", text):
        text = "".join(text.split())
    return text + "=" * (-len(text) % 4)


def open_image(data: bytes, max_pixels: int) -> PIL.Image.Image:
    """Pillow's picture of ``data``, not yet decoded; the bytes decide what it is, not a declared type."""
    try:
        picture = PIL.Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise MediaError("not a picture that can be read; send JPEG, PNG or WebP") from None
    except (OSError, ValueError, SyntaxError) as e:
        raise MediaError(f"a damaged picture ({e}); send JPEG, PNG or WebP") from None
    check_size(picture, max_pixels)
    return picture


def check_size(picture: PIL.Image.Image, max_pixels: int) -> None:
    """Raises MediaTooLarge if the current frame would decode to more than ``max_pixels``."""
    width, height = picture.size
    if width * height > max_pixels:
        raise MediaTooLarge(f"{width} x {height} pixels; at most {max_pixels} pixels are accepted: scale the picture down")


def to_pixels(picture: PIL.Image.Image) -> Image:
    """uint8 RGB ``[height, width, 3]`` of the current frame: turned as EXIF says, alpha flattened on white."""
    try:
        picture.load()
        if picture.mode.startswith("I"):  # 16 bits of grey: Pillow would clip, not scale
            picture = PIL.Image.fromarray((np.asarray(picture, np.int64) >> 8).clip(0, 255).astype(np.uint8))
        picture = ImageOps.exif_transpose(picture)
        if picture.has_transparency_data:
            rgba = picture.convert("RGBA")
            white = PIL.Image.new("RGBA", rgba.size, "white")
            picture = PIL.Image.alpha_composite(white, rgba)
        return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError) as e:
        raise MediaError(f"a damaged or truncated picture ({e})") from None


def decode_image(data: bytes, max_pixels: int) -> Image:
    """Encoded bytes -> uint8 RGB ``[height, width, 3]``."""
    return to_pixels(open_image(data, max_pixels))


def cover(image: Image, width: int, height: int) -> Image:
    """Scales ``image`` to cover ``width`` x ``height`` and crops it there, centred."""
    fitted = ImageOps.fit(PIL.Image.fromarray(image), (width, height), PIL.Image.Resampling.LANCZOS)
    return np.asarray(fitted)


def check_webp(width: int, height: int) -> None:
    """Raises MediaTooLarge for a size that WebP has not."""
    if max(width, height) > MAX_WEBP_SIDE:
        raise MediaTooLarge(
            f"{width} x {height}: WebP holds at most {MAX_WEBP_SIDE} pixels a side; ask for another type by Accept"
        )


def encode_image(image: Image, media_type: str) -> bytes:
    """Pixels -> JPEG (quality 95), PNG or WebP (quality 90)."""
    kind, options = _SAVE[media_type]
    if media_type == "image/webp":
        check_webp(image.shape[1], image.shape[0])
    elif media_type == "image/jpeg" and max(image.shape) > MAX_JPEG_SIDE:
        raise MediaTooLarge(f"JPEG holds at most {MAX_JPEG_SIDE} pixels a side; ask for image/png by Accept")
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()
