"""Takes jobs, lets them run in their turn, and reports how they end: the Runner without Serve."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from ray.serve.exceptions import BackPressureError

from deployments.errors import Cancelled
from deployments.flow_control import ProducerEnd
from deployments.task_end import wait_for_end
from deployments.telemetry import tracing
from deployments.telemetry.origin import Origin, working_for
from serve.job_settings import JobSettings
from serve.jobs.end_report import fault_of, outcome_of, report_end
from serve.jobs.execution import Execution, Finished
from serve.jobs.files.file_store import FileStore
from serve.jobs.files.removal import remove_leftovers
from serve.jobs.forecasts.forecast import Forecast
from serve.jobs.forecasts.patience import Outages, patiently
from serve.jobs.held_job import HeldJob
from serve.jobs.request import JobRequest, RequestHead
from serve.jobs.results.outcome import Outcome
from serve.jobs.store.job_store import JobStore, StoreUnavailable
from serve.jobs.store.keys import preview_key
from serve.jobs.store.record import Job, State, StoredResult
from serve.pipelines.attempts import causes
from serve.pipelines.handles import QUEUE_RETRY_S
from serve.problems import Problem, problem_of, replica_lost, unavailable

logger = logging.getLogger("ray.serve")

BEAT_S = 0.25
"""Seconds between two signs of life, by which a cancelled job is noticed, too."""
TURN_POLL_S = 0.2
"""Seconds after which waiting jobs ask again whether it is their turn, since others may be done."""
LOOKS = 1
"""How many waiting jobs have their files checked at once: each may take as much memory as the
largest request."""
FLUSH_S = 0.1
"""Seconds for which steps of jobs are collected before they are stored."""
LEASES_PER_ATTEMPT = 20
"""How often a job may be taken for each attempt that it has: one whose Runners all die while it
only waits would otherwise never end."""


class JobRunner:
    """Runs jobs for one owner, which is the name of this replica.

    ``loops`` must run beside it. They share what several jobs need: beats, turns and progress.
    """

    def __init__(self, owner: str, settings: JobSettings, execution: Execution, *, store: JobStore, files: FileStore) -> None:
        self.owner = owner
        self._settings = settings
        self._execution = execution
        self._store = store
        self._files = files
        self._held: dict[str, HeldJob] = {}
        self._wake = asyncio.Event()
        self._looks = asyncio.Semaphore(LOOKS)
        self._outages = Outages()
        self._forecast = Forecast(store, settings.slots.by_name(), max_running=settings.max_running_per_caller)

    def loops(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        """Return the loops that must run while there are jobs; each runs until it is cancelled."""
        return (self._beat, self._take_turns, self._flush)

    async def run(
        self, job_id: str, request: bytes | None = None, *, waiter: ProducerEnd | None = None, known_beat: int | None = None
    ) -> Outcome | None:
        """Run a job to its end, and return it; None if it is gone or somebody else has it.

        ``request`` is that of a job that is not durable, and ``waiter`` a stream that ends when the
        caller of such a job is gone. ``known_beat`` lets a job be taken from an owner that died.
        Cancelling the call cancels a job that is not durable; others take up a durable one.
        """
        job = await self._store.take(self.owner, job_id, known_beat=known_beat)
        if job is None:
            ended = await self._store.get(job_id)
            return Outcome(ended) if ended is not None and ended.ended else None
        held = HeldJob(job)
        if (earlier := self._held.get(job.id)) is not None:
            earlier.stop("lost")  # this Runner has taken up its own job, after the store was away
        self._held[job.id] = held
        attributes: dict[str, str | int] = {"ryla.job.id": job.id, "ryla.endpoint": job.endpoint, "ryla.attempt": job.attempt}
        try:
            with (
                working_for(Origin(job.request_id, job.id, job.trace)),
                tracing.span("job", attributes, kind="consumer") as span,
            ):
                if job.cancel_requested:  # its Runner was lost before it could stop it
                    outcome = await self._finish(held, "cancelled")
                elif waiter is None and not job.durable:
                    problem = replica_lost("the process that held this request died", 1)
                    outcome = await self._finish(held, "failed", problem=problem)
                else:
                    async with _stopping_without(waiter, held):
                        # A task of its own can be stopped whatever it waits for.
                        work = asyncio.ensure_future(self._attempt(held, request))
                        outcome = await self._until_stopped(held, work)
                if outcome is not None:
                    span.set({"ryla.outcome": outcome_of(outcome.job)})
                    if (fault := fault_of(outcome.job)) is not None:
                        span.fail(fault)
                return outcome
        finally:
            if self._held.get(job.id) is held:
                del self._held[job.id]
            self._wake.set()

    async def _until_stopped(self, held: HeldJob, work: "asyncio.Future[Outcome | None]") -> Outcome | None:
        """Wait for the end of the attempt ``work``, or for a reason to stop it."""
        left_s = held.job.deadline_at - time.time()
        cancelled = False
        try:
            ends: set[asyncio.Future[Any]] = {work, held.stopped}
            await asyncio.wait(ends, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if held.ending:  # its end may be stored already, and then only this call has the result
                await asyncio.wait({work})
        except asyncio.CancelledError:
            cancelled = True
        else:
            if work.done():
                return await work
        # A call can be cancelled while it stops for another reason, and it can be cancelled twice.
        stopping = asyncio.ensure_future(self._stop(held, work, cancelled=cancelled))
        try:
            await wait_for_end(stopping)
        except asyncio.CancelledError:
            cancelled = True
        if not cancelled:
            return stopping.result()
        if (error := stopping.exception()) is not None:
            logger.warning("job %s: how it ended could not be recorded: %r", held.job.id, error)
        raise asyncio.CancelledError

    async def _stop(self, held: HeldJob, work: "asyncio.Future[Any]", *, cancelled: bool) -> Outcome | None:
        """Stop the attempt ``work``; record that its call was ``cancelled``, or why it stopped."""
        await _end(work)
        if cancelled:
            return None if held.job.durable else await self._finish(held, "cancelled")
        if held.stopped.done():
            lost = held.stopped.result() == "lost"
            return await (self._give_up(held) if lost else self._finish(held, "cancelled"))
        limit = f"{round(held.job.deadline_at - held.job.created_at, 1):g}"
        problem = Problem(504, "timeout", f"the request reached its limit of {limit} s; {held.advice()}")
        return await self._finish(held, "failed", problem=problem)

    async def _attempt(self, held: HeldJob, sent: bytes | None) -> Outcome | None:
        """Wait for the job's turn and run it; whatever happens becomes its end."""
        job, most = held.job, self._settings.max_attempts
        if job.begun >= most or job.attempt > most * LEASES_PER_ATTEMPT:
            detail = f"the replicas that worked on this request died, {most} in a row"
            return await self._finish(held, "failed", problem=replica_lost(detail, 5))
        head: RequestHead | None = None
        request: JobRequest | None = None
        try:
            head = await patiently(lambda: self._execution.read_head(job, sent), job.id)
            held.meter = self._execution.meter(head)
            self._wake.set()
            await self._wait_for_turn(held, sent)
            request = await patiently(lambda: self._execution.read(job, sent), job.id)
            marks = await self._execution.prepare_marks(held.job, request)
            while True:
                try:
                    finished = await self._execution.run(held, request, marks)
                    break
                except Exception as error:
                    if not (job.durable and _is_full(error)):
                        raise
                await asyncio.sleep(QUEUE_RETRY_S)  # a durable job has been accepted, so it waits for its model
        except Exception as error:
            return await self._fail(held, error, {} if head is None else head.sent_as)
        finally:
            if request is not None:
                request.close()
        return await self._finish(held, "succeeded", finished=finished)

    async def _fail(self, held: HeldJob, error: Exception, sent_as: Mapping[str, str]) -> Outcome | None:
        """Record ``error`` as a problem, with the names that the caller used for the fields."""
        job = held.job
        if isinstance(error, StoreUnavailable):
            logger.warning("job %s failed without its files: %s", job.id, error)
            away = unavailable("the files of jobs can be neither read nor written now; try again later", 30)
            return await self._finish(held, "failed", problem=away)
        until_room_s = await self._forecast.until_end_s(job.slot, besides=job.id) if _is_full(error) else 0
        problem = problem_of(error, retry_after_s=until_room_s)
        if problem is None and await self._is_over(job):
            return await self._report_cancelled(held)  # its request went with it before it was read
        if problem is None:
            logger.error("500 job %s (request id %s)", job.id, job.request_id, exc_info=error)
            problem = Problem(500, "internal", "the service failed; quote the request id when you report it")
        return await self._finish(held, "failed", problem=problem.with_field_names(sent_as))

    async def _wait_for_turn(self, held: HeldJob, sent: bytes | None) -> None:
        """Wait until the job may start. Meanwhile, check the files of one that must wait."""
        with tracing.span("queue", {"ryla.slot": held.job.slot}):
            turn = asyncio.ensure_future(held.turn.wait())
            looking = asyncio.ensure_future(self._look(held.job, sent))
            try:
                await asyncio.wait({turn, looking}, return_when=asyncio.FIRST_COMPLETED)
                if not turn.done():
                    await looking
                    await turn
            finally:
                turn.cancel()
                looking.cancel()
                await asyncio.gather(turn, looking, return_exceptions=True)

    async def _look(self, job: Job, sent: bytes | None) -> None:
        """Check the files of a job that waits; raise an error for what is wrong with them.

        Each job reads its files again at its turn. So only the files of running jobs, and of the
        one that is being checked, are in memory or on this disk, however many wait.
        """
        await asyncio.sleep(TURN_POLL_S)
        async with self._looks:
            with self._outages.survived():
                await self._execution.check(job, sent)

    async def _finish(
        self, held: HeldJob, state: State, *, finished: Finished | None = None, problem: Problem | None = None
    ) -> Outcome | None:
        """Record how the job ended; None if a later attempt has taken its place."""
        job = held.job
        held.ending = True
        await patiently(lambda: self._store_steps(held), job.id)
        body = None if problem is None else problem.record(job.request_id)
        result = None if finished is None else finished.result

        def finish() -> Awaitable[Job | None]:
            now = time.time()
            return self._store.finish(
                job.id,
                job.attempt,
                state=state,
                at=now,
                expires_at=now + self._settings.kept_s(durable=job.durable),
                result=result,
                problem=body,
            )

        ended = await patiently(finish, job.id)
        if ended is None:
            ended = await patiently(lambda: self._recorded(job, state, result), job.id)
        if ended is None:
            if finished is not None and finished.result.key is not None:
                await self._files.delete(finished.result.key)
            return await self._give_up(held)
        report_end(held.meter, ended, frames=0 if finished is None else finished.frames)
        await self._clean(ended)
        return Outcome(ended, None if finished is None else finished.data)

    async def _give_up(self, held: HeldJob) -> Outcome | None:
        """Leave a job to the attempt that has it now; report its end if its caller cancelled it."""
        if (reported := await self._report_cancelled(held)) is None:
            logger.warning("job %s: attempt %d lost its lease and was stopped", held.job.id, held.job.attempt)
            with self._outages.survived():  # the other attempt may have ended, and deletes nothing more
                await self._files.delete(preview_key(held.job.id, held.job.attempt))
        return reported

    async def _report_cancelled(self, held: HeldJob) -> Outcome | None:
        """Report the end of a job that its caller cancelled while it waited; None for any other.

        The store ends such a job at once, so that its attempt no longer has a lease, and its caller
        may have deleted the record already. The record of a waiting job cannot disappear in any
        other way.
        """
        ended = await patiently(lambda: self._recorded(held.job, "cancelled", None), held.job.id)
        if ended is None:
            if held.turn.is_set() or await patiently(lambda: self._store.get(held.job.id), held.job.id) is not None:
                return None
            ended = replace(held.job, state="cancelled", finished_at=time.time())
        held.ending = True
        report_end(held.meter, ended)
        await self._clean(ended)
        return Outcome(ended)

    async def _recorded(self, job: Job, state: State, result: StoredResult | None) -> Job | None:
        """Return the job if it has ended like this already, by a call whose answer was lost."""
        current = await self._store.get(job.id)
        if current is None or (current.attempt, current.state, current.result) != (job.attempt, state, result):
            return None
        return current

    async def _is_over(self, job: Job) -> bool:
        """Return whether a job has ended already, or is gone; not if the store cannot tell."""
        try:
            current = await self._store.get(job.id)
        except StoreUnavailable:
            return False
        return current is None or current.ended

    async def _clean(self, job: Job) -> None:
        """Delete the files that an ended job no longer needs, those of earlier attempts included.

        What cannot be deleted now is deleted with the job.
        """
        with self._outages.survived():
            await remove_leftovers(self._files, job)

    async def _store_steps(self, held: HeldJob) -> None:
        """Store the steps in their order; those that the store does not get are kept."""
        async with held.storing:
            steps = [held.steps.popleft() for _ in range(len(held.steps))]
            try:
                if steps:
                    await self._store.progress(held.job.id, held.job.attempt, steps)
            except BaseException:
                held.steps.extendleft(reversed(steps))
                raise

    async def _flush(self) -> None:
        """Store the steps of all jobs, a few at a time."""
        while True:
            await asyncio.sleep(FLUSH_S)
            for held in list(self._held.values()):
                if held.steps:
                    with self._outages.survived():
                        await self._store_steps(held)

    async def _beat(self) -> None:
        """Show signs of life for all jobs; stop those that are cancelled or lost."""
        while True:
            await asyncio.sleep(BEAT_S)
            held = dict(self._held)
            if not held:
                continue
            with self._outages.survived():
                kept = await self._store.beat(self.owner, {job_id: item.job.attempt for job_id, item in held.items()})
                for job_id, item in held.items():
                    lease = kept.get(job_id)
                    if lease is None:
                        item.stop("lost")
                    elif lease.cancel_requested:
                        item.stop("cancelled")
                    elif lease.state != "queued":
                        item.turn.set()  # it was started by a call whose answer was lost

    async def _take_turns(self) -> None:
        """Start the jobs whose turn it is."""
        sizes, most = self._settings.slots.by_name(), self._settings.max_running_per_caller
        while True:
            waiting = [held for held in self._held.values() if not held.turn.is_set()]
            if waiting:
                with self._outages.survived():
                    started = await self._store.start(self.owner, slots=sizes, max_running=most)
                    for job in started:
                        if (held := self._held.get(job.id)) is not None and held.job.attempt == job.attempt:
                            held.job = job
                            held.turn.set()
            try:
                async with asyncio.timeout(TURN_POLL_S if waiting else None):
                    await self._wake.wait()
            except TimeoutError:
                continue
            finally:
                self._wake.clear()


@asynccontextmanager
async def _stopping_without(waiter: ProducerEnd | None, held: HeldJob) -> AsyncIterator[None]:
    """Stop the job once the caller that waits for it, if any does, is gone."""

    async def watch(end: ProducerEnd) -> None:
        try:
            async with end.connect() as line:
                await line.closed()
        except Cancelled:
            pass  # the caller was gone before the connection was made
        held.stop("left")

    if waiter is None:
        yield
        return
    watching = asyncio.ensure_future(watch(waiter))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait({watching})


def _is_full(error: Exception) -> bool:
    """Return whether the queue of a model is full."""
    return any(isinstance(cause, BackPressureError) for cause in causes(error))


async def _end(work: "asyncio.Future[Any]") -> None:
    """Cancel ``work`` and wait for it, so that no GPU works for it any more."""
    work.cancel()
    await asyncio.wait({work})
    if not work.cancelled() and (error := work.exception()) is not None:
        logger.info("a job that was stopped failed: %r", error)
