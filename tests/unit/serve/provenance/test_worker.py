"""What the process that signs and reads does, here without a process of its own."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from serve.media.errors import MediaError
from serve.media.spool import Media, Spool, read_media
from serve.media.workers.messages import Message
from serve.media.workers.worker import Answer
from serve.provenance import worker
from serve.provenance.certificates import load_identity
from serve.provenance.embedding import embed
from serve.provenance.manifest import ingredient, manifest_of
from serve.provenance.statement import GENERATED
from serve.provenance.watermark import Payload, Reading
from serve.provenance.watermark_reading import WatermarkLimits
from serve.provenance.worker import MAX_REASON_CHARS, MarkSession
from serve.provenance.xmp import write_packet
from tests.unit.serve.provenance.authority import Authority, make_authority
from tests.unit.serve.provenance.markings import JPEG, state_of
from tests.unit.serve.provenance.results import EDITED, STATEMENT, on_disk

NO_WATERMARK = {"secrets": [], "max_pixels": 1000}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


def nothing_to_ask(question: Message) -> Message:
    raise AssertionError(question)


def content_of(answer: Answer) -> Any:
    message, array = answer
    assert message == {}
    assert array is not None
    return json.loads(array.tobytes())


def read(*files: Media, watermark: Message | None = None) -> Any:
    request = {"operation": "read", "watermark": watermark or NO_WATERMARK}
    return content_of(MarkSession().answer(request, [on_disk(file) for file in files], nothing_to_ask))


def sign(authority: Authority, *sources: Media, media_type: str = "image/jpeg", **changes: Any) -> tuple[Answer, Spool, int]:
    """Sign ``JPEG`` as the parent asks for it; return the answer, the file and the questions."""
    identity = load_identity(authority.settings().c2pa)
    assert identity is not None
    asked: list[Message] = []

    def ask(question: Message) -> Message:
        asked.append(question)
        return {"signature": identity.sign(bytes.fromhex(question["sign"])).hex()}

    definitions = [ingredient(number, parent=True) for number, _ in enumerate(sources, 1)]
    statement = EDITED if sources else STATEMENT
    request = {
        "operation": "sign",
        "media_type": media_type,
        "manifest": manifest_of(statement, model=False, seed=False, is_test=False, ingredients=definitions),
        "ingredients": [{"definition": definition, "media_type": "image/jpeg"} for definition in definitions],
        "algorithm": identity.algorithm,
        "chain": {"pem": identity.chain},
        "timestamp_url": None,
        "hosts": [],
        **changes,
    }
    out = Spool.empty()
    answer = MarkSession().answer(request, [on_disk(JPEG), out, *map(on_disk, sources)], ask)
    return answer, out, len(asked)


def test_a_file_is_signed_into_the_second_one_with_a_signature_of_the_parent(authority: Authority) -> None:
    answer, out, questions = sign(authority)
    assert answer == ({}, None)
    assert questions == 1
    assert state_of(out.read()) == "valid"
    report = read(out.read(), authority.root().read_bytes())
    assert report["c2pa"]["state"] == "trusted", "the anchors came as the second file"
    assert (report["made_by_ai"], report["says_so"]) == (True, ["c2pa"])
    assert read(out.read())["c2pa"]["state"] == "valid", "without anchors nobody is trusted"


def test_the_files_behind_the_second_are_its_ingredients(authority: Authority) -> None:
    _, first, _ = sign(authority)
    _, out, _ = sign(authority, first.read())
    report = read(out.read())["c2pa"]
    assert (report["actions"], report["ingredients"]) == (["c2pa.opened", "c2pa.edited"], 1)
    assert [manifest["actions"] for manifest in report["chain"]] == [["c2pa.created"]]


@pytest.mark.parametrize(
    "changes",
    [{"media_type": "image/png"}, {"chain": {"pem": "no certificate"}}, {"manifest": {"claim_generator_info": 5}}],
    ids=["another type", "no chain", "no manifest"],
)
def test_what_c2pa_refuses_is_an_answer_and_no_fault_of_the_process(authority: Authority, changes: dict[str, Any]) -> None:
    (message, array), _, _ = sign(authority, **changes)
    assert array is None
    assert message.keys() == {"failed"}
    assert 0 < len(message["failed"]) <= MAX_REASON_CHARS


@pytest.mark.parametrize("look_for_manifest", [False, True])
def test_what_a_source_carries_is_found(authority: Authority, look_for_manifest: bool) -> None:
    _, signed, _ = sign(authority)
    marked = embed(JPEG, "image/jpeg", write_packet(STATEMENT, request=False))
    request = {"operation": "find", "manifest": look_for_manifest}
    for media, manifest, properties in (
        (signed.read(), True, {}),
        (marked, False, {"digital_source_type": GENERATED}),
        (JPEG, False, {}),
    ):
        message, array = MarkSession().answer(request, [on_disk(media)], nothing_to_ask)
        assert message == {"manifest": manifest and look_for_manifest}
        assert array is not None
        found = json.loads(array.tobytes())
        assert found.get("digital_source_type") == properties.get("digital_source_type")


def test_the_report_on_a_file_without_marks_says_so() -> None:
    report = read(JPEG)
    assert (report["made_by_ai"], report["media_type"], report["watermark"]) == (None, "image/jpeg", None)
    assert report["summary"].startswith("No mark was found.")


def looking(monkeypatch: pytest.MonkeyPatch, *found: Reading, error: Exception | None = None) -> list[tuple[Any, ...]]:
    """Let watermarks be found as given; return what is asked for."""
    asked: list[tuple[Any, ...]] = []

    def read_watermarks(media: Spool, secrets: list[bytes], limits: WatermarkLimits) -> tuple[Reading, ...]:
        asked.append((read_media(media), secrets, limits.pixels))
        if error is not None:
            raise error
        return found

    monkeypatch.setattr(worker, "read_watermarks", read_watermarks)
    return asked


def test_watermarks_are_looked_for_by_each_secret_and_told_clearest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clear, faint = (
        Reading(payload=Payload(key_id=number, request=number), false_positive_rate=10.0**-number, secret=0, cell=8)
        for number in (2, 1)
    )
    asked = looking(monkeypatch, clear, faint)
    report = read(JPEG, watermark={"secrets": ["0102", "ff"], "max_pixels": 77})
    assert asked == [(JPEG, [b"\x01\x02", b"\xff"], 77)]
    assert report["watermark"] == {
        "found": True,
        "payload": str(clear.payload),
        "key_id": 2,
        "false_positive_rate": 0.01,
        "payloads": [str(clear.payload), str(faint.payload)],
    }
    assert report["says_so"] == ["watermark"]


def test_a_file_without_watermarks_or_without_frames_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = {"secrets": ["01"], "max_pixels": 77}
    looking(monkeypatch)
    assert read(JPEG, watermark=asking)["watermark"] == {"found": False}
    looking(monkeypatch, error=MediaError("it has no frames"))
    assert read(JPEG, watermark=asking)["watermark"] == {"found": False, "reason": "it has no frames"}


def test_a_fault_in_reading_a_file_is_the_files_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looking(monkeypatch, error=ZeroDivisionError("of the detector"))
    with caplog.at_level(logging.WARNING), pytest.raises(MediaError, match=r"cannot be decoded \(ZeroDivisionError\)"):
        read(JPEG, watermark={"secrets": ["01"], "max_pixels": 77})
    assert "of the detector" in caplog.text


def test_there_is_no_other_operation(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        MarkSession().answer({"operation": "write"}, [], nothing_to_ask)
