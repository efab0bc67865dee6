"""Metrics of what the files of jobs take."""

import shutil
from pathlib import Path

import pytest

from serve.config import JobSettings
from serve.jobs.open_store import open_stores
from serve.jobs.usage_report import UsageReport
from serve.telemetry import metrics
from tests.unit.recorded_metrics import recorded_metrics
from tests.unit.serve.jobs.samples import new_job


@pytest.mark.parametrize("files", [None, "memory://ryla"], ids=["folder", "bucket"])
async def test_what_is_kept_and_what_is_free_is_reported(tmp_path: Path, files: str | None) -> None:
    store, kept = open_stores(JobSettings(folder=tmp_path / "jobs", files=files), "films")
    await store.open()
    try:
        for caller, size in (("ann", 70), ("bob", 50), ("bob", 40)):
            await store.create(new_job(caller=caller, request_bytes=size), max_queued=9)
        with recorded_metrics() as recorded:
            await UsageReport(store, kept).report()
    finally:
        await store.close()
    assert recorded.values(metrics.KEPT_BYTES) == [160]
    assert recorded.values(metrics.KEPT_BYTES_OF_ONE) == [90]
    if files is None:
        [free] = recorded.values(metrics.FREE_BYTES)
        assert 0 < free <= shutil.disk_usage(tmp_path).total
    else:
        assert metrics.FREE_BYTES.name not in recorded.names()
