"""Marks are read wherever a format can hold them, and no text of a file can do any harm."""

import io
import json
import struct
import zlib

import PIL.Image
import PIL.PngImagePlugin
import pytest

from serve.media.images import encode_image
from serve.media.spool import Media
from serve.provenance.embedding import embed
from serve.provenance.manifest import c2pa_settings
from serve.provenance.packet_scan import find_properties
from serve.provenance.reading import read_marks, read_source
from serve.provenance.report import complete
from serve.provenance.statement import COMPOSITE, Label
from serve.provenance.xmp import MAX_PACKET_BYTES, aigc_json, write_packet
from tests.unit.serve.provenance.results import EDITED, PICTURE, STATEMENT

RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
IPTC = 'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
TOOL = '<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="A tool"/>'
TYPE = f'<rdf:Description {IPTC} Iptc4xmpExt:DigitalSourceType="{COMPOSITE}"/>'
LABEL = Label(producer="Example", number="1")
JPEG = encode_image(PICTURE, "image/jpeg")


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


@pytest.mark.parametrize("kind", ["png", "mp4"])
def test_the_label_of_china_is_read_where_it_is_written_outside_xmp(made: dict[str, tuple[str, Media]], kind: str) -> None:
    media_type, data = made[kind]
    packet = write_packet(STATEMENT, request=False).replace(b"trainedAlgorithmicMedia", b"digitalCapture")
    marked = embed(data, media_type, packet, aigc=aigc_json(LABEL))
    report = complete(read_marks(marked, c2pa_settings()))
    assert report["aigc"]["ContentProducer"] == "Example"
    assert report["says_so"] == ["aigc"]
    assert json.loads(read_source(marked)["aigc"])["ProduceID"] == "1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"Label":"1"}', True),
        ('{"Label":1}', True),
        ('{"Label":"2"}', None),
        ('{"Label":"3"}', None),
        ("{}", None),
        ("[1]", None),
        ("no", None),
    ],
)
def test_only_a_label_that_says_so_means_that_ai_made_it(text: str, says: bool | None) -> None:
    report = complete({"media_type": "image/png", "metadata": None, "aigc": text, "c2pa": None, "watermark": None})
    assert report["made_by_ai"] is says
    assert (report["aigc"] is None) == ("Label" not in text)


@pytest.mark.parametrize(
    "text",
    [
        2900 * "[",
        2900 * '{"Label":',
        '{"Label":"\\ud800"}',
        '{"\\u001b[31m":"1","Label":"\\u0007"}',
        '{"Label":' + 2900 * "9" + "}",
    ],
    ids=["depth", "depth of objects", "surrogate", "terminal", "number"],
)
def test_no_text_of_a_file_is_more_than_text(text: str) -> None:
    metadata = {"creator": "A\x1b[2J\ud800", "ingredients": [{"rights": "\x07"}]}
    report = complete({"media_type": "image/png", "metadata": metadata, "aigc": text, "c2pa": None, "watermark": None})
    written = json.dumps(report, ensure_ascii=False)
    assert written.encode().isascii()
    assert "\\u" not in written, "a control character would be escaped"
