"""Results of every format are signed, and nothing that goes wrong there loses one."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import c2pa
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from deployments.errors import RequestRefused
from serve.media.errors import MediaError
from serve.media.images import encode_image
from serve.media.spool import Media, open_media, read_media
from serve.media.workers.messages import Message
from serve.media.workers.process import WorkerDied
from serve.provenance import marking as marks_module
from serve.provenance.certificates import CertificateRefused, signer_of
from serve.provenance.manifest import REQUEST, c2pa_settings
from serve.provenance.marking import Marked, Marking, MarksNotRead
from serve.provenance.packet_scan import find_properties
from serve.provenance.reading import read_manifest, read_marks
from serve.provenance.report import complete
from serve.provenance.signing import SigningFailed, Source
from serve.provenance.statement import COMPOSITE, GENERATED, Label
from serve.provenance.xmp import Properties, write_packet
from serve.provenance_settings import AigcSettings, MetadataSettings, ProvenanceSettings
from serve.telemetry.metrics import CERTIFICATE_EXPIRY, PROVENANCE_FAILURES
from tests.unit.recorded_metrics import recorded_metrics
from tests.unit.serve.provenance.authority import make_authority
from tests.unit.serve.provenance.results import (
    EDITED,
    KINDS,
    PICTURE,
    REQUEST_ID,
    STATEMENT,
    flipped,
    on_disk,
    signing,
)
from tests.unit.serve.provenance.timestamps import hanging, refusing

Made = dict[str, tuple[str, Media]]
JPEG = encode_image(PICTURE, "image/jpeg")


@asynccontextmanager
async def marking_with(settings: ProvenanceSettings, *, demo: bool = True) -> AsyncIterator[Marking]:
    """Yield a marking that was started."""
    marking = Marking(settings, demo=demo, processes=2)
    try:
        await marking.start()
        yield marking
    finally:
        marking.close()


def report_of(media: Media, media_type: str) -> dict[str, Any]:
    """Return what c2pa's own reader says of a file."""
    context = c2pa.Context.from_dict(c2pa_settings())
    with open_media(media) as file:
        reader = c2pa.Reader(media_type, file, context=context)
        report: dict[str, Any] = json.loads(reader.json())
    return report


def assertions_of(report: dict[str, Any]) -> dict[str, Any]:
    """Return the assertions of the active manifest by their labels."""
    active = report["manifests"][report["active_manifest"]]
    return {assertion["label"]: assertion["data"] for assertion in active["assertions"]}


def state_of(media: Media) -> str | None:
    """Return the state of the manifest of a file."""
    manifest = read_manifest(media, c2pa_settings())
    return None if manifest is None else str(manifest["state"])


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
        assert read_media(marked.media).count(b"\xff\xd8\xff") == 1, "there is one JPEG in it, the result"


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


class Signature:
    """A function in place of a key, whose answers are ``given`` one after the other."""

    given: Sequence[object] = ()

    @classmethod
    def sign(cls, data: bytes) -> bytes:
        """Return the next answer, or raise it."""
        answer, *cls.given = cls.given
        if isinstance(answer, Exception):
            raise answer
        assert callable(answer)
        signature: bytes = answer(data)
        return signature


SIGN = Signature.sign


async def test_a_function_that_fails_ends_the_start_and_later_loses_no_result(made: Made, tmp_path: Path, caplog: Any) -> None:
    authority = make_authority(tmp_path)
    key = ec.generate_private_key(ec.SECP256R1())
    _, sign = signer_of(key)
    chain = authority.files(key, authority.issue(key))["certificate"]
    settings = ProvenanceSettings.model_validate(
        {"c2pa": {"certificate": chain, "signer": f"{__name__}:SIGN", "algorithm": "es256"}}
    )
    Signature.given = [RuntimeError("no permission")]
    with pytest.raises(CertificateRefused, match=r"nothing can be signed with .*Example signer.*RuntimeError: no permission"):
        await Marking(settings, demo=False, processes=1).start()
    media_type, data = made["png"]
    Signature.given = [sign, RuntimeError("throttled"), sign]
    async with marking_with(settings) as marking:
        failed = await marking.mark(data, media_type, STATEMENT)
        assert failed.marks == ("metadata", "c2pa=failed")
        assert "throttled" in caplog.text
        assert REQUEST_ID in caplog.text
        assert find_properties(failed.media) is not None
        assert (await marking.mark(data, media_type, STATEMENT)).marks == ("metadata", "c2pa")


