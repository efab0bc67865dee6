"""`python -m benchmarks.jobs [REDIS_URL]`: how long the stores of jobs take for a job's steps.

It runs jobs one by one in a SQLite file, and in Redis if its URL is given, and prints percentiles.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

from serve.jobs.store.job_store import JobStore
from serve.jobs.store.record import Job, Progress, new_job_id
from serve.jobs.store.redis_store import RedisStore
from serve.jobs.store.sqlite_store import SqliteStore

JOBS, WARM_UP = 1000, 50
STEPS = [Progress(stage="denoising", step=step, steps=30, percent=step * 3.0, eta_s=30.0 - step) for step in range(4)]


def main() -> None:
    """Print the percentiles of each store."""
    with TemporaryDirectory() as folder:
        stores: dict[str, JobStore] = {"SQLite": SqliteStore(Path(folder) / "jobs" / "jobs.sqlite3")}
        if len(sys.argv) > 1:
            stores["Redis"] = RedisStore(sys.argv[1], prefix=f"benchmark-{token_hex(4)}:")
        for name, store in stores.items():
            asyncio.run(measure(name, store))


async def measure(name: str, store: JobStore) -> None:
    """Run jobs one by one, and print how long each step takes in milliseconds."""
    await store.open()
    times: dict[str, list[float]] = {}
    for _ in range(WARM_UP):
        await run_job(store, {})
    for _ in range(JOBS):
        await run_job(store, times)
    await store.close()
    for step, all_s in times.items():
        ordered = sorted(all_s)
        places = {"median": 0.5, "p95": 0.95, "p99": 0.99, "most": 1.0}
        row = ", ".join(f"{label} {ordered[min(int(part * JOBS), JOBS - 1)] * 1000:.2f} ms" for label, part in places.items())
        print(f"{name}, {step}: {row}")


async def run_job(store: JobStore, times: dict[str, list[float]]) -> None:
    """Run a job from its creation to its deletion, and add how long each step takes in seconds."""
    now = time.time()
    job = Job(
        id=new_job_id(), caller="benchmark", endpoint="/wan26/t2v", slot="wan26", request_id="r", media_type="video/mp4",
        created_at=now, deadline_at=now + 1800, expires_at=now + 86400, details={"prompt": "a lighthouse " * 20},
    )  # fmt: skip
    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: store.create(job, max_queued=256),
        "take": lambda: store.take("runner", job.id),
        "start": lambda: store.start("runner", slots={"wan26": 1}, max_running=1),
        f"progress of {len(STEPS)} steps": lambda: store.progress(job.id, 1, STEPS),
        "events": lambda: store.events(job.id, 2),
        "beat": lambda: store.beat("runner", {job.id: 1}),
        "finish": lambda: store.finish(job.id, 1, state="succeeded", at=now, expires_at=now),
        "delete": lambda: store.delete(job.id),
    }
    for name, step in steps.items():
        begin = time.perf_counter()
        await step()
        times.setdefault(name, []).append(time.perf_counter() - begin)


if __name__ == "__main__":
    main()
