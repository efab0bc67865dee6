"""Removal of needless metadata from JPEG files."""

import struct

from serve.media.strip.exif import read_orientation, write_orientation

_SOI, _EOI, _SOS, _COMMENT = 0xD8, 0xD9, 0xDA, 0xFE
_APP0, _APP1, _APP2, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_WITHOUT_LENGTH = {0x01, _SOI, *range(0xD0, 0xD8)}
_JFIF_BYTES = 14
_ADOBE_BYTES = 12
"""What libjpeg wants of a JFIF or Adobe segment. It ignores shorter ones, and Pillow fails."""
_JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"
_ICC = b"ICC_PROFILE\0"
_ICC_PIECE_BYTES = 65_533 - len(_ICC) - 2


def strip_jpeg(data: bytes) -> bytes:
    """Return the JPEG file ``data`` with the segments that its pixels need before its first scan.

    The colour profile and a correct orientation are written again; thumbnails, further images,
    comments and what else cameras and editors store are left out.
    """
    kept: list[bytes] = []
    first: list[bytes] = []
    profile: dict[int, bytes] = {}
    orientation = 1
    at = 2
    while at < len(data):
        if data[at] != 0xFF:  # as libjpeg does, skip to the next marker
            at = data.find(b"\xff", at)
            if at < 0:
                return data
            continue
        marker = data[at + 1] if at + 1 < len(data) else _EOI
        if marker == 0xFF or marker == 0:  # fill bytes
            at += 1
            continue
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        if marker in (_SOS, _EOI):
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            break
        payload = data[at + 4 : at + 2 + length]
        if marker == _APP0:
            if payload[:5] == b"JFIF\0" and len(payload) >= _JFIF_BYTES:
                first = [_segment(_APP0, _JFIF)]
        elif marker == _APP1:
            if payload[:6] == b"Exif\0\0" and orientation == 1:
                orientation = read_orientation(payload)
        elif marker == _APP2:
            if payload.startswith(_ICC) and len(payload) > len(_ICC) + 2:
                profile.setdefault(payload[len(_ICC)], payload[len(_ICC) + 2 :])
        elif marker == _APP14:
            if payload[:5] == b"Adobe" and len(payload) >= _ADOBE_BYTES:
                kept.append(_segment(_APP14, payload))
        elif not (_APP0 <= marker <= _APP15 or marker == _COMMENT):
            kept.append(data[at : at + 2 + length])
        at += 2 + length
    if orientation != 1:
        first.append(_segment(_APP1, b"Exif\0\0" + write_orientation(orientation)))
    return b"".join([b"\xff\xd8", *first, *_profile_segments(profile), *kept, data[at:]])


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _profile_segments(pieces: dict[int, bytes]) -> list[bytes]:
    """Return the segments for a profile whose pieces have these numbers, or none if one is lost."""
    if sorted(pieces) != list(range(1, len(pieces) + 1)):
        return []
    profile = b"".join(pieces[number] for number in sorted(pieces))
    cut = [profile[i : i + _ICC_PIECE_BYTES] for i in range(0, len(profile), _ICC_PIECE_BYTES)]
    return [_segment(_APP2, _ICC + bytes([i, len(cut)]) + piece) for i, piece in enumerate(cut, start=1)]
