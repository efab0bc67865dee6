"""Decoding, cropping and encoding of still images with Pillow."""

import io

import numpy as np
import PIL.Image
import pillow_heif
from PIL import AvifImagePlugin, GifImagePlugin, ImageOps, UnidentifiedImageError

from deployments.wire import Image
from serve.media.boundary import reading
from serve.media.colour.key import alpha_of_grey_key, alpha_of_key, scale_grey_key
from serve.media.colour.matrix_profile import profile_by_numbers
from serve.media.colour.profiles import to_srgb
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.heif import clean_aperture, colour_numbers, is_heif
from serve.media.jpeg_end import END, is_whole, lacks_end
from serve.media.strip.image import strip

# Pillow would only warn. `check_size` refuses large images first, with a message for the caller.
PIL.Image.MAX_IMAGE_PIXELS = None
pillow_heif.register_heif_opener(thumbnails=False)
# One picture of many is decoded in one thread, whatever its format.
pillow_heif.options.DECODE_THREADS = 1
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

MAX_WEBP_SIDE = 16_383
MAX_JPEG_SIDE = 65_500
DAMAGED = ("the image is damaged or truncated", "send the complete file")
"""The complaint and the remedy for an image that cannot be decoded; see ``reading``."""
_ORIENTATION = 0x0112
_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its orientation in EXIF."""
_SHOWN_SIZE = "shown_size"
"""The key in Pillow's ``info`` of the size to which a picture is cropped."""
_UNENDED = "unended"
"""The key in Pillow's ``info`` of the file's bytes, if the marker of its end was added to them."""
_READABLE = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF")
_SAVE_OPTIONS = {
    "image/jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "image/png": ("PNG", {}),
    "image/webp": ("WEBP", {"quality": 90}),
}


def open_image(data: bytes, max_pixels: int) -> PIL.Image.Image:
    """Return ``data`` as a Pillow image that is not decoded yet.

    The bytes decide the format; a declared media type has no effect. Raises ``MediaError`` for an
    unsupported or damaged file and ``MediaTooLarge`` for more than ``max_pixels`` pixels.
    """
    with reading("the image is damaged", "send JPEG, PNG, WebP, AVIF or HEIC"):
        try:
            stripped = strip(data)
            unended = lacks_end(stripped)
            image = PIL.Image.open(io.BytesIO(stripped + END if unended else stripped), formats=_READABLE)
        except UnidentifiedImageError:
            raise MediaError("the file is not an image in a supported format; send JPEG, PNG, WebP, AVIF or HEIC") from None
    check_size(image, max_pixels)
    if unended:
        image.info[_UNENDED] = stripped
    if is_heif(data[:64]) and not image.info.get("icc_profile") and (numbers := colour_numbers(data)) is not None:
        image.info["icc_profile"] = profile_by_numbers(*numbers)
    if image.format == "AVIF":  # Pillow leaves it to its callers; libheif crops by itself
        is_animated = getattr(image, "n_frames", 1) > 1
        image.info[_SHOWN_SIZE] = clean_aperture(data, *image.size, is_animated=is_animated)
    return image


def check_size(image: PIL.Image.Image, max_pixels: int) -> None:
    """Raise ``MediaTooLarge`` if the current frame has more than ``max_pixels`` pixels."""
    width, height = image.size
    if width * height > max_pixels:
        raise MediaTooLarge(f"the image has {width} x {height} pixels; at most {max_pixels} pixels are accepted: scale it down")


def first_shown(image: PIL.Image.Image) -> int:
    """Return the number of the first image in a file that viewers show."""
    if image.format == "HEIF":  # it begins at the primary one of its still images
        return image.tell()
    # An animated PNG may begin with a picture for programs that do not know the format.
    return int(bool(getattr(image, "default_image", False) and getattr(image, "n_frames", 1) > 1))


def to_pixels(image: PIL.Image.Image) -> Image:
    """Return the current frame as uint8 RGB ``[height, width, 3]``.

    The EXIF orientation is applied, colours are converted from the image's profile to sRGB,
    transparency is flattened onto white and 16-bit greyscale is scaled to 8 bits. Raises
    ``MediaError`` if the frame cannot be decoded.
    """
    with reading(*DAMAGED):
        return np.asarray(_to_rgb(image))


def reduce_while_decoding(image: PIL.Image.Image, max_side: int) -> Image:
    """Return what ``to_pixels`` returns, scaled down if a side is longer than ``max_side`` pixels.

    A JPEG is already decoded at 1/2, 1/4 or 1/8 of its size where that is enough.
    """
    longest = max(image.size)
    with reading(*DAMAGED):
        if longest > max_side and image.format == "JPEG":
            width, height = (max(1, round(side * max_side / longest)) for side in image.size)
            if drafted := image.draft(None, (width, height)):
                _load(image)
                # The JPEG's pixels end within the last row and column: the box says where.
                image = image.resize((width, height), PIL.Image.Resampling.LANCZOS, box=drafted[1], reducing_gap=2.0)
        image = _to_rgb(image)
        image.thumbnail((max_side, max_side), PIL.Image.Resampling.LANCZOS, reducing_gap=2.0)
        return np.asarray(image)


