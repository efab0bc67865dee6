"""Receives each body whole in Serve's proxy, before the request takes a place in the ingress."""

import asyncio
import weakref
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.config import ProxySettings
from serve.http.callers.caller import caller_of_scope, key_name_of
from serve.http.protocol.body_room import BodyRoom, Claim, Upload, no_room
from serve.http.reports.problem_log import client_left, log_problem
from serve.http.request_id import choose_request_id
from serve.problems import Problem

SMALL_BYTES = 2**20
"""The size up to which a body has its place in the room that large ones cannot fill."""
FIRST_BYTES = 2**16
"""The size that a body claims before any of it has arrived."""
_PIECE_BYTES = 2**16
"""The size from which a piece is passed on as it is. Tiny ones would cost many times their size."""


class WholeBody:
    """Passes a request on once its body is complete, or not at all.

    A body that stalls or takes too long is a 408 problem, and one for which there is no memory a
    503. So a slow body occupies nothing but memory of the proxy, of which there is a budget, and a
    client that leaves while it sends never reaches the ingress. ``max_bytes`` is the size of the
    largest body: what one of unknown length may need. With ``keys``, bodies that come without a key
    have a room of their own, which holds one of the largest.
    """

    def __init__(self, app: ASGIApp, settings: ProxySettings, max_bytes: int, *, keys: bool = False) -> None:
        self._app = app
        self._settings = settings
        self._max_bytes = max_bytes
        large, queue = max(settings.large_body_bytes, max_bytes), settings.body_queue_timeout_s
        self.small = BodyRoom(max(settings.max_receiving_bytes // 4, SMALL_BYTES), queue_timeout_s=queue)
        self.large = BodyRoom(large, queue_timeout_s=queue)
        self.keyless = BodyRoom(max_bytes + SMALL_BYTES, queue_timeout_s=queue) if keys else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (length := _declared_length(scope)) == 0:
            await self._app(scope, receive, send)
            return
        messages = await self._receive(scope, length, receive)
        if messages is None:
            log_problem(client_left(), scope, choose_request_id(Headers(scope=scope).get("x-request-id")))
            return

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)

    async def _receive(self, scope: Scope, length: int | None, receive: Receive) -> list[Message] | None:
        """Return the messages of a body, the last one first, or None if its client has left."""
        small, large = self._rooms(scope)
        room = small
        claim = await room.take(self._size_of(0, length), caller_of_scope(scope))
        upload: Upload | None = None
        try:
            async with asyncio.timeout(None) as limit:
                upload = self._upload(limit)
                room.watch(upload, claim)
                body = _Pieces()
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        claim.release()
                        return None
                    body.add(message.get("body", b""))
                    upload.note(len(message.get("body", b"")))
                    if (size := self._size_of(upload.arrived, length)) > claim.size:
                        room.forget(upload)
                        room = small if size <= SMALL_BYTES else large
                        claim = await self._enlarge(upload, claim, room=room, size=size)
                        room.watch(upload, claim)
                    if not message.get("more_body", False):
                        break
                claim.shrink(min(upload.arrived, claim.size))
                return body.messages(claim)
        except BaseException as error:
            claim.release()
            if isinstance(error, TimeoutError) and upload is not None:
                raise (no_room(self._settings.body_queue_timeout_s) if upload.dropped else self._too_slow()) from None
            raise
        finally:
            if upload is not None:
                room.forget(upload)

    def _rooms(self, scope: Scope) -> tuple[BodyRoom, BodyRoom]:
        """Return the rooms for a body of a request, while it is small and when it is large."""
        if self.keyless is not None and not key_name_of(scope):
            return self.keyless, self.keyless
        return self.small, self.large

    def _size_of(self, arrived: int, length: int | None) -> int:
        """Return the size of the claim of a body of which ``arrived`` bytes are there.

        It grows with what arrives, so that nobody occupies much by an announcement alone.
        """
        most = self._max_bytes if length is None else length
        if arrived <= FIRST_BYTES:
            return min(FIRST_BYTES, most)
        return min(SMALL_BYTES, most) if length is None and arrived <= SMALL_BYTES else most

    async def _enlarge(self, upload: Upload, claim: Claim, *, room: BodyRoom, size: int) -> Claim:
        """Exchange a claim for a larger one, while nothing is read."""
        upload.pause()
        enlarged = await room.take(size, claim.caller)
        claim.release()
        upload.resume()
        return enlarged

    def _upload(self, limit: asyncio.Timeout) -> Upload:
        settings = self._settings
        return Upload(
            limit,
            stretch_bytes=settings.min_bytes_per_s * settings.stall_timeout_s,
            stall_s=settings.stall_timeout_s,
            total_s=settings.body_timeout_s,
        )

    def _too_slow(self) -> Problem:
        settings = self._settings
        detail = (
            f"the body arrived too slowly: send at least {settings.min_bytes_per_s} bytes per second, measured over "
            f"{settings.stall_timeout_s:g} s, and the whole body within {settings.body_timeout_s:g} s"
        )
        return Problem(408, "too-slow", detail)


def _declared_length(scope: Scope) -> int | None:
    """Return the length of a body; 0 if there is none, and None if it is unknown."""
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers:
        return None
    length = headers.get("content-length", "0")
    return int(length) if length.isdecimal() and length.isascii() else None


class _Pieces:
    """A body in pieces, of which any two neighbours have ``_PIECE_BYTES`` together."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._tail = bytearray()

    def add(self, data: bytes) -> None:
        """Append ``data``."""
        large = len(data) >= _PIECE_BYTES
        if not large:
            self._tail += data
        if self._tail and (large or len(self._tail) >= _PIECE_BYTES):
            self._pieces.append(bytes(self._tail))
            self._tail.clear()
        if large:
            self._pieces.append(data)

    def messages(self, claim: Claim) -> list[Message]:
        """Return the body as messages, the last one first. ``claim`` is released with that one."""
        last = _HeldMessage(type="http.request", body=bytes(self._tail), more_body=False)
        weakref.finalize(last, claim.release).atexit = False
        return [last, *({"type": "http.request", "body": piece, "more_body": True} for piece in reversed(self._pieces))]


class _HeldMessage(dict[str, Any]):
    """A message that can be watched until nobody has it any more.

    Serve's proxy keeps messages until the ingress fetches them, and tells nobody when that is. They
    are fetched as plain dictionaries.
    """

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)
