"""Results of every format are signed, and their sources keep what they say."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from deployments.errors import RequestRefused
from serve.media.spool import Media, read_media
from serve.provenance.certificates import CertificateRefused
from serve.provenance.manifest import REQUEST, c2pa_settings
from serve.provenance.marking import Marked, Marking
from serve.provenance.packet_scan import find_properties
from serve.provenance.reading import read_manifest
from serve.provenance.signing import Source
from serve.provenance.statement import COMPOSITE, GENERATED
from serve.provenance.xmp import Properties, write_packet
from serve.provenance_settings import ProvenanceSettings
from tests.unit.serve.provenance.authority import make_authority
from tests.unit.serve.provenance.markings import JPEG, Made, assertions_of, marking_with, report_of, state_of
from tests.unit.serve.provenance.results import (
    EDITED,
    KINDS,
    REQUEST_ID,
    STATEMENT,
    flipped,
    on_disk,
    signing,
)

JFIF = b"\xff\xe0\x00\x10JFIF\x00"
"""The first segment of a JPEG. Shorter marks are now and then in the bytes of a signature."""


async def test_each_format_is_signed_says_so_and_shows_every_change(made: Made, tmp_path: Path) -> None:
    async with marking_with(signing(tmp_path)) as marking:
        for kind in KINDS:
            media_type, data = made[kind]
            marked = await marking.mark(data, media_type, STATEMENT)
            assert marked.marks == ("metadata", "c2pa;certificate=test"), kind
            assert isinstance(marked.media, type(data))
            report = report_of(marked.media, media_type)
            assert report["validation_state"] == "Valid", kind
            assertions = assertions_of(report)
            (action,) = assertions["c2pa.actions.v2"]["actions"]
            assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", GENERATED)
            assert action["when"] == "2026-11-26T08:30:00Z"
            assert assertions[REQUEST] == {"id": REQUEST_ID}
            assert "TEST" in report["manifests"][report["active_manifest"]]["signature_info"]["common_name"]
            content = read_media(marked.media)
            properties = find_properties(content)
            assert properties is not None
            assert properties.values["digital_source_type"] == GENERATED
            for at in (content.index(b"trainedAlgorithmicMedia"), pixel_at(content, media_type)):
                assert state_of(flipped(content, at)) in ("invalid", "unreadable"), (kind, at)


def pixel_at(content: bytes, media_type: str) -> int:
    """Return the offset of a byte that is part of a picture."""
    marker = {
        "image/jpeg": b"\xff\xda",
        "image/png": b"IDAT",
        "image/webp": b"VP8 ",
        "image/gif": b"\x2c",
        "video/mp4": b"mdat",
    }
    return content.rindex(marker[media_type]) + 40 if media_type != "image/gif" else 13 + 3 * 256 + 500


async def test_a_manifest_holds_no_picture_and_tells_model_and_seed_only_if_asked(made: Made, tmp_path: Path) -> None:
    media_type, data = made["jpeg"]
    source = Source(media=JPEG, parent=True)
    async with marking_with(signing(tmp_path)) as marking:
        plain = await marking.mark(data, media_type, STATEMENT, sources=[source])
    async with marking_with(signing(tmp_path, model=True, seed=True)) as marking:
        told = await marking.mark(data, media_type, STATEMENT, sources=[source])
    assert "ryla.generation" not in assertions_of(report_of(plain.media, media_type))
    assert assertions_of(report_of(told.media, media_type))["ryla.generation"] == {"models": ["wan26"], "seed": 7}
    for marked in (plain, told):
        assert b"thumbnail" not in read_media(marked.media)
        assert read_media(marked.media).count(JFIF) == 1, "there is one JPEG in it, the result"


async def test_a_source_becomes_the_parent_and_keeps_its_own_manifest(made: Made, tmp_path: Path) -> None:
    async with marking_with(signing(tmp_path)) as marking:
        media: Media = JPEG
        for kind in KINDS:  # each is made of the one before it
            media_type, data = made[kind]
            marked = await marking.mark(data, media_type, EDITED, sources=[Source(media=media, parent=True)])
            assert marked.marks[-1] == "c2pa;certificate=test;sources=kept"
            media = marked.media
        manifest = read_manifest(media, c2pa_settings())
    assert manifest is not None
    assert (manifest["state"], manifest["failures"]) == ("valid", [])
    assert manifest["actions"] == ["c2pa.opened", "c2pa.edited"]
    assert manifest["digital_source_types"] == [COMPOSITE]
    assert [one["actions"] for one in manifest["chain"]] == (len(KINDS) - 1) * [["c2pa.opened", "c2pa.edited"]]
    assert {one["request_id"] for one in manifest["chain"]} == {REQUEST_ID}


async def test_a_first_frame_is_an_input_of_a_video_and_not_its_parent(made: Made, tmp_path: Path) -> None:
    media_type, data = made["mp4"]
    sources = [Source(media=on_disk(JPEG), parent=False), Source(media=JPEG, parent=False)]
    async with marking_with(signing(tmp_path)) as marking:
        marked = await marking.mark(data, media_type, STATEMENT, sources=sources)
    report = report_of(marked.media, media_type)
    assert report["validation_state"] == "Valid"
    active = report["manifests"][report["active_manifest"]]
    assert [item["relationship"] for item in active["ingredients"]] == ["inputTo", "inputTo"]
    (action,) = assertions_of(report)["c2pa.actions.v2"]["actions"]
    assert action["action"] == "c2pa.created"
    assert len(action["parameters"]["ingredients"]) == 2


async def test_a_source_of_any_kind_can_be_signed_over(made: Made, tmp_path: Path) -> None:
    media_type, data = made["png"]
    async with marking_with(signing(tmp_path)) as marking:
        signed = read_media((await marking.mark(JPEG, "image/jpeg", STATEMENT)).media)
        sources = {
            "changed": flipped(signed, len(signed) - 50),
            "cut": signed[: len(signed) // 2],
            "junk": b"neither a picture nor a video",
            "webm": b"\x1aE\xdf\xa3" + bytes(100),
            "empty box": b"\0\0\0\x08ftyp" + bytes(50),
        }
        for name, source in sources.items():
            marked = await marking.mark(data, media_type, EDITED, sources=[Source(media=source, parent=True)])
            assert re.fullmatch("c2pa;certificate=test;sources=(kept|unreadable)", marked.marks[-1]), (name, marked.marks)
            assert state_of(marked.media) == "valid", name


async def test_the_metadata_of_a_source_is_kept(made: Made, tmp_path: Path) -> None:
    camera = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    packet = write_packet(EDITED, request=False).replace(COMPOSITE.encode(), camera.encode())
    source = Source(media=JPEG + packet, parent=True)
    media_type, data = made["webp"]
    async with marking_with(signing(tmp_path)) as marking:
        kept = await marking.look({"source": source})
        marked = await marking.mark(data, media_type, EDITED, sources=[source], properties=kept)
    properties = find_properties(marked.media)
    assert properties is not None
    assert properties.values["digital_source_type"] == COMPOSITE
    assert properties.ingredients == ({"digital_source_type": camera},)


async def test_without_a_certificate_the_same_statement_gives_the_same_bytes(made: Made, caplog: Any) -> None:
    async with marking_with(ProvenanceSettings(), demo=False) as marking:
        assert not marking.signs
        assert "no certificate" in caplog.text
        for kind in KINDS:
            media_type, data = made[kind]
            first, second = [await marking.mark(data, media_type, STATEMENT) for _ in range(2)]
            assert read_media(first.media) == read_media(second.media)
            assert first.marks == second.marks == ("metadata",)


async def test_marks_that_would_be_lost_are_refused_before_the_work_begins(tmp_path: Path) -> None:
    async with marking_with(signing(tmp_path)) as marking:
        signed = (await marking.mark(JPEG, "image/jpeg", STATEMENT)).media
    described = (await Marking(ProvenanceSettings(), demo=False, processes=1).mark(JPEG, "image/jpeg", STATEMENT)).media
    off = ProvenanceSettings.model_validate({"c2pa": {"enabled": False}, "metadata": {"enabled": False}})
    async with marking_with(off) as marking:
        for media, reason in ((signed, "carries a C2PA manifest"), (described, "carries IPTC's digital source type")):
            with pytest.raises(RequestRefused, match=reason) as refused:
                await marking.look({"source": Source(media=media, parent=True)})
            assert refused.value.field == "source"
            await marking.look({"image": Source(media=media, parent=False)})
        assert await marking.look({"source": Source(media=JPEG, parent=True)}) == (Properties({}),)
        assert await marking.mark(JPEG, "image/jpeg", STATEMENT) == Marked(JPEG, ())


async def test_the_label_of_china_has_a_number_that_depends_on_the_content_alone(made: Made) -> None:
    settings = ProvenanceSettings.model_validate(
        {"c2pa": {"enabled": False}, "metadata": {"enabled": False}, "aigc": {"enabled": True, "producer": "Example"}}
    )
    marking = Marking(settings, demo=True, processes=1)
    numbers = set()
    for kind in KINDS:
        media_type, data = made[kind]
        marked = await marking.mark(data, media_type, STATEMENT)
        assert marked.marks == ("aigc",)
        properties = find_properties(marked.media)
        assert properties is not None
        assert properties.values.keys() == {"aigc"}
        numbers.add(json.loads(properties.values["aigc"])["ProduceID"])
        assert read_media((await marking.mark(data, media_type, EDITED)).media) == read_media(marked.media)
    assert len(numbers) == len(KINDS)


async def test_a_certificate_under_a_root_that_is_trusted_makes_a_trusted_manifest(made: Made, tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    media_type, data = made["mp4"]
    async with marking_with(authority.settings(), demo=False) as marking:
        marked = await marking.mark(data, media_type, STATEMENT)
    assert marked.marks == ("metadata", "c2pa")
    trusting = c2pa_settings(trust_anchors=authority.root().read_text())
    manifest = read_manifest(marked.media, trusting)
    assert manifest is not None
    assert (manifest["state"], manifest["signed_by"], manifest["test_certificate"]) == ("trusted", "Example signer", False)
    assert state_of(marked.media) == "valid", "without the root it is not trusted"


async def test_a_wrong_key_and_an_expired_certificate_end_the_start(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    key = ec.generate_private_key(ec.SECP256R1())
    files = authority.files(key, authority.issue(key), written=ec.generate_private_key(ec.SECP256R1()))
    wrong = ProvenanceSettings.model_validate({"c2pa": files})
    with pytest.raises(CertificateRefused, match="is not that of the first certificate"):
        await Marking(wrong, demo=False, processes=1).start()
    over = authority.files(key, authority.issue(key, begins=timedelta(-9), ends=timedelta(-1)))
    with pytest.raises(CertificateRefused, match="expired"):
        await Marking(ProvenanceSettings.model_validate({"c2pa": over}), demo=True, processes=1).start()
