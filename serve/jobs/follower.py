"""Follows the events of jobs for any number of listeners, with one reader per job."""

import asyncio
import logging
from bisect import bisect_right
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from serve.jobs.desk import News
from serve.jobs.places import Places
from serve.jobs.store.job_store import Event, JobStore, StoreUnavailable
from serve.jobs.store.record import Job

logger = logging.getLogger("ray.serve")

POLL_S = 0.1
"""Seconds between two reads of a job's events."""
AWAY_S = 1.0
"""Seconds after which a store that is unavailable is asked again."""


@dataclass
class _Feed:
    """The events of one job and its listeners.

    ``first`` is the id after which it begins. ``queued`` is the latest news of a queued job; it
    carries no event id, since its place changes without an event.
    """

    first: int
    events: list[Event] = field(default_factory=list)
    queued: News | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    extending: asyncio.Lock = field(default_factory=asyncio.Lock)
    ended: bool = False
    listeners: int = 0
    reader: asyncio.Task[None] | None = None

    def covers(self, after: int) -> bool:
        """Return whether ``after`` is the id of an event at which this feed can be joined."""
        return self.first <= after <= (self.events[-1].id if self.events else self.first)


async def known_event(store: JobStore, job_id: str, event_id: int) -> int:
    """Return ``event_id`` if the job has had an event of this id or a later one, else 0.

    A listener that sends the id of another job's event thus gets every event, as a new one does.
    Raises StoreUnavailable.
    """
    return event_id if event_id > 0 and await store.events(job_id, event_id - 1) else 0


class Follower:
    """Reads the events of each job that has listeners, from the store."""

    def __init__(self, store: JobStore, places: Places) -> None:
        self._store = store
        self._places = places
        self._feeds: dict[str, _Feed] = {}

    async def follow(self, job_id: str, after: int) -> AsyncGenerator[News, None]:
        """Yield the events of a job with ids above ``after``, and each change of its position.

        An id that the job has not had counts as 0. The last event is that of the job's end; the
        events end early if the job is deleted. What others have read is shared, not read again.
        """
        place: int | None = None
        if (feed := self._feeds.get(job_id)) is None or not feed.covers(after):
            after = await known_event(self._store, job_id, after)
        if (feed := self._feeds.get(job_id)) is None:
            feed = self._feeds[job_id] = _Feed(first=after)
            feed.reader = asyncio.get_running_loop().create_task(self._read(job_id, feed))
        feed.listeners += 1
        try:
            await self._extend(job_id, feed, after)
            while True:
                changed, ended = feed.changed, feed.ended  # more may come while these are told
                for event in feed.events[bisect_right(feed.events, after, key=_id_of) :]:
                    yield (news := await self._news(event))
                    after, place = event.id, news.position
                    if event.job.ended:
                        return
                if feed.queued is not None and feed.queued.position != place:
                    place = feed.queued.position
                    yield feed.queued
                if ended:
                    return
                await changed.wait()
        finally:
            feed.listeners -= 1
            if not feed.listeners:
                if self._feeds.get(job_id) is feed:
                    del self._feeds[job_id]
                assert feed.reader is not None
                feed.reader.cancel()

    async def _extend(self, job_id: str, feed: _Feed, after: int) -> None:
        """Let a feed begin after an earlier event, so that no listener holds events of its own."""
        async with feed.extending:
            if feed.first > after:
                earlier = await self._store.events(job_id, after)
                feed.events[:0] = [event for event in earlier if event.id <= feed.first]
                feed.first = after

    async def _news(self, event: Event) -> News:
        return News(event.job, event.id, await self._places.of(event.job))

    async def _read(self, job_id: str, feed: _Feed) -> None:
        """Read the events of a job until it ends. Whatever stops this ends the feed, too."""
        try:
            await self._read_on(job_id, feed)
        except Exception:
            logger.exception("job %s: its events cannot be read; its listeners are sent away", job_id)
            if self._feeds.get(job_id) is feed:
                del self._feeds[job_id]
            feed.ended = True
            feed.changed.set()

    async def _read_on(self, job_id: str, feed: _Feed) -> None:
        latest = feed.first
        while not feed.ended:
            try:
                events = await self._store.events(job_id, latest)
                job = events[-1].job if events else await self._store.get(job_id)
                if not events and job is not None and job.ended:
                    events = await self._store.events(job_id, latest)  # the last ones came in between
                queued = await self._place(job)
            except StoreUnavailable:
                await asyncio.sleep(AWAY_S)
                continue
            if events:
                latest = events[-1].id
                feed.events += events
            feed.ended = job is None or job.ended
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


def _id_of(event: Event) -> int:
    return event.id
