"""The desk over a store and the Runners: what an ingress replica asks of jobs."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace

from deployments.flow_control import ConsumerEnd, ProducerEnd
from serve.job_settings import JobSettings
from serve.jobs.desk import Jobs, News
from serve.jobs.end_report import report_end
from serve.jobs.files.file_store import FileStore, fetch_to_disk
from serve.jobs.files.removal import remove_files, remove_leftovers
from serve.jobs.follower import Follower
from serve.jobs.forecasts.forecast import Forecast
from serve.jobs.open_store import open_stores
from serve.jobs.places import Places
from serve.jobs.request import IN_MEMORY_BYTES
from serve.jobs.results.outcome import Outcome
from serve.jobs.runner_handle import RunnerLost, Runs, detached
from serve.jobs.store.job_store import JobStore, OutcomeUnknown, StoreUnavailable
from serve.jobs.store.keys import request_key
from serve.jobs.store.limits import KeptFull, Limits, QueueFull, RequestTooLarge, ServiceFull, StorageFull
from serve.jobs.store.record import Job, StoredResult
from serve.media.spool import Media, Spool, media_size, open_media, read_media
from serve.pipelines.meter import Meter
from serve.problems import replica_lost

logger = logging.getLogger("ray.serve")

ASK_AGAIN_S = 0.5
"""Seconds after which a job that another Runner has is asked for again."""
LOST_PAUSE_S = 0.1
"""Seconds after which another Runner is asked: while none can be reached, this is asked again and
again."""


class FrontDesk:
    """Takes jobs in, as long as the settings say that there is room for them."""

    def __init__(
        self,
        store: JobStore,
        files: FileStore,
        runs: Runs,
        consumer: ConsumerEnd,
        *,
        settings: JobSettings,
    ) -> None:
        self._store = store
        self._files = files
        self._runs = runs
        self._consumer = consumer
        self._settings = settings
        self._limits = Limits(
            max_queued=settings.max_queued,
            max_kept_of_caller=settings.max_kept_bytes_per_caller,
            max_kept=settings.max_kept_bytes,
        )
        self._forecast = Forecast(store, settings.slots.by_name(), max_running=settings.max_running_per_caller)
        self._places = Places(store)
        self._follower = Follower(store, self._places)
        self._dispatched: dict[str, asyncio.Task[None]] = {}

    async def open(self) -> None:
        """Connect to the store."""
        await self._store.open()

    async def close(self) -> None:
        """Leave the store. Jobs go on."""
        for task in self._dispatched.values():
            task.cancel()
        await self._store.close()

    async def run(self, job: Job, request: Media | None) -> Outcome:
        """Run a job to its end; a Runner that dies is replaced by another, which takes the job.

        A job that is not durable comes with its ``request``, and ends when this call does; see
        ``Desk.run``. A durable one has been accepted, and goes on without this call.
        """
        known_beat: int | None = None
        try:
            sent = None if request is None else await self._record(job, request)
            while True:
                outcome, lost = None, False
                with self._waiter(job) as waiter:
                    try:
                        outcome = await self._runs(job.id, sent, waiter=waiter, known_beat=known_beat)
                    except RunnerLost as error:
                        logger.warning("job %s: its Runner was lost (%s); asking another", job.id, error)
                        lost = True
                if outcome is not None:
                    return outcome
                # Without a loss, another Runner has it.
                await asyncio.sleep(LOST_PAUSE_S if lost else ASK_AGAIN_S)
                current = await self._store.get(job.id)
                if current is None or current.ended:
                    return _outcome_without_runner(job, current)
                known_beat = current.beat if lost else None
        except asyncio.CancelledError:
            if not job.durable:  # its Runner ends it when the call is cancelled; this is for one without a Runner
                detached(self._cancel_quietly(job))
            raise

    async def _record(self, job: Job, request: Media) -> bytes | None:
        """Record a job; return its request to be sent along, or store it with the job if large."""
        if media_size(request) > IN_MEMORY_BYTES:
            await self._store_request(job, request)
            return None
        await self._create(job)
        return read_media(request)

    @contextmanager
    def _waiter(self, job: Job) -> Iterator[ProducerEnd | None]:
        """Yield a stream by which a Runner learns that nobody waits for a job any more.

        A durable job has none, since it goes on then.
        """
        if job.durable:
            yield None
            return
        waiter = self._consumer.open(1)
        try:
            yield waiter
        finally:
            self._consumer.close(waiter)

    async def accept(self, job: Job, request: Media) -> Job:
        """Store a durable job and let it run; see ``Desk.accept``."""
        accepted = await self._store_request(job, request)
        if accepted.id != job.id:
            return accepted
        task = detached(self._dispatch(job))
        self._dispatched[job.id] = task
        task.add_done_callback(lambda _: self._dispatched.pop(job.id, None))
        return accepted

    async def _store_request(self, job: Job, request: Media) -> Job:
        """Store a job's request, then the job, and return the job, or the earlier one of its key.

        The request is written only if there is room for it, and deleted again unless the job is
        there, or may be.
        """
        job = replace(job, request_bytes=media_size(request))
        if (earlier := await self._look_up(job)) is not None:
            return earlier
        await self._put(job, request)
        try:
            accepted = await self._create(job)
        except (OutcomeUnknown, asyncio.CancelledError):
            raise  # the job may be there, or come: a sweeper then needs its request
        except BaseException:
            await asyncio.shield(self._files.delete(request_key(job.id)))
            raise
        if accepted.id != job.id:
            await self._files.delete(request_key(job.id))
        return accepted

    async def _create(self, job: Job) -> Job:
        async with self._refusals(job):
            return await self._store.create(job, max_queued=self._settings.max_queued_per_caller, limits=self._limits)

    async def _look_up(self, job: Job) -> Job | None:
        """Return the earlier job that stands for ``job``; raise NoRoom if there is none."""
        async with self._refusals(job):
            earlier = await self._store.look_up(job, max_queued=self._settings.max_queued_per_caller, limits=self._limits)
        if earlier is None and self._settings.min_free_bytes:
            free = await self._files.free_bytes()
            if free is not None and free - job.request_bytes < self._settings.min_free_bytes:
                logger.warning("no job is accepted: %d bytes are free for the files of jobs", free)
                raise StorageFull("the disk with the files of jobs is nearly full")
        return earlier

    @asynccontextmanager
    async def _refusals(self, job: Job) -> AsyncIterator[None]:
        """Add to a refusal for a full queue when there may be room again, unless there never is."""
        try:
            yield
        except KeptFull as full:
            if job.request_bytes > full.limit:
                raise RequestTooLarge(job.request_bytes, full.limit) from None
            raise
        except QueueFull as full:
            full.retry_after_s = await self._forecast.until_start_s(job.caller)
            raise
        except ServiceFull as full:
            full.retry_after_s = await self._forecast.until_start_s(None)
            raise

    async def _dispatch(self, job: Job) -> None:
        """Have a durable job run to its end. If this process dies, a sweeper takes the job up."""
        try:
            await self.run(job, None)
        except Exception as error:  # nobody waits for this call, so only the log can say it
            logger.warning("job %s was not run to its end here (%r); a sweeper takes it up", job.id, error)

    async def wait(self, job_id: str, timeout_s: float) -> Job | None:
        """Return the job once it has ended, or as it is after ``timeout_s``."""
        job = await self._store.get(job_id)
        if job is None or job.ended:
            return job
        try:
            async with asyncio.timeout(timeout_s):
                if (running := self._dispatched.get(job_id)) is not None:
                    await asyncio.wait({running})
                    job = await self._store.get(job_id)
                if job is None or job.ended:
                    return job
                async with aclosing(self._follower.follow(job_id, 0)) as events:
                    async for event in events:
                        if event.job.ended:
                            break
        except TimeoutError:
            pass
        return await self._store.get(job_id)

    async def fetch(self, job: Job) -> Media:
        """Return the stored result of a job that has succeeded; see ``Desk.fetch``."""
        if job.result is None or job.result.key is None:
            raise FileNotFoundError(f"the result of job {job.id} was not stored")
        spool = await fetch_to_disk(self._files, job.result.key, job.result.size)
        if spool.size != job.result.size:
            raise FileNotFoundError(f"the result of job {job.id} is not in the file store")
        if not job.durable:
            await self._hand_over(job, job.result)
        return spool

    async def _hand_over(self, job: Job, result: StoredResult) -> None:
        """Delete a result that its caller has got, and let its record keep nothing more."""
        assert result.key is not None
        await self._files.delete(result.key)
        try:
            await self._store.update(replace(job, result=replace(result, key=None)), expected=job)
        except StoreUnavailable as error:  # the caller has the result
            logger.warning("job %s counts for its result until it expires: %s", job.id, error)

    async def get(self, job_id: str, caller: str) -> Job | None:
        """Return a job of ``caller``."""
        job = await self._store.get(job_id)
        return job if job is not None and job.caller == caller else None

    async def position(self, job: Job) -> int | None:
        """Return the number of jobs that start before a queued job, or None for another."""
        return await self._places.of(job)

    def follow(self, job_id: str, after: int) -> AsyncIterator[News]:
        """Yield the events of a job as they happen."""
        return self._follower.follow(job_id, after)

    async def cancel(self, job_id: str, caller: str) -> Job | None:
        """Ask that a job of ``caller`` be cancelled."""
        found = await self.get(job_id, caller)
        if found is None:
            return None
        return await self._cancel(found)

    async def _cancel(self, job: Job) -> Job | None:
        """Cancel a job, and report the end of one that no Runner has taken yet."""
        now = time.time()
        expires_at = now + self._settings.kept_s(durable=job.durable)
        changed = await self._store.request_cancel(job.id, at=now, expires_at=expires_at)
        if changed is not None and changed.state == "cancelled":
            await remove_leftovers(self._files, changed)
            if changed.attempt == 0 and changed.finished_at == now:  # this call ended it
                report_end(Meter({}), changed)
        return changed

    async def delete(self, job_id: str, caller: str) -> Job | None:
        """Delete an ended job of ``caller`` with its files."""
        job = await self.get(job_id, caller)
        if job is None or not job.ended:
            return None
        await remove_files(self._files, job_id)  # first, so that a call that fails can be repeated
        return await self._store.delete(job_id)

    async def _put(self, job: Job, request: Media) -> None:
        """Store a request, and free the space that it took here."""
        with open_media(request) as file:
            await self._files.put(request_key(job.id), file)
        if isinstance(request, Spool):
            request.close()  # whoever waits for the job still refers to it

    async def _cancel_quietly(self, job: Job) -> None:
        try:
            await self._cancel(job)
        except Exception as error:  # nobody waits for this call, so only the log can say it
            logger.warning("job %s could not be cancelled after its caller left: %r", job.id, error)


def _outcome_without_runner(job: Job, current: Job | None) -> Outcome:
    """Return the end of a job that no Runner has reported here, from its record ``current``.

    Raises a problem if the caller of a job that is not durable cannot get its result any more.
    """
    if current is None and not job.durable:
        raise replica_lost("the record of this request is gone", 1)
    if current is not None and current.result is not None and current.result.key is None:
        raise replica_lost("the process that had the result died before it was sent", 1)
    return Outcome(current or job)  # the record of a durable job is gone if its caller has deleted it


def make_jobs(settings: JobSettings, application: str, runs: Runs, consumer: ConsumerEnd) -> Jobs:
    """Return the desk over the stores that an application has by its settings."""
    store, files = open_stores(settings, application)
    return Jobs(FrontDesk(store, files, runs=runs, consumer=consumer, settings=settings), store, files)
