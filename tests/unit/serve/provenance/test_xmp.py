"""XMP says what it is told and nothing else, in the same bytes each time; anything can be read."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from serve.provenance.statement import COMPOSITE, GENERATED, Label
from serve.provenance.xmp import MAX_TEXT_CHARS, Properties, read_packet, write_packet
from tests.unit.serve.provenance.results import EDITED, MADE_AT, REQUEST_ID, STATEMENT


def test_a_packet_says_how_a_result_was_made() -> None:
    found = read_packet(write_packet(STATEMENT, request=False))
    assert found is not None
    assert found.values["digital_source_type"] == GENERATED
    assert found.values["software"].startswith("ryla-serve ")
    assert found.values["system"] == "wan26"
    edited = read_packet(write_packet(EDITED, request=False))
    assert edited is not None
    assert edited.values["digital_source_type"] == COMPOSITE


def test_it_depends_on_neither_time_nor_request_unless_it_is_to_hold_them() -> None:
    later = replace(STATEMENT, made_at=MADE_AT + timedelta(days=3), request_id="another", seed=8)
    assert write_packet(STATEMENT, request=False) == write_packet(later, request=False)
    found = read_packet(write_packet(STATEMENT, request=True))
    assert found is not None
    assert (found.values["request_id"], found.values["made_at"]) == (REQUEST_ID, "2026-11-26T08:30:00+00:00")


def test_the_label_of_china_has_the_fields_of_the_standard() -> None:
    label = Label(producer="某公司 <&> \"x\" 'y'", number="0123")
    found = read_packet(write_packet(STATEMENT, request=False, label=label, described=False))
    assert found is not None
    assert found.values.keys() == {"aigc"}
    fields = json.loads(found.values["aigc"])
    assert fields.keys() == {
        "Label", "ContentProducer", "ProduceID", "ReservedCode1", "ContentPropagator", "PropagateID", "ReservedCode2",
    }  # fmt: skip
    assert (fields["Label"], fields["ContentProducer"], fields["ProduceID"]) == ("1", label.producer, label.number)


def test_what_a_source_says_of_itself_is_kept() -> None:
    source = Properties(
        {
            "digital_source_type": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture",
            "creator": "Ann & Bob",
            "credit": "<Agency>",
            "rights": "(c) 2026",
            "document_id": "xmp.did:1",
            "software": "a camera",
        }
    )
    found = read_packet(write_packet(EDITED, request=False, sources=[source, Properties({"software": "nothing to keep"})]))
    assert found is not None
    assert found.ingredients == ({name: value for name, value in source.values.items() if name != "software"},)
    assert found.values["digital_source_type"] == COMPOSITE, "that of the source is not taken for that of the result"


@pytest.mark.parametrize("character", ["\0", "\x1b", "\ud800", "\ufffe"])
def test_what_xml_cannot_hold_is_replaced(character: str) -> None:
    found = read_packet(write_packet(EDITED, request=False, sources=[Properties({"creator": f"A{character}B"})]))
    assert found is not None
    assert found.ingredients == ({"creator": "A?B"},)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"<x:xmpmeta",
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><unclosed></x:xmpmeta>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><x:xmpmeta xmlns:x="adobe:ns:meta/">&b;</x:xmpmeta>',
        b"<x:xmpmeta>" + 2**20 * b" " + b"</x:xmpmeta>",
        b"<?xml version='1.0' encoding='nonsense'?><a/>",
        bytes(range(256)),
    ],
)
def test_a_packet_that_cannot_be_read_says_nothing(packet: bytes) -> None:
    assert read_packet(packet) is None


def test_long_values_are_cut() -> None:
    found = read_packet(write_packet(EDITED, request=False, sources=[Properties({"creator": 10_000 * "x"})]))
    assert found is not None
    assert len(found.ingredients[0]["creator"]) == MAX_TEXT_CHARS


def test_properties_as_attributes_are_read_too() -> None:
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:a="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" a:DigitalSourceType="http://x/y"/>'
        b"</rdf:RDF></x:xmpmeta>"
    )
    found = read_packet(packet)
    assert found is not None
    assert found.values == {"digital_source_type": "http://x/y"}
