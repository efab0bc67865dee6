"""Conversion of pictures from the colour space of their profile to sRGB, by Little CMS."""

import io
import logging

import numpy as np
import PIL.Image
from PIL import ImageCms

from serve.media.colour.matrix_profile import hdr_space
from serve.media.colour.space import ColourSpace, to_srgb_values

logger = logging.getLogger("ray.serve")

_COLOURS_OF = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
"""The colour spaces of profiles that fit the modes of Pillow."""
_PROBE_STEPS = 7
_AT_ONCE = 2**15
"""The number of pixels that are tone-mapped together, which bounds the memory for it."""
_SAME_LEVELS = 2
"""How far the colours of a profile may be from sRGB to be taken as the same.

The profiles that programs write for sRGB differ by rounding, and converting by them would only add
noise.
"""


def to_srgb(image: PIL.Image.Image, profile: bytes) -> PIL.Image.Image:
    """Return ``image`` (RGB, L or CMYK), whose colours are meant as ``profile`` says, as sRGB.

    One for HDR is tone-mapped. A profile that is damaged, or that is one for another kind of image,
    is ignored, as browsers do.
    """
    if image.mode in ("RGB", "L") and (numbers := hdr_space(profile)) is not None:
        return _tone_mapped(image.convert("RGB"), ColourSpace(*numbers))
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _COLOURS_OF[image.mode]:
            return image
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB")
        if image.mode == "RGB" and _is_srgb(transform):
            return image
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        logger.info("a colour profile is ignored: %s", error)
        return image
    assert converted is not None
    return converted


def _tone_mapped(image: PIL.Image.Image, space: ColourSpace) -> PIL.Image.Image:
    pixels = np.array(image)
    flat = pixels.reshape(-1, 3)
    for start in range(0, len(flat), _AT_ONCE):
        part = flat[start : start + _AT_ONCE]
        part[...] = np.round(255 * to_srgb_values(part / 255, space))
    return PIL.Image.fromarray(pixels)


def _is_srgb(transform: ImageCms.ImageCmsTransform) -> bool:
    """Return whether ``transform`` leaves all colours of a coarse grid nearly as they are."""
    levels = [255 * i // (_PROBE_STEPS - 1) for i in range(_PROBE_STEPS)]
    grid = bytes(level for red in levels for green in levels for blue in levels for level in (red, green, blue))
    probe = PIL.Image.frombytes("RGB", (_PROBE_STEPS**2, _PROBE_STEPS), grid)
    converted = ImageCms.applyTransform(probe, transform)
    assert converted is not None
    return all(abs(a - b) <= _SAME_LEVELS for a, b in zip(grid, converted.tobytes(), strict=True))
