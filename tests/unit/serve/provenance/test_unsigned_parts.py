"""What a signature leaves out is no place for metadata."""

import re
import struct
from pathlib import Path

import pytest

from serve.media.spool import read_media
from serve.provenance.packet_scan import find_properties
from serve.provenance.statement import GENERATED
from serve.provenance.unsigned_parts import MAX_PARTS, unsigned_parts
from tests.unit.serve.provenance.markings import Made, marking_with, state_of
from tests.unit.serve.provenance.results import KINDS, STATEMENT, signing

SMALL = (
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:x="http://ns.adobe.com/xap/1.0/" x:CreatorTool="A camera"/></rdf:RDF>'
)
"""A packet that has room in one of the blocks in which a GIF has its manifest."""
STORES = {
    "jpeg": b"\xff\xeb\xff\xffJP" + bytes(10) + b"jumb",
    "png": b"\x7f\xff\xff\xffcaBX",
    "webp": b"C2PA\xff\xff\xff\x7f",
    "animated-webp": b"C2PA\xff\xff\xff\x7f",
    "gif": b"C2PA_GIF\x01\x00\x00\xff",
    "mp4": b"\x7f\xff\xff\xfffree",
}
"""What looks like the beginning of a part that reaches far."""


def box(kind: bytes, content: bytes) -> bytes:
    """Return a box of an MP4."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def padded(signed: bytes, text: bytes) -> bytes:
    """Return a file with ``text`` in the padding of its signature."""
    padding = re.compile(rb"\0{240}").search(signed, signed.index(b"\x63pad\x59"))
    assert padding is not None
    return signed[: padding.start()] + text + signed[padding.start() + len(text) :]


async def test_the_padding_of_a_signature_has_no_metadata_and_hides_none(made: Made, tmp_path: Path) -> None:
    assert len(SMALL) < 240
    assert find_properties(SMALL) is not None
    async with marking_with(signing(tmp_path)) as marking:
        for kind in KINDS:
            media_type, data = made[kind]
            signed = read_media((await marking.mark(data, media_type, STATEMENT)).media)
            unsigned = read_media((await marking.describe(data, media_type, STATEMENT, label=None))[0])
            expected = find_properties(unsigned)
            assert expected is not None
            assert expected.values["digital_source_type"] == GENERATED
            for text in (SMALL, STORES[kind], STORES[kind] + SMALL):
                changed = padded(signed, text)
                assert changed != signed
                assert state_of(changed) == "valid", f"the padding of {kind} is signed: it need not be left out"
                assert find_properties(changed) == expected, kind
            assert SMALL not in b"".join(signed[begin:end] for begin, end in unsigned_parts(signed))
            assert any(begin <= padded(signed, SMALL).index(SMALL) < end for begin, end in unsigned_parts(signed))


@pytest.mark.parametrize("hidden", [box(b"free", SMALL), box(b"skip", SMALL), box(b"mfra", box(b"abcd", SMALL))])
async def test_a_box_that_players_skip_has_no_metadata(hidden: bytes, made: Made, tmp_path: Path) -> None:
    media_type, data = made["mp4"]
    async with marking_with(signing(tmp_path)) as marking:
        signed = read_media((await marking.mark(data, media_type, STATEMENT)).media)
    assert state_of(signed + hidden) == "valid"
    assert find_properties(signed + hidden) == find_properties(signed)
    assert find_properties(read_media(data) + hidden) is None
    assert find_properties(read_media(data) + box(b"uuid", SMALL)) is not None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8" + STORES["jpeg"],
        b"\x89PNG\r\n\x1a\n" + STORES["png"],
        b"RIFF0000WEBP" + STORES["webp"],
        b"GIF89a" + STORES["gif"],
        b"\0\0\0\x08ftyp" + STORES["mp4"],
        b"\0\0\0\x08ftyp\0\0\0\0free",
        b"\0\0\0\x08ftyp\0\0\0\x01free",
        b"\0\0\0\x08ftyp\0\0\0\x07free",
        b"\0\0\0\x08ftyp\0\0",
    ],
)
def test_a_part_whose_end_is_missing_ends_the_search(content: bytes) -> None:
    parts = unsigned_parts(content)
    assert len(parts) <= 1
    assert all(begin < end for begin, end in parts)
    assert find_properties(content) is None


def test_there_is_a_limit_to_the_parts() -> None:
    head = b"\0\0\0\x08ftyp"
    assert unsigned_parts(head + 3 * b"\0\0\0\x08skip") == [(8, 16), (16, 24), (24, 32)]
    assert len(unsigned_parts(head + (MAX_PARTS + 5) * b"\0\0\0\x08skip")) == MAX_PARTS
    assert len(unsigned_parts(b"RIFF" + (MAX_PARTS + 5) * b"C2PA\0\0\0\0")) == MAX_PARTS
