"""A process answers requests within its budgets, and whatever ends it is told apart."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from deployments.wire import Image
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import encode_image
from serve.media.samples import stranger
from serve.media.spool import descriptor_of
from serve.media.workers.process import WorkerDied, WorkerProcess
from tests.pictures import decode_image
from tests.unit.serve.media.make_media import animation
from tests.unit.serve.media.make_picture import BOMB, encoded
from tests.unit.serve.media.workers.waiting import until
from tests.unit.shared_pool import leave_process, take_process

PICTURE = encode_image(stranger(), "image/png")


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    process = take_process()
    yield process
    leave_process(process)
    assert process.alive or process.reaped(10)


async def decode(worker: WorkerProcess, data: bytes, **budget: Any) -> Image | None:
    defaults = {"cpu_s": 60.0, "memory_bytes": 2**30, "allowed_bytes": 2**30}
    limits = {"max_pixels": 10**8, "max_scans": 10**6, "max_side": None}
    with descriptor_of(data) as file:
        answer, pixels = await worker.ask("decode", file=file, **{**defaults, **limits, **budget})
    assert answer["cpu_s"] >= 0
    return pixels


async def test_it_decodes_one_picture_after_another(worker: WorkerProcess) -> None:
    for data in (PICTURE, encode_image(stranger(), "image/jpeg"), PICTURE):
        np.testing.assert_array_equal(await decode(worker, data), decode_image(data, 10**8))


async def test_a_picture_that_claims_more_than_allowed_is_only_looked_at(worker: WorkerProcess) -> None:
    assert await decode(worker, PICTURE, allowed_bytes=10**6) is None


async def test_an_error_of_the_file_leaves_the_process_alive(worker: WorkerProcess) -> None:
    with pytest.raises(MediaError, match="not an image"):
        await decode(worker, b"text")
    with pytest.raises(MediaTooLarge, match="more than 100 scans"):
        await decode(worker, BOMB, max_scans=100)
    pid = worker.pid
    assert await decode(worker, PICTURE) is not None
    assert worker.pid == pid


async def test_an_error_of_the_code_is_not_blamed_on_the_file(worker: WorkerProcess) -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'max_frames'"):
        await worker.ask("open", cpu_s=1, memory_bytes=2**30)


async def test_it_comes_after_the_processes_that_serve_everybody(worker: WorkerProcess) -> None:
    await worker.start()
    assert psutil.Process(worker.pid).nice() == min(19, psutil.Process().nice() + 5)


@pytest.mark.slow
async def test_the_kernel_ends_a_process_that_uses_up_its_cpu_time(worker: WorkerProcess) -> None:
    with pytest.raises(MediaTooLarge, match="too much time"):
        await decode(worker, BOMB, cpu_s=0.3)
    assert not worker.alive


@pytest.mark.slow
async def test_waiting_does_not_use_up_cpu_time(worker: WorkerProcess) -> None:
    await worker.start()
    os.kill(worker.pid, signal.SIGSTOP)
    call = asyncio.ensure_future(decode(worker, PICTURE, cpu_s=0.5))
    await asyncio.sleep(0.8)
    assert not call.done()
    os.kill(worker.pid, signal.SIGCONT)
    assert await call is not None


@pytest.mark.slow
async def test_memory_beyond_the_budget_is_refused_to_the_process(worker: WorkerProcess) -> None:
    large = encoded("PNG", 4000, 4000)
    with pytest.raises(MediaTooLarge, match="needs more memory"):
        await decode(worker, large, memory_bytes=2**25)
    assert await decode(worker, PICTURE) is not None, "the limit is only for the one request"


async def test_a_caller_that_leaves_ends_the_process(worker: WorkerProcess) -> None:
    await worker.start()
    call = asyncio.ensure_future(decode(worker, BOMB))
    await until(lambda: psutil.Process(worker.pid).cpu_percent(0.05) >= 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not worker.alive
    assert worker.reaped(10)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_process_that_is_killed_says_by_what(worker: WorkerProcess, number: signal.Signals) -> None:
    await worker.start()
    call = asyncio.ensure_future(decode(worker, BOMB))
    await asyncio.sleep(0)
    os.kill(worker.pid, number)
    with pytest.raises(WorkerDied, match=number.name):
        await call
    with pytest.raises(WorkerDied):
        await decode(worker, PICTURE)


@pytest.mark.slow
async def test_an_animation_is_only_looked_at_if_opening_it_needs_more_than_is_allowed(worker: WorkerProcess) -> None:
    frames = np.zeros((2, 200, 300, 3), np.uint8)
    limits: dict[str, Any] = {
        "max_frames": 20,
        "max_seconds": 10,
        "max_pixels": 60_000,
        "max_scans": 100,
        "rate": None,
        "sound": False,
    }
    for kind in ("GIF", "WEBP"):
        with descriptor_of(animation(kind, frames)) as file:
            header, _ = await worker.ask("open", file=file, cpu_s=10.0, memory_bytes=2**30, allowed_bytes=60_000, **limits)
        assert header.keys() == {"working_bytes", "cpu_s"}
        assert header["working_bytes"] > 20 * 60_000
        with descriptor_of(animation(kind, frames)) as file:
            allowed = header["working_bytes"]
            header, _ = await worker.ask("open", file=file, cpu_s=10.0, memory_bytes=2**30, allowed_bytes=allowed, **limits)
        assert header["pixels"] == 60_000


@pytest.mark.slow
async def test_frames_of_a_video_come_in_chunks_and_can_be_skipped(worker: WorkerProcess) -> None:
    levels = [np.full((20, 30, 3), 20 * i, np.uint8) for i in range(9)]
    limits: dict[str, Any] = {
        "max_frames": 20,
        "max_seconds": 10,
        "max_pixels": 600,
        "max_scans": 100,
        "rate": None,
        "sound": False,
    }
    limits["allowed_bytes"] = 2**20
    budget: dict[str, Any] = {"cpu_s": 10.0, "memory_bytes": 2**30}
    with descriptor_of(animation("GIF", np.stack(levels))) as file:
        header, _ = await worker.ask("open", file=file, **limits, **budget)
    assert (header["count"], header["duration"], header["pixels"]) == (9, "9/10", 600)
    first, frames = await worker.ask("chunk", skip=0, **budget)
    assert frames is not None
    assert [int(frame[0, 0, 0]) for frame in frames] == [0, 20, 40, 60]
    last, frames = await worker.ask("chunk", skip=1, **budget)
    assert (first["index"], last["index"]) == (0, 8)
    assert last["times"] == ["4/5"]
    assert frames is not None
    assert int(frames[0, 0, 0, 0]) == 160
    assert (await worker.ask("chunk", skip=0, **budget))[0]["end"]


PARENT = """
import asyncio, sys, time
from serve.media.workers.process import WorkerProcess
from serve.media.spool import descriptor_of
async def main():
    worker = WorkerProcess()
    await worker.start()
    print(worker.pid, flush=True)
    with descriptor_of(open(sys.argv[1], "rb").read()) as file:
        limits = {"max_pixels": 10**8, "max_scans": 10**6, "max_side": None}
        await worker.ask("decode", file=file, cpu_s=600, memory_bytes=2**30, allowed_bytes=2**30, **limits)
asyncio.run(main())
"""


@pytest.mark.slow
def test_a_process_that_decodes_ends_with_its_parent_even_if_that_is_killed(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.jpg"
    bomb.write_bytes(BOMB)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(bomb)], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        while child.cpu_percent(0.05) < 10:  # until it decodes
            assert parent.poll() is None
        parent.kill()
    deadline = time.monotonic() + 30
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the process still runs"
        time.sleep(0.02)