async def test_only_what_cose_signs_is_signed(tmp_path: Path) -> None:
    async with marking_with(signing(tmp_path)) as marking:
        assert marking._signer is not None
        respond = marking._signer._respond(None)
        with pytest.raises(Exception, match="other than a manifest"):
            respond({"sign": b"a certificate request".hex()})
        reply: Message = respond({"sign": b"\x84\x6aSignature1...".hex()})
        assert len(bytes.fromhex(reply["signature"])) == 64


async def test_a_timestamp_authority_that_hangs_costs_its_time_once_and_no_result(
    made: Made, tmp_path: Path, caplog: Any
) -> None:
    media_type, data = made["jpeg"]
    with hanging() as (url, asked):
        async with marking_with(signing(tmp_path, timestamp_url=url, timestamp_timeout_s=0.5)) as marking:
            assert not asked.is_set(), "the start needs no network"
            first = await marking.mark(data, media_type, STATEMENT)
            assert asked.is_set()
            assert first.marks == ("metadata", "c2pa;certificate=test;timestamp=failed")
            assert "without a timestamp" in caplog.text
            asked.clear()
            second = await marking.mark(data, media_type, STATEMENT)
            assert not asked.is_set(), "it is left alone for a while"
    assert second.marks == first.marks
    assert (state_of(first.media), state_of(second.media)) == ("valid", "valid")


async def test_a_timestamp_authority_that_is_away_costs_no_result(made: Made, tmp_path: Path, caplog: Any) -> None:
    media_type, data = made["mp4"]
    with refusing() as url:
        async with marking_with(signing(tmp_path, timestamp_url=url)) as marking:
            marked = await marking.mark(data, media_type, STATEMENT)
    assert marked.marks[-1] == "c2pa;certificate=test;timestamp=failed"
    assert state_of(marked.media) == "valid"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_process_that_dies_or_hangs_costs_no_result(made: Made, tmp_path: Path, monkeypatch: Any) -> None:
    media_type, data = made["png"]
    async with marking_with(signing(tmp_path)) as marking:
        assert marking._signer is not None
        short = signing(tmp_path, timeout_s=1e-3).c2pa
        monkeypatch.setattr(marking._signer, "_settings", short)
        marked = await asyncio.wait_for(marking.mark(data, media_type, STATEMENT), 60)
    assert marked.marks == ("metadata", "c2pa=failed")
    assert find_properties(marked.media) is not None


async def test_a_file_that_cannot_be_marked_is_sent_as_it_is_and_says_so(caplog: Any) -> None:
    marking = Marking(ProvenanceSettings(), demo=False, processes=1)
    for media_type in ("image/jpeg", "image/png", "image/webp", "image/gif"):
        assert await marking.mark(b"?", media_type, STATEMENT) == Marked(b"?", ("metadata=failed",))
    labelled = ProvenanceSettings.model_validate({"aigc": {"enabled": True, "visible": True, "producer": "Example"}})
    failed = await Marking(labelled, demo=False, processes=1).mark(b"\0\0\0\x08free", "video/mp4", STATEMENT)
    assert failed.marks == ("metadata=failed", "aigc=failed;label=visible")
    assert REQUEST_ID in caplog.text


async def test_a_source_that_kills_the_process_is_left_out(made: Made, tmp_path: Path) -> None:
    """A budget of memory that no ingredient fits into stands for a file that crashes c2pa."""
    media_type, data = made["png"]
    huge = Source(media=on_disk(b"\xff\xd8\xff\xe1" + 40 * 2**20 * b"\0"), parent=True)
    async with marking_with(signing(tmp_path, max_memory_bytes=24 * 2**20)) as marking:
        marked = await marking.mark(data, media_type, EDITED, sources=[huge])
        assert marked.marks[-1] in ("c2pa;certificate=test;sources=unreadable", "c2pa;certificate=test;sources=kept")
        assert state_of(marked.media) == "valid"


