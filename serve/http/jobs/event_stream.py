"""Sends the events of a job as server-sent events."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve.jobs.desk import News
from serve.jobs.store.job_store import StoreUnavailable

logger = logging.getLogger("ray.serve")

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_S = 15.0
"""Seconds of silence after which a comment is sent, so that no proxy closes the connection."""
MAX_BUFFERED = 256
"""Number of events that wait for one reader. A slow reader then misses the oldest of its own."""
RECONNECT_MS = 2000
"""Milliseconds after which a browser connects again when the connection is lost."""
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}

Encode = Callable[[News], dict[str, Any]]
"""Returns the data of an event."""


class EventStream(Response):
    """The response with the events, which ends with the last one or when its reader leaves.

    ``release`` is called when it has ended, however it ends.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        events: AsyncIterator[News],
        encode: Encode,
        *,
        release: Callable[[], None],
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._events = events
        self._encode = encode
        self._release = release
        self._heartbeat_s = heartbeat_s
        self._buffer: deque[News] = deque()
        self._news = asyncio.Event()
        self._complete = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the last one, or until the reader leaves."""
        tasks = [asyncio.ensure_future(work) for work in (self._send_all(send), _left(receive), self._read_all())]
        try:
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            try:
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                self._release()
        for outcome in (outcomes[0], outcomes[2]):
            if isinstance(outcome, Exception) and not isinstance(outcome, OSError):  # the connection is gone
                raise outcome

    async def _read_all(self) -> None:
        """Read events into the buffer, which stays small however slow the reader is."""
        try:
            async for event in self._events:
                if len(self._buffer) >= MAX_BUFFERED:
                    self._buffer.popleft()
                self._buffer.append(event)
                self._news.set()
        except StoreUnavailable as error:
            # The connection ends early, and its client goes on from the last event that it has.
            logger.warning("the store of jobs cannot be used, so a stream of events ends early: %s", error)
        finally:
            self._complete = True
            self._news.set()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await _send_text(send, f"retry: {RECONNECT_MS}\n\n")
        while self._buffer or not self._complete:
            if self._buffer:
                await _send_text(send, self._text_of(self._buffer.popleft()))
                continue
            self._news.clear()
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._news.wait()
            except TimeoutError:
                await _send_text(send, ": still here\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _text_of(self, news: News) -> str:
        name = news.job.state if news.job.ended else "progress"
        data = json.dumps(self._encode(news), separators=(",", ":"))
        # Without an id of its own, it leaves the place from which a listener resumes.
        number = "" if news.id is None else f"id: {news.id}\n"
        return f"{number}event: {name}\ndata: {data}\n\n"


async def _left(receive: Receive) -> None:
    """Return when the reader has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_text(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