def to_rgba(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return the current frame as RGBA, upright and in sRGB, with its transparency kept."""
    if image.format == "GIF":  # which has neither a profile nor an orientation
        return image.convert("RGBA")
    colours, alpha = _split(image)
    colours.putalpha(255 if alpha is None else alpha)
    return colours


def turn_of(image: PIL.Image.Image) -> PIL.Image.Transpose | None:
    """Return what turns ``image`` upright, or None if it is."""
    image.info.pop("xmp", None)  # Pillow would take an orientation from it, which viewers do not
    return _TURNS.get(image.getexif().get(_ORIENTATION, 1))


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    colours, alpha = _split(image)
    if alpha is None:
        return colours
    white = PIL.Image.new("RGB", colours.size, "white")
    white.paste(colours, mask=alpha)
    return white


def _split(image: PIL.Image.Image) -> tuple[PIL.Image.Image, PIL.Image.Image | None]:
    """Return the colours of the current frame as RGB, and its alpha channel, or None if opaque."""
    if image.tell() == 0 and first_shown(image) > 0:
        image.seek(first_shown(image))
    scale_grey_key(image)
    is_jpeg, alpha, drawn = image.format == "JPEG", alpha_of_key(image), _drawn_part(image)
    _load(image)
    profile = image.info.get("icc_profile")
    turn = turn_of(image)
    if image.mode.startswith("I"):  # Pillow would clip 16-bit values instead of scaling them
        alpha = alpha_of_grey_key(image)
        image = PIL.Image.fromarray((np.asarray(image, np.int64) >> 8).clip(0, 255).astype(np.uint8))
    elif alpha is None and image.has_transparency_data:
        if image.mode == "P":  # Pillow warns where its colours are converted without their alpha
            image = image.convert("RGBA")
        alpha = _alpha_of(image)
    if drawn is not None:  # around it, Pillow puts a colour in place of nothing
        part, alpha = alpha, PIL.Image.new("L", image.size, 0)
        alpha.paste(255 if part is None else part.crop(drawn), drawn)
    if shown := image.info.get(_SHOWN_SIZE):
        image, alpha = image.crop((0, 0, *shown)), None if alpha is None else alpha.crop((0, 0, *shown))
    if turn is not None:
        image, alpha = image.transpose(turn), None if alpha is None else alpha.transpose(turn)
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
    if profile:
        if is_jpeg and image.mode == "L" and profile[16:20] == b"RGB ":  # which browsers use, too
            image = image.convert("RGB")
        image = to_srgb(image, profile)
    return image.convert("RGB"), alpha


def _drawn_part(image: PIL.Image.Image) -> tuple[int, int, int, int] | None:
    """Return the box that the first frame of a GIF draws, or None if that is all of the picture."""
    if not isinstance(image, GifImagePlugin.GifImageFile) or not image.tile:
        return None
    box = image.tile[0].extents
    return None if box is None or box == (0, 0, *image.size) else box


def _load(image: PIL.Image.Image) -> None:
    try:
        image.load()
    except RuntimeError as error:  # so the decoders of AVIF and HEIC call damage
        raise MediaError(f"{DAMAGED[0]} ({error}); {DAMAGED[1]}") from None
    unended = image.info.pop(_UNENDED, None)
    if unended is not None and not is_whole(image, unended):
        raise MediaError(f"{DAMAGED[0]}; {DAMAGED[1]}")


def _alpha_of(image: PIL.Image.Image) -> PIL.Image.Image:
    return (image if image.mode in ("LA", "RGBA") else image.convert("RGBA")).getchannel("A")


def cover(image: Image, width: int, height: int) -> Image:
    """Scale ``image`` to cover ``width`` x ``height`` pixels, and crop it around its centre."""
    fitted = ImageOps.fit(PIL.Image.fromarray(image), (width, height), PIL.Image.Resampling.LANCZOS)
    return np.asarray(fitted)


def check_webp(width: int, height: int) -> None:
    """Raise ``MediaTooLarge`` for a size in pixels that WebP cannot store."""
    if max(width, height) > MAX_WEBP_SIDE:
        raise MediaTooLarge(
            f"the result has {width} x {height} pixels; WebP allows at most {MAX_WEBP_SIDE} pixels per side: "
            "request another media type with the Accept header"
        )


def encode_image(image: Image, media_type: str) -> bytes:
    """Encode uint8 RGB ``[height, width, 3]`` as JPEG (quality 95), PNG or WebP (quality 90).

    Raises ``MediaTooLarge`` for a size that the format cannot store.
    """
    kind, options = _SAVE_OPTIONS[media_type]
    height, width = image.shape[:2]
    if media_type == "image/webp":
        check_webp(width, height)
    elif media_type == "image/jpeg" and max(width, height) > MAX_JPEG_SIDE:
        raise MediaTooLarge(
            f"the result has {width} x {height} pixels; JPEG allows at most {MAX_JPEG_SIDE} pixels per side: "
            "request image/png with the Accept header"
        )
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()
