"""Follows the events of jobs for any number of listeners, with one reader per job."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from serve.jobs.desk import News
from serve.jobs.places import Places
from serve.jobs.store.job_store import Event, JobStore, StoreUnavailable
from serve.jobs.store.record import Job

POLL_S = 0.1
"""Seconds between two reads of a job's events."""
AWAY_S = 1.0
"""Seconds after which a store that is away is asked again."""


@dataclass
class _Feed:
    """The events of one job as they come, and who waits for them.

    ``queued`` is the job without an id, while it waits: its place changes without an event.
    """

    first: int
    events: list[Event] = field(default_factory=list)
    queued: News | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    listeners: int = 0
    reader: asyncio.Task[None] | None = None


class Follower:
    """Reads the events of each job that has listeners, from the store."""

    def __init__(self, store: JobStore, places: Places) -> None:
        self._store = store
        self._places = places
        self._feeds: dict[str, _Feed] = {}

    async def follow(self, job_id: str, after: int) -> AsyncGenerator[News, None]:
        """Yield the events of a job with ids above ``after``, and each change of its position.

        The last one is that of the job's end. Ends early if the job is deleted. Events that others
        have read are shared, not read again.
        """
        place: int | None = None
        feed = self._feeds.get(job_id)
        if feed is None or feed.first > after:
            # The earlier events of a listener that resumes are its own business.
            for event in await self._store.events(job_id, after):
                yield (news := await self._news(event))
                after, place = event.id, news.position
                if event.job.ended:
                    return
            feed = self._feeds.get(job_id)
        if feed is None:
            feed = self._feeds[job_id] = _Feed(first=after)
            feed.reader = asyncio.get_running_loop().create_task(self._read(job_id, feed))
        feed.listeners += 1
        try:
            while True:
                changed = feed.changed
                for event in feed.events[max(0, after - feed.first) :]:
                    if event.id > after:
                        yield (news := await self._news(event))
                        after, place = event.id, news.position
                        if event.job.ended:
                            return
                if feed.queued is not None and feed.queued.position != place:
                    place = feed.queued.position
                    yield feed.queued
                if feed.ended:
                    return
                await changed.wait()
        finally:
            feed.listeners -= 1
            if not feed.listeners:
                if self._feeds.get(job_id) is feed:
                    del self._feeds[job_id]
                assert feed.reader is not None
                feed.reader.cancel()

    async def _news(self, event: Event) -> News:
        return News(event.job, event.id, await self._places.of(event.job))

    async def _read(self, job_id: str, feed: _Feed) -> None:
        latest = feed.first
        while not feed.ended:
            try:
                events = await self._store.events(job_id, latest)
                job = events[-1].job if events else await self._store.get(job_id)
                queued = await self._place(job)
            except StoreUnavailable:
                await asyncio.sleep(AWAY_S)
                continue
            if events:
                latest = events[-1].id
                feed.events += events
            feed.ended = job is None or bool(events and events[-1].job.ended)
            if events or feed.ended or queued != feed.queued:
                feed.queued = queued
                feed.changed.set()
                feed.changed = asyncio.Event()
            if not feed.ended:
                await asyncio.sleep(POLL_S)

    async def _place(self, job: Job | None) -> News | None:
        """Return a queued job with its place, or None for any other."""
        place = None if job is None else await self._places.of(job)
        return None if job is None or place is None else News(job, None, place)
