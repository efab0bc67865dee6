"""Finds the XMP packet of a file of any format.

XMP is made to be found like this: a packet is plain text, unless a PNG compresses it. A packet in a
part of the file that a C2PA signature leaves out does not count: it could be put there without the
manifest becoming invalid, and no other program would see it.
"""

import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import BinaryIO

from serve.media.spool import Media, media_size, open_media
from serve.provenance.png_texts import png_texts
from serve.provenance.unsigned_parts import unsigned_parts
from serve.provenance.xmp import MAX_PACKET_BYTES, Properties, read_packet

MAX_PACKETS = 20
"""The number of packets that are tried until one can be read."""
PNG_KEYWORD = b"XML:com.adobe.xmp"
"""The keyword of the text chunk in which a PNG has its packet."""
_CLOSES = {b"<x:xmpmeta": b"</x:xmpmeta>", b"<rdf:RDF": b"</rdf:RDF>"}
"""The elements that a packet can consist of, and how they end: the outer one is optional."""
_OPEN = re.compile(b"|".join(_CLOSES))


@contextmanager
def searchable(media: Media) -> Iterator["bytes | mmap.mmap"]:
    """Yield the content of a file as something that can be searched without being read."""
    if isinstance(media, bytes) or media_size(media) == 0:
        yield media if isinstance(media, bytes) else b""
        return
    with mmap.mmap(media.file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def find_properties(media: Media) -> Properties | None:
    """Return what the first readable packet of a file says; None if there is none."""
    with searchable(media) as content:
        found = _search(content)
    if found is None:
        with open_media(media) as file:
            found = _search_texts(file)
    return found


def _search(content: "bytes | mmap.mmap") -> Properties | None:
    for start in islice(_starts(content), MAX_PACKETS):
        close = _CLOSES[start[0]]
        end = content.find(close, start.start(), start.start() + MAX_PACKET_BYTES)
        if end >= 0 and (found := _read(content[start.start() : end + len(close)])) is not None:
            return found
    return None


def _starts(content: "bytes | mmap.mmap") -> Iterator[re.Match[bytes]]:
    """Yield where packets may begin, without those in parts that a signature leaves out."""
    at = 0
    for begin, end in [*unsigned_parts(content), (len(content), len(content))]:
        yield from _OPEN.finditer(content, at, begin)
        at = end


def _search_texts(file: BinaryIO) -> Properties | None:
    texts = (text for keyword, text in png_texts(file, MAX_PACKET_BYTES) if keyword == PNG_KEYWORD)
    return next((found for _, text in zip(range(MAX_PACKETS), texts, strict=False) if (found := _read(text)) is not None), None)


def _read(packet: bytes) -> Properties | None:
    """Return what a packet says; None if it cannot be read or has nothing that we know."""
    found = read_packet(packet)
    return found if found is not None and (found.values or found.ingredients) else None
