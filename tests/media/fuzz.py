"""`python -m tests.media.fuzz [PICTURES VIDEOS]`: mutated files in the service's own processes.

Each file is decoded in a worker process, as a request does, and a video is encoded again. The only
outcomes may be a result and an error that blames the file. It prints how often each came, the
slowest file, and the memory of this process and of the workers before and after. It exits with 1 if
anything else happened, and names the mutation.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import psutil

from deployments.errors import RequestRefused
from serve.config import Limits, RunnerSettings
from serve.pipelines.decoder import Decoder, Picture
from serve.pipelines.encoding import VideoWriters
from serve.pipelines.errors import MediaOverLimit
from serve.pipelines.media_threads import MediaThreads
from serve.pipelines.source_reader import SourceReaders
from tests.media.mutations import mutate
from tests.unit.serve.media.every_format import ANIMATIONS, IMAGES, VIDEOS
from tests.unit.serve.pipelines.request_builders import make_context

LIMITS = Limits(max_source_frames=60, max_source_seconds=20, max_source_pixels=100_000, max_image_pixels=100_000)
LONGEST_S = 60.0
"""A file that takes longer than this counts as one that hangs."""
REPORT_EVERY = 500


class Service:
    """The parts of a Runner that touch files."""

    def __init__(self) -> None:
        settings = RunnerSettings(media_processes=2)
        self.decoder = Decoder(settings, LIMITS)
        self.readers = SourceReaders(self.decoder.pool, self.decoder.memory, settings, LIMITS)
        self.writers = VideoWriters(settings, MediaThreads(1))

    async def picture(self, data: bytes) -> None:
        """Decode a picture."""
        async with self.decoder.pictures([Picture("source", data)], "caller") as decoded:
            assert decoded.of("source")[0].dtype == "uint8"

    async def video(self, data: bytes) -> None:
        """Decode a video and encode it again."""
        context = make_context("video/mp4")
        async with (
            self.readers.open("source", data, "caller", rate=None, sound=True) as source,
            self.writers.open("source", context, fps=source.fps, count=source.count, source=source) as writer,
        ):
            async for chunk in source.chunks():
                await writer.add(chunk)
            await writer.close()


async def try_all(
    name: str, kinds: dict[str, bytes], count: int, use: Callable[[bytes], Awaitable[None]], service: Service
) -> list[str]:
    """Use ``count`` mutations, in turn of each kind of file; return what must not happen."""
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    slowest = (0.0, "")
    for data in kinds.values():
        await use(data)
    before = memory_of(service)
    names = sorted(kinds)
    for number in range(count):
        kind = names[number % len(names)]
        started = time.perf_counter()
        try:
            await asyncio.wait_for(use(mutate(kinds[kind], number // len(names))), LONGEST_S)
            outcomes["result"] += 1
        except (RequestRefused, MediaOverLimit) as error:
            outcomes[type(error).__name__] += 1
        except Exception as error:
            outcomes["FAULT"] += 1
            faults.append(f"{kind}, mutation {number // len(names)}: {type(error).__name__}: {error}"[:600])
        slowest = max(slowest, (time.perf_counter() - started, f"{kind}, mutation {number // len(names)}"))
        if (number + 1) % REPORT_EVERY == 0 or number + 1 == count:
            text = ", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items()))
            print(
                f"{name} {number + 1}: {text}; memory {before} -> {memory_of(service)} MB; "
                f"slowest {slowest[0]:.2f} s ({slowest[1]})",
                flush=True,
            )
    return faults


def memory_of(service: Service) -> str:
    """Return the resident megabytes of this process and of the largest worker."""
    workers = [psutil.Process(worker.pid).memory_info().rss for worker in service.decoder.pool.processes]
    return f"{psutil.Process().memory_info().rss >> 20}+{max(workers, default=0) >> 20}"


async def main(pictures: int, videos: int) -> int:
    """Try the files and return the exit status."""
    service = Service()
    try:
        faults = await try_all("pictures", IMAGES, pictures, service.picture, service)
        faults += await try_all("videos", {**VIDEOS, **ANIMATIONS}, videos, service.video, service)
    finally:
        service.decoder.pool.close()
    for fault in faults:
        print("FAULT", fault)
    return 1 if faults else 0


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]] or [6000, 1000]
    sys.exit(asyncio.run(main(*numbers)))