async def test_the_end_of_the_certificate_is_reported_again_and_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(marks_module, "REPORT_PERIOD_S", 0)
    with recorded_metrics() as recorded:
        async with marking_with(signing(tmp_path)) as marking:
            assert marking._signer is not None
            expiry = marking._signer.identity.expires_at.timestamp()
            assert recorded.values(CERTIFICATE_EXPIRY) == [expiry]
            watch = asyncio.ensure_future(marking.watch())
            for _ in range(20):
                await asyncio.sleep(0)
            watch.cancel()
            assert len(recorded.values(CERTIFICATE_EXPIRY)) > 4
            assert set(recorded.values(CERTIFICATE_EXPIRY)) == {expiry}


async def test_each_mark_that_fails_is_counted_by_its_layer(tmp_path: Path) -> None:
    with recorded_metrics() as recorded:
        async with marking_with(signing(tmp_path)) as marking:
            marked = await marking.mark(b"?", "image/png", STATEMENT)
        assert marked == Marked(b"?", ("metadata=failed", "c2pa=failed"))
        assert recorded.values(PROVENANCE_FAILURES, layer="metadata") == [1]
        assert recorded.values(PROVENANCE_FAILURES, layer="signature") == [1]


async def test_a_certificate_that_expires_meanwhile_signs_nothing_and_strips_nothing(
    made: Made, tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    media_type, data = made["jpeg"]
    async with marking_with(signing(tmp_path)) as marking:
        signed = (await marking.mark(data, media_type, STATEMENT)).media
        assert marking._signer is not None
        over = replace(marking._signer.identity, expires_at=datetime.now(UTC) - timedelta(seconds=1))
        monkeypatch.setattr(marking._signer, "identity", over)
        assert not marking.signs
        assert (await marking.mark(data, media_type, STATEMENT)).marks == ("metadata", "c2pa=failed")
        assert "has expired" in caplog.text
        with pytest.raises(RequestRefused, match="carries a C2PA manifest"):
            await marking.look({"source": Source(media=signed, parent=True)})
        watch = asyncio.ensure_future(marking.watch())
        await asyncio.sleep(0)
        watch.cancel()
    assert caplog.text.count("results are not signed any more") == 1


ODD_ENDS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "png without its end": ("png", lambda data: data[:-12]),
    "mp4 with a tag": ("mp4", lambda data: data + b"TAG" + bytes(125)),
}


@pytest.mark.parametrize("odd", ODD_ENDS)
async def test_a_harmless_file_that_c2pa_cannot_parse_has_no_manifest_but_a_signed_one_has(
    made: Made, tmp_path: Path, odd: str
) -> None:
    kind, change = ODD_ENDS[odd]
    media_type, data = made[kind]
    async with marking_with(signing(tmp_path)) as marking:
        signed = read_media((await marking.mark(data, media_type, STATEMENT)).media)
    harmless = change(read_media(data))
    assert read_manifest(harmless, c2pa_settings()) is None
    assert state_of(change(signed)) == "unreadable"
    async with marking_with(ProvenanceSettings(), demo=False) as marking:
        assert await marking.look({"source": Source(media=harmless, parent=True)}) == (Properties({}),)
        with pytest.raises(RequestRefused, match="carries a C2PA manifest"):
            await marking.look({"source": Source(media=change(signed), parent=True)})


@pytest.mark.parametrize("odd", ODD_ENDS)
async def test_a_file_that_cannot_be_signed_over_costs_nobody_a_timestamp(made: Made, tmp_path: Path, odd: str) -> None:
    kind, change = ODD_ENDS[odd]
    media_type, data = made["jpeg"]
    source = Source(media=change(read_media(made[kind][1])), parent=True)
    with refusing() as url:
        async with marking_with(signing(tmp_path, timestamp_url=url)) as marking:
            assert marking._signer is not None
            with pytest.raises(SigningFailed):
                await marking._signer.sign(data, media_type, lambda items: {"assertions": []}, [source])
            assert marking._signer._tsa_from == float("-inf"), "the authority is asked for the next result"
            marked = await marking.mark(data, media_type, EDITED, sources=[source])
            assert marking._signer._tsa_from > 0, "it has failed now"
    assert marked.marks[-1] == "c2pa;certificate=test;sources=unreadable;timestamp=failed"
    manifest = read_manifest(marked.media, c2pa_settings())
    assert manifest is not None
    assert (manifest["state"], manifest["actions"]) == ("valid", ["c2pa.opened", "c2pa.edited"]), "an edit stays an edit"


