"""Files are verified in a process, within budgets and under the roots of now."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve.media.errors import MediaError, MediaTooLarge
from serve.media.workers.process import WorkerDied
from serve.provenance.certificates import CertificateRefused
from serve.provenance.verifier import Verifier
from tests.unit.serve.provenance.authority import make_authority
from tests.unit.serve.provenance.lent_worker import Answer, LentWorker
from tests.unit.serve.provenance.results import on_disk


def verifier_with(worker: LentWorker, **settings: Any) -> Verifier:
    """Return a verifier whose process is ``worker``."""
    plain = {"max_cpu_s": 20, "max_memory_bytes": 1000, "max_pixels": 50}
    verifier = Verifier(**{**plain, **settings})
    verifier._pool = worker.pool
    return verifier


async def report(_: dict[str, Any]) -> Answer:
    return {}, np.frombuffer(b'{"made_by_ai": null}', np.uint8)


@pytest.mark.parametrize("large", [False, True])
async def test_a_process_reads_a_file_within_its_budget(large: bool) -> None:
    worker = LentWorker(report)
    verifier = verifier_with(worker, secrets=[b"\x01\x02", b"\xff"])
    assert await verifier.verify(on_disk(b"a file") if large else b"a file") == {"made_by_ai": None}
    (asked,) = worker.asked
    assert (asked["operation"], asked["cpu_s"], asked["memory_bytes"]) == ("read", 20, 1000)
    assert asked["files"] == [b"a file"]
    assert asked["watermark"] == {"secrets": ["0102", "ff"], "max_pixels": 50}


@pytest.mark.parametrize(
    ("fault", "raised", "reason"),
    [
        (WorkerDied("killed by SIGSEGV"), MediaError, r"cannot be read \(.*SIGSEGV.*\); save it again in an ordinary format"),
        (MediaTooLarge("too many pixels"), MediaTooLarge, "too many pixels"),
        (RuntimeError("a media worker failed"), RuntimeError, "a media worker failed"),
        (None, RuntimeError, "said nothing"),
    ],
)
async def test_what_goes_wrong_in_the_process_is_said(fault: Exception | None, raised: type[Exception], reason: str) -> None:
    async def fail(_: dict[str, Any]) -> Answer:
        if fault is not None:
            raise fault
        return {}, None

    with pytest.raises(raised, match=reason):
        await verifier_with(LentWorker(fail)).verify(b"a file")


async def test_a_file_that_takes_too_long_is_given_up() -> None:
    async def hang(_: dict[str, Any]) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(MediaError, match="takes too long to read; send a smaller one"):
        await verifier_with(LentWorker(hang), max_cpu_s=0.001).verify(b"a file")


async def test_roots_are_read_again_for_each_file_and_the_last_good_ones_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_authority(tmp_path).root()
    first = path.read_bytes()
    worker = LentWorker(report)
    verifier = verifier_with(worker, trust_anchors=path)
    await verifier.verify(b"a file")
    path.write_bytes(b"half a cert")
    await verifier.verify(b"a file")
    assert "those that were read before count" in caplog.text
    second = make_authority(tmp_path).root().read_bytes()
    await verifier.verify(b"a file")
    assert first != second
    assert [asked["files"][1] for asked in worker.asked] == [first, first, second]


def test_roots_that_cannot_be_read_end_the_start(tmp_path: Path) -> None:
    with pytest.raises(CertificateRefused, match=r"verify\.trust_anchors: .*none\.pem cannot be read"):
        verifier_with(LentWorker(report), trust_anchors=tmp_path / "none.pem")


def test_the_processes_end_with_the_verifier() -> None:
    worker = LentWorker(report)
    verifier_with(worker).close()
    assert worker.closed
