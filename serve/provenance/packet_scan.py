"""Finds the XMP packet of a file of any format.

XMP is made to be found like this: a packet is plain text, unless a PNG compresses it.
"""

import mmap

from serve.media.spool import Media, media_size
from serve.provenance.xmp import MAX_PACKET_BYTES, Properties, read_packet

_OPEN, _CLOSE = b"<x:xmpmeta", b"</x:xmpmeta>"
MAX_PACKETS = 20
"""The number of packets that are tried until one can be read."""


def find_properties(media: Media) -> Properties | None:
    """Return what the first readable packet of a file says; None if there is none."""
    if media_size(media) == 0:
        return None
    if isinstance(media, bytes):
        return _search(media)
    with mmap.mmap(media.file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _search(content)


def _search(content: "bytes | mmap.mmap") -> Properties | None:
    at = 0
    for _ in range(MAX_PACKETS):
        start = content.find(_OPEN, at)
        if start < 0:
            return None
        end = content.find(_CLOSE, start, start + MAX_PACKET_BYTES)
        if end >= 0 and (found := read_packet(content[start : end + len(_CLOSE)])) is not None and found.values:
            return found
        at = start + len(_OPEN)
    return None
