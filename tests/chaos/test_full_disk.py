"""The disk of the embedded store is full during jobs.

What was accepted is finished. What was not is refused with a problem that says when to come back.
"""

import contextlib
import time
from pathlib import Path

import httpx
import pytest

from tests.chaos.outage import accepted, assert_refused, refused
from tests.chaos.site import Site

pytestmark = pytest.mark.graph
FULL_S = 20


def fill(disk: Path) -> Path:
    """Fill a disk to its last block, and return the file that does."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    return filler


def test_nothing_that_was_accepted_is_lost_on_a_full_disk(site: Site, disk: Path | None) -> None:
    if disk is None:
        pytest.skip("this user may not mount a disk that is small enough to fill")
    deliveries = accepted(site, 30_000)
    filler = fill(disk)
    try:
        assert_refused(refused(site))
        begun = time.monotonic()
        while time.monotonic() < begun + FULL_S:
            for delivered in deliveries:
                (job_id,) = delivered.job_ids
                headers = {"Authorization": f"Bearer caller{delivered.order.caller}"}
                assert httpx.get(f"{site.service.url}/jobs/{job_id}", headers=headers, timeout=30).status_code == 200
            time.sleep(1)
    finally:
        filler.unlink()
    site.collect(deliveries)
    site.check()
