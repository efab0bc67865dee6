"""Marks are read wherever a format can hold them, and no text of a file can do any harm."""

import json

import pytest

from serve.media.images import encode_image
from serve.media.spool import Media
from serve.provenance.embedding import embed
from serve.provenance.manifest import c2pa_settings
from serve.provenance.reading import read_marks, read_source
from serve.provenance.report import complete
from serve.provenance.statement import Label
from serve.provenance.xmp import aigc_json, write_packet
from tests.unit.serve.provenance.results import PICTURE, STATEMENT

LABEL = Label(producer="Example", number="1")
JPEG = encode_image(PICTURE, "image/jpeg")


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
