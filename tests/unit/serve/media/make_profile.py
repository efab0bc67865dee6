"""Builds colour profiles, and compares what they look like."""

import io
import struct

import PIL.Image
from PIL import ImageCms

from serve.media.samples import stranger

SPACES = {
    "Display P3": ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)),
    "Adobe RGB": ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446)),
}
"""The primaries as XYZ under D50."""
SRGB = ImageCms.createProfile("sRGB")


def tag(kind: bytes, *numbers: float) -> bytes:
    return kind + bytes(4) + b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def profile_of(space: str, *, grey: bool = False) -> bytes:
    """Return a version 2 profile with a gamma of 2.2 and the primaries of ``space``."""
    curve = b"curv" + bytes(4) + struct.pack(">IHH", 1, round(2.2 * 256), 0)
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78), b"wtpt": tag(b"XYZ ", 0.9642, 1, 0.8249)}
    tags[b"cprt"] = b"text" + bytes(8)
    if grey:
        tags[b"kTRC"] = curve
    else:
        tags |= {name: tag(b"XYZ ", *xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), SPACES[space], strict=True)}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(content))
        body += content
    kind = b"GRAY" if grey else b"RGB "
    head = struct.pack(">I4sI", 128 + len(table) + len(body), b"lcms", 0x02100000) + b"mntr" + kind + b"XYZ "
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return head + table + body


def same_look(space: str) -> PIL.Image.Image:
    """Return the stranger in the numbers of ``space``."""
    photo = PIL.Image.fromarray(stranger())
    wide = ImageCms.profileToProfile(photo, SRGB, ImageCms.ImageCmsProfile(io.BytesIO(profile_of(space))))
    assert wide is not None
    return wide
