"""Builders of video files whose container says which part of the frames is shown."""

import struct
from collections.abc import Sequence

_HEADS = {b"stsd": 8, b"avc1": 78}
_PATH = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
_UNUSED = b"\x54\xb2\x81\x04\x55\xee\x81\x00\xec\x01\0\0\0\0\0\0\x02\0\0"
"""What FFmpeg writes after the size of a video in Matroska, and a Void."""


def with_aperture(mp4: bytes, *numbers: int) -> bytes:
    """Return an MP4 in H.264, its index last, with this clean aperture.

    ``numbers`` are four fractions: width, height, and how far the centre is to the right and below.
    """
    assert mp4.index(b"mdat") < mp4.index(b"moov")
    extra = struct.pack(">I4sIIIIiIiI", 40, b"clap", *numbers)
    start, end, heads = 0, len(mp4), []
    for name in _PATH:
        while mp4[start + 4 : start + 8] != name:
            start += int.from_bytes(mp4[start : start + 4], "big")
            assert start < end
        heads.append(start)
        end = start + int.from_bytes(mp4[start : start + 4], "big")
        start += 8 + _HEADS.get(name, 0)
    grown = bytearray(mp4)
    for head in heads:
        grown[head : head + 4] = (int.from_bytes(mp4[head : head + 4], "big") + len(extra)).to_bytes(4, "big")
    grown[end:end] = extra
    return bytes(grown)


def with_pixel_crop(matroska: bytes, edges: Sequence[int]) -> bytes:
    """Return a Matroska file with this cropping of the left, right, top and bottom."""
    at = matroska.index(_UNUSED)
    names = (b"\x54\xcc", b"\x54\xdd", b"\x54\xbb", b"\x54\xaa")
    crop = b"".join(name + b"\x81" + bytes([edge]) for name, edge in zip(names, edges, strict=True)) + b"\xec\x81\0"
    assert len(crop) == len(_UNUSED)
    video = matroska.rindex(b"\xe0\x8a", 0, at)
    longer = bytes([0x8A + len(_UNUSED) - 4])
    return matroska[: video + 1] + longer + matroska[video + 2 : at] + crop + matroska[at + len(_UNUSED) :]
