"""Reports how much the files of jobs take, as metrics."""

import asyncio

from serve.jobs.files.file_store import FileStore
from serve.jobs.forecasts.patience import Outages
from serve.jobs.store.job_store import JobStore
from serve.telemetry import metrics

REPORT_PERIOD_S = 30.0
"""Seconds between two reports."""


class UsageReport:
    """Reports what is kept in a store, and what is free beside its files."""

    def __init__(self, store: JobStore, files: FileStore) -> None:
        self._store = store
        self._files = files
        self._outages = Outages()

    async def run(self) -> None:
        """Report until cancelled, also after times in which the store was unavailable."""
        while True:
            with self._outages.survived():
                await self.report()
            await asyncio.sleep(REPORT_PERIOD_S)

    async def report(self) -> None:
        """Report once. Raises StoreUnavailable."""
        kept, free = await self._store.kept(), await self._files.free_bytes()
        metrics.KEPT_BYTES.set(kept.bytes)
        metrics.KEPT_BYTES_OF_ONE.set(kept.most_of_one)
        if free is not None:
            metrics.FREE_BYTES.set(free)
