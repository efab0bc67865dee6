"""Marks are read wherever a format can hold them."""

import json

import pytest

from serve.media.spool import Media
from serve.provenance.embedding import embed
from serve.provenance.manifest import c2pa_settings
from serve.provenance.reading import read_marks, read_source
from serve.provenance.report import complete
from serve.provenance.statement import Label
from serve.provenance.xmp import aigc_json, write_packet
from tests.unit.serve.provenance.results import STATEMENT

LABEL = Label(producer="Example", number="1")


@pytest.mark.parametrize("kind", ["png", "mp4"])
def test_the_label_of_china_is_read_where_it_is_written_outside_xmp(made: dict[str, tuple[str, Media]], kind: str) -> None:
    media_type, data = made[kind]
    packet = write_packet(STATEMENT, request=False).replace(b"trainedAlgorithmicMedia", b"digitalCapture")
    marked = embed(data, media_type, packet, aigc=aigc_json(LABEL))
    report = complete(read_marks(marked, c2pa_settings()))
    assert report["aigc"]["ContentProducer"] == "Example"
    assert report["says_so"] == ["aigc"]
    assert json.loads(read_source(marked)["aigc"])["ProduceID"] == "1"
