"""XMP is found in a file of any format, and only so much is searched."""

import io
import struct
import zlib

import PIL.Image
import PIL.PngImagePlugin
import pytest

from serve.media.images import encode_image
from serve.media.spool import Media, Spool
from serve.provenance.packet_scan import MAX_PACKETS, find_properties, searchable
from serve.provenance.statement import COMPOSITE
from serve.provenance.xmp import MAX_PACKET_BYTES, Properties, read_packet, write_packet
from tests.unit.serve.provenance.markings import JPEG
from tests.unit.serve.provenance.results import EDITED, PICTURE, STATEMENT, on_disk

RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'


IPTC = 'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'


TOOL = '<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="A tool"/>'


TYPE = f'<rdf:Description {IPTC} Iptc4xmpExt:DigitalSourceType="{COMPOSITE}"/>'


def png(packet: bytes, *, compressed: bool) -> bytes:
    """Return a PNG whose packet is in a text chunk, as other programs write it."""
    info = PIL.PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet.decode(), zip=compressed)
    buffer = io.BytesIO()
    PIL.Image.fromarray(PICTURE).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "media",
    [
        JPEG + f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {RDF}>{TOOL}{TYPE}</rdf:RDF></x:xmpmeta>'.encode(),
        JPEG + f"<rdf:RDF {RDF}>{TYPE}</rdf:RDF>".encode(),
        png(write_packet(EDITED, request=False), compressed=True),
        png(f"<rdf:RDF {RDF}>{TOOL}{TYPE}</rdf:RDF>".encode(), compressed=True),
    ],
    ids=["second description", "no x:xmpmeta", "compressed", "compressed and bare"],
)
def test_the_type_of_a_source_is_read_however_it_is_written(media: bytes) -> None:
    found = find_properties(media)
    assert found is not None
    assert found.values["digital_source_type"] == COMPOSITE


def test_a_text_that_inflates_without_end_is_left_out() -> None:
    packet = f"<rdf:RDF {RDF}>{TYPE}{MAX_PACKET_BYTES * ' '}</rdf:RDF>".encode()
    assert len(png(packet, compressed=True)) < 100_000
    assert find_properties(png(packet, compressed=True)) is None
    body = b"iTXtXML:com.adobe.xmp\0\1\0\0\0no zlib"
    broken = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    plain = encode_image(PICTURE, "image/png")
    assert find_properties(plain[:33] + broken + plain[33:]) is None


def test_the_first_packet_that_can_be_read_is_the_one_that_counts() -> None:
    broken = b"<x:xmpmeta><a></x:xmpmeta>"
    assert find_properties(broken + PACKET) == read_packet(PACKET)
    assert find_properties(100 * broken + PACKET) is None, "there is a limit to what is tried"
    assert find_properties(b"") is None
    assert find_properties(Spool.empty()) is None
    empty = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'
    assert find_properties(empty) is None
    assert isinstance(find_properties(empty + PACKET), Properties)


BROKEN = b"<x:xmpmeta><a></x:xmpmeta>"
PACKET = write_packet(STATEMENT, request=False)


@pytest.mark.parametrize("on_disk_too", [False, True])
def test_the_same_is_found_in_bytes_and_in_a_file(on_disk_too: bool) -> None:
    media: Media = b"\xff\xd8" + bytes(5000) + PACKET + bytes(5000)
    media = on_disk(media) if on_disk_too else media
    assert find_properties(media) == read_packet(PACKET)
    with searchable(media) as content:
        assert content.find(b"<x:xmpmeta") > 5000


def test_as_many_packets_are_tried_as_allowed() -> None:
    assert find_properties((MAX_PACKETS - 1) * BROKEN + PACKET) == read_packet(PACKET)
    assert find_properties(MAX_PACKETS * BROKEN + PACKET) is None


@pytest.mark.parametrize("spaces", [0, MAX_PACKET_BYTES])
def test_a_packet_without_an_end_or_too_far_from_it_hides_no_other(spaces: int) -> None:
    endless = b"<x:xmpmeta><rdf:RDF" + spaces * b" "
    assert find_properties(endless) is None
    assert find_properties(endless + PACKET[PACKET.index(b"<rdf:RDF") :]) == read_packet(PACKET)
    far = PACKET.replace(b"</rdf:RDF>", MAX_PACKET_BYTES * b" " + b"</rdf:RDF>")
    assert find_properties(far) is None


def test_the_text_of_a_png_counts_only_where_no_plain_packet_does() -> None:
    other = write_packet(EDITED, request=False)
    assert find_properties(png(other, compressed=True) + PACKET) == read_packet(PACKET)
    assert find_properties(png(other, compressed=True)) == read_packet(other)
