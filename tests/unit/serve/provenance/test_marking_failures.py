"""Nothing that goes wrong while results are marked loses one, or tells an untruth."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from deployments.errors import RequestRefused
from serve.media.errors import MediaError
from serve.media.spool import read_media
from serve.media.workers.messages import Message
from serve.media.workers.process import WorkerDied
from serve.provenance import marking as marks_module
from serve.provenance.certificates import CertificateRefused, signer_of
from serve.provenance.manifest import c2pa_settings
from serve.provenance.marking import Marked, Marking, MarksNotRead
from serve.provenance.packet_scan import find_properties
from serve.provenance.reading import read_manifest, read_marks
from serve.provenance.report import complete
from serve.provenance.signing import SigningFailed, Source
from serve.provenance.statement import Label
from serve.provenance.xmp import Properties, write_packet
from serve.provenance_settings import AigcSettings, MetadataSettings, ProvenanceSettings
from serve.telemetry.metrics import CERTIFICATE_EXPIRY, PROVENANCE_FAILURES
from tests.unit.recorded_metrics import recorded_metrics
from tests.unit.serve.provenance.authority import make_authority
from tests.unit.serve.provenance.markings import JPEG, Made, marking_with, state_of
from tests.unit.serve.provenance.results import (
    EDITED,
    REQUEST_ID,
    STATEMENT,
    on_disk,
    signing,
)
from tests.unit.serve.provenance.timestamps import hanging, refusing


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
            assert asked.wait(60)
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
