"""Results are signed in a process without the key, with a timestamp or without."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from serve.media.errors import MediaError
from serve.media.spool import Media, Spool, read_media
from serve.media.workers.messages import Message
from serve.media.workers.process import WorkerDied
from serve.provenance.certificates import Identity
from serve.provenance.signing import TSA_PAUSE_S, Signed, Signer, SigningFailed, Source, _public
from serve.provenance_settings import C2paSettings
from tests.unit.serve.media.make_media import unnamed_files
from tests.unit.serve.provenance.lent_worker import Answer, LentWorker, sign
from tests.unit.serve.provenance.markings import JPEG, Made, marking_with, state_of
from tests.unit.serve.provenance.results import MADE_AT, STATEMENT, on_disk, signing
from tests.unit.serve.provenance.timestamps import hanging, refusing


async def test_only_what_cose_signs_is_signed(tmp_path: Path) -> None:
    async with marking_with(signing(tmp_path)) as marking:
        assert marking._signer is not None
        respond = marking._signer._respond(None)
        with pytest.raises(Exception, match="other than a manifest"):
            respond({"sign": b"a certificate request".hex()})
        reply: Message = respond({"sign": b"\x84\x6aSignature1...".hex()})
        assert len(bytes.fromhex(reply["signature"])) == 64


@pytest.mark.slow
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


async def test_the_log_has_no_password_of_the_authority(made: Made, tmp_path: Path, caplog: Any) -> None:
    media_type, data = made["jpeg"]
    with refusing() as url:
        secret = url.replace("http://", "http://ann:pass-word@") + "stamp?key=sesame"
        async with marking_with(signing(tmp_path, timestamp_url=secret)) as marking:
            await marking.mark(data, media_type, STATEMENT)
    assert "without a timestamp" in caplog.text
    assert "pass-word" not in caplog.text
    assert "sesame" not in caplog.text


URL = "https://ann:pass@tsa.example.org:8443/stamp?key=sesame"


def signer_with(worker: LentWorker, sign_data: Callable[[bytes], bytes] = lambda _: b"ok", **settings: Any) -> Signer:
    """Return a signer whose process is ``worker``."""
    identity = Identity("a chain", "es256", sign_data, "Example", MADE_AT)
    return Signer(identity, C2paSettings.model_validate({"timeout_s": 600, **settings}), worker.pool)


def define(ingredients: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"ingredients": [one["label"] for one in ingredients]}


async def write_signed(arguments: dict[str, Any]) -> Answer:
    await sign(arguments)
    os.write(arguments["others"][0], b"a signed file")
    return {}, None


@pytest.mark.parametrize("large", [False, True])
async def test_a_process_gets_the_files_and_the_manifest_but_no_key(large: bool) -> None:
    media: Media = on_disk(b"a result") if large else b"a result"
    sources = [Source(media=JPEG, parent=True), Source(media=on_disk(b"GIF89a"), parent=False)]
    worker = LentWorker(write_signed)
    signed = await signer_with(worker, max_memory_bytes=5).sign(media, "image/png", define, sources)
    assert isinstance(signed.media, Spool if large else bytes)
    assert (read_media(signed.media), signed.timestamped) == (b"a signed file", False)
    (asked,) = worker.asked
    assert (asked["operation"], asked["cpu_s"], asked["memory_bytes"]) == ("sign", 600, 5)
    assert asked["files"] == [b"a result", b"", JPEG, b"GIF89a"]
    assert asked["manifest"] == {"ingredients": ["source-1", "input-2"]}
    assert [(one["definition"]["relationship"], one["media_type"]) for one in asked["ingredients"]] == [
        ("parentOf", "image/jpeg"),
        ("inputTo", "image/gif"),
    ]
    assert (asked["media_type"], asked["algorithm"], asked["chain"]) == ("image/png", "es256", {"pem": "a chain"})
    assert (asked["timestamp_url"], asked["hosts"]) == (None, []), "no network is used"


async def test_a_timestamp_is_asked_for_at_the_authority_alone() -> None:
    worker = LentWorker(write_signed)
    signed = await signer_with(worker, timestamp_url=URL).sign(b"x", "image/png", define, [])
    assert signed == Signed(media=b"a signed file", timestamped=True)
    assert (worker.asked[0]["timestamp_url"], worker.asked[0]["hosts"]) == (URL, ["tsa.example.org:8443"])


def failing(fault: Exception | str, *, after_signing: bool) -> Callable[[dict[str, Any]], Any]:
    """Return what fails where a timestamp is asked for, before or after the signature."""

    async def work(arguments: dict[str, Any]) -> Answer:
        if arguments["timestamp_url"] is None:
            return await write_signed(arguments)
        if after_signing:
            await sign(arguments)
        if isinstance(fault, Exception):
            raise fault
        return {"failed": fault}, None

    return work


FAULTS = [WorkerDied("SIGSEGV"), MediaError("it is odd"), RuntimeError("a fault"), f"no answer from {URL}"]


@pytest.mark.parametrize("fault", FAULTS, ids=["dead", "media", "code", "said"])
async def test_an_authority_that_fails_costs_the_timestamp_and_is_left_alone_for_a_while(
    fault: Exception | str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = LentWorker(failing(fault, after_signing=True))
    signer = signer_with(worker, timestamp_url=URL)
    for _ in range(2):
        signed = await signer.sign(b"x", "image/png", define, [])
        assert signed == Signed(media=b"a signed file", timestamped=False)
    assert [one["timestamp_url"] for one in worker.asked] == [URL, None, None]
    assert caplog.text.count("without a timestamp") == 1
    assert "https://tsa.example.org:8443/stamp it failed" in caplog.text
    assert "sesame" not in caplog.text
    assert "pass" not in caplog.text
    monkeypatch.setattr(signer, "_tsa_from", signer._tsa_from - TSA_PAUSE_S)
    await signer.sign(b"x", "image/png", define, [])
    assert worker.asked[3]["timestamp_url"] == URL, "the pause is over"


@pytest.mark.parametrize("fault", FAULTS, ids=["dead", "media", "code", "said"])
async def test_what_fails_before_the_signature_is_not_the_authoritys_fault(fault: Exception | str) -> None:
    worker = LentWorker(failing(fault, after_signing=False))
    signer = signer_with(worker, timestamp_url=URL)
    for _ in range(2):
        with pytest.raises(SigningFailed, match=str(fault).split("?")[0]) as failed:
            await signer.sign(b"x", "image/png", define, [])
        assert not failed.value.signed
    assert [one["timestamp_url"] for one in worker.asked] == [URL, URL]


async def wait_for_ever(arguments: dict[str, Any]) -> Answer:
    if arguments["timestamp_url"] is None:
        return await write_signed(arguments)
    await sign(arguments)
    await asyncio.Event().wait()
    raise AssertionError


async def test_after_the_signature_the_authority_has_only_its_own_time() -> None:
    worker = LentWorker(wait_for_ever)
    signer = signer_with(worker, timestamp_url=URL, timestamp_timeout_s=0.001)
    async with asyncio.timeout(60):
        signed = await signer.sign(b"x", "image/png", define, [])
    assert not signed.timestamped


async def test_signing_that_takes_too_long_fails() -> None:
    async def hang(_: dict[str, Any]) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(SigningFailed, match="it took too long"):
        await signer_with(LentWorker(hang), timeout_s=0.001).sign(b"x", "image/png", define, [])


async def test_a_signer_that_fails_is_named_with_its_error() -> None:
    def refuse(_: bytes) -> bytes:
        raise PermissionError("not today")

    with pytest.raises(SigningFailed, match="the signer failed: PermissionError: not today") as failed:
        await signer_with(LentWorker(write_signed), refuse).sign(b"x", "image/png", define, [])
    assert not failed.value.signed


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("http://tsa.example.org", "http://tsa.example.org"),
        ("https://a@b:c@tsa.example.org:80/x/y?key=1#2", "https://tsa.example.org:80/x/y"),
        ("http://[::1]:8080/?a", "http://[::1]:8080/"),
    ],
)
def test_a_url_is_logged_without_its_secrets(url: str, public: str) -> None:
    assert _public(url) == public


@pytest.mark.parametrize("fault", FAULTS, ids=["dead", "media", "code", "said"])
async def test_a_signature_that_fails_leaves_no_file_open(fault: Exception | str) -> None:
    signer = signer_with(LentWorker(failing(fault, after_signing=False)), timestamp_url=URL)
    before = unnamed_files()
    with pytest.raises(SigningFailed) as failed:
        await signer.sign(b"x", "image/png", define, [])
    assert failed.value is not None, "its traceback still refers to the file"
    assert unnamed_files() == before