async def test_the_log_has_no_password_of_the_authority(made: Made, tmp_path: Path, caplog: Any) -> None:
    media_type, data = made["jpeg"]
    with refusing() as url:
        secret = url.replace("http://", "http://ann:pass-word@") + "stamp?key=sesame"
        async with marking_with(signing(tmp_path, timestamp_url=secret)) as marking:
            await marking.mark(data, media_type, STATEMENT)
    assert "without a timestamp" in caplog.text
    assert "pass-word" not in caplog.text
    assert "sesame" not in caplog.text


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (MediaError("odd"), RequestRefused),
        (WorkerDied("SIGSEGV"), RequestRefused),
        (TimeoutError(), MarksNotRead),
        (RuntimeError("x"), MarksNotRead),
    ],
)
async def test_a_source_that_cannot_be_searched_is_refused_where_its_marks_might_be_lost(
    tmp_path: Path, monkeypatch: Any, fault: Exception, raised: type[Exception]
) -> None:
    async def fail(_: Source) -> Any:
        raise fault

    sources = {"source": Source(media=JPEG, parent=True)}
    async with marking_with(ProvenanceSettings(), demo=False) as marking:
        monkeypatch.setattr(marking, "_find", fail)
        with pytest.raises(raised):
            await marking.look(sources)
        assert await marking.look({"image": Source(media=JPEG, parent=False)}) == (Properties({}),)
    async with marking_with(signing(tmp_path)) as marking:
        monkeypatch.setattr(marking, "_find", fail)
        assert await marking.look(sources) == (Properties({}),), "the manifest has it as an ingredient"


@pytest.mark.parametrize("mark", ["type", "label"])
async def test_a_mark_in_xmp_is_refused_where_no_metadata_is_written_though_results_are_signed(
    tmp_path: Path, mark: str
) -> None:
    label = Label(producer="Example", number="1") if mark == "label" else None
    packet = write_packet(EDITED, request=False, described=label is None, label=label)
    source = {"source": Source(media=JPEG + packet, parent=True)}
    quiet = signing(tmp_path).model_copy(update={"metadata": MetadataSettings(enabled=False)})
    async with marking_with(quiet) as marking:
        with pytest.raises(RequestRefused, match="which would be lost, because this service writes no metadata"):
            await marking.look(source)
    async with marking_with(signing(tmp_path)) as marking:
        kept = await marking.look(source)
        marked = await marking.mark(JPEG, "image/jpeg", EDITED, properties=kept)
    properties = find_properties(marked.media)
    assert properties is not None
    assert properties.ingredients[0].keys() == {"aigc" if label else "digital_source_type"}


async def test_a_film_in_which_nothing_was_replaced_is_not_said_to_be_made_by_ai(made: Made, tmp_path: Path) -> None:
    media_type, data = made["mp4"]
    settings = signing(tmp_path).model_copy(update={"aigc": AigcSettings(enabled=True, producer="Example")})
    camera = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    async with marking_with(settings) as marking:
        marked = await marking.mark(
            data,
            media_type,
            replace(EDITED, kind="unchanged"),
            sources=[Source(media=JPEG, parent=True)],
            properties=[Properties({"digital_source_type": camera})],
        )
    report = complete(read_marks(marked.media, c2pa_settings()))
    assert (report["made_by_ai"], report["says_so"], report["aigc"]) == (None, [], None)
    assert report["metadata"]["digital_source_type"] == camera
    assert "system" not in report["metadata"]
    assert report["c2pa"]["state"] == "valid"
    assert (report["c2pa"]["actions"], report["c2pa"]["digital_source_types"]) == (["c2pa.opened", "c2pa.edited"], [])
