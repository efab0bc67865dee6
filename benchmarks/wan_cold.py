"""Measures how long the Wan 1.3B engine takes to start from files that are in no cache."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.wan_checkpoints import Checkpoints
from benchmarks.wan_measurement import GB, Row, full_request, settle
from benchmarks.wan_plain import timed
from benchmarks.wan_sinks import Timer
from deployments.settings import Wan26Settings
from deployments.video.build import build_wan26


def run_cold(checkpoints: Checkpoints, _: float) -> Iterator[Row]:
    """Measure the time from files that are in no cache to the first denoise step."""
    folder = Path(checkpoints.wan26.text)
    files = list(folder.glob("*/*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    for _attempt in range(2):
        settle()
        _drop(files)
        read = timed(lambda: _read(files))
        _drop(files)
        begun = time.perf_counter()
        sink = Timer()
        engine = build_wan26(Wan26Settings(device="cuda"), checkpoints.wan26)
        built = time.perf_counter() - begun
        engine.generate(full_request(steps=1), sink)
        first = sink.times["denoise"][-1] - begun
        yield "1.3B and UMT5: reading the files", "", f"{read:.1f} s ({size / GB:.1f} GB, {size / GB / read:.1f} GB/s)"
        yield (
            "1.3B and UMT5: loaded; first step done; over reading",
            "<= 1.3",
            f"{built:.1f} s; {first:.1f} s; {first / read:.2f}",
        )
        del engine


def _read(files: list[Path]) -> None:
    block = bytearray(16 * 2**20)
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(block):
                pass


def _drop(files: list[Path]) -> None:
    """Drop ``files`` from the page cache."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
