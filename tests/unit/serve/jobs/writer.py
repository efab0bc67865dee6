"""`python -m tests.unit.serve.jobs.writer STORE PREFIX JOB COUNT`: writes and prints steps.

STORE is the path of a SQLite file or the URL of a Redis.
"""

import asyncio
import sys
from pathlib import Path

from serve.jobs.store.job_store import JobStore
from serve.jobs.store.record import Progress
from serve.jobs.store.redis_store import RedisStore
from serve.jobs.store.sqlite_store import SqliteStore


async def main(address: str, prefix: str, job_id: str, count: int) -> None:
    """Write steps one by one, each of which is printed once it is stored."""
    store: JobStore = (
        RedisStore(address, prefix=prefix, patience_s=300) if "://" in address else SqliteStore(Path(address), busy_s=300)
    )
    await store.open()
    for step in range(count):
        assert await store.progress(job_id, 1, [Progress(stage="denoising", step=step)])
        print(step, flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
