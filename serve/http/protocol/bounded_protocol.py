"""The HTTP protocol of Serve's proxy with limits on what a connection may take before a request.

uvicorn's protocol class gives whatever arrives to its parser, which has no limit: one long header
stalls the proxy for everybody, and a connection that never completes a request stays open. This
subclass counts and times what comes before the application sees a request, and parses one request
at a time. ``install`` makes uvicorn, and so Serve, use it.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import httptools
import uvicorn.config
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serve.config import ProxySettings
from serve.http.callers.caller import network_of
from serve.http.protocol.gentle_transport import GentleTransport
from serve.http.protocol.open_connections import OpenConnections, State
from serve.http.protocol.unread_answers import UnreadAnswers, limit_unsent
from serve.http.reports.problem_log import log_problem
from serve.http.request_id import choose_request_id
from serve.problems import Problem, unavailable

EXTENSION = "ryla.bounded"
"""The ASGI extension in the scope of requests that came through ``BoundedProtocol``.

It holds ``CALLER_KNOWN``, which whoever knows the caller takes out and calls.
"""
CALLER_KNOWN = "caller_known"
MAX_FIELDS = 256
"""Number of header fields in a request."""
LINGER_S = 5.0
"""Seconds in which a client may read an answer and stop sending, before its connection closes."""
_HEAD_END = b"\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """One connection. ``settings`` holds the limits of all of them.

    A process has one server: ``unread`` and ``opened`` hold connections of all of its servers.
    """

    settings: ClassVar[ProxySettings] = ProxySettings()
    unread: ClassVar[UnreadAnswers] = UnreadAnswers(settings.max_unread_bytes)
    opened: ClassVar[OpenConnections["BoundedProtocol"]] = OpenConnections()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pending = b""  # bytes that are not parsed yet, after the present request
        # If set, whatever arrives is dropped, and the connection closes after the answer.
        self._deaf = False
        self._lost = False
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._begin_request()

    def _begin_request(self) -> None:
        self._head_bytes = 0
        self._head_tail = b""
        self._head_complete = False
        self._body_left: int | None = 0  # None while the length of the body is unknown
        self._body_bytes = 0
        self._framing_bytes = 0
        self._message_complete = False

    # Callbacks of the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection if there is room; else close another that waits or still sends."""
        full = len(self.connections) >= self.settings.max_connections
        room = not full or self._close_another()
        super().connection_made(transport)
        self._note("waiting")
        limit_unsent(transport)
        if room:
            self._start_timer(self.settings.head_timeout_s, self._head_timed_out)
        else:
            self._refuse(unavailable("too many connections are open", retry_after_s=5))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that has ended, and its timers."""
        self._lost = True
        self.opened.remove(self)
        self._stop_timer()
        self._unset_keepalive_if_required()
        self._stop_watching_reading()
        self._deaf = True
        self._pending = b""
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrives, up to the end of one request."""
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        self._pending = self._pending + data if self._pending else data
        self._parse_pending()

    def pause_writing(self) -> None:
        """Watch the client's reading while its answer waits in the transport's buffer."""
        super().pause_writing()
        self._watch_reading(None)
        self.unread.add(self)

    def resume_writing(self) -> None:
        """Stop watching the client's reading, except for the rest of a connection that closes."""
        super().resume_writing()
        self._stop_watching_reading()
        if self.transport.is_closing():
            self._close()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        self._close()

    def unread_bytes(self) -> int:
        """Return how much of the answer is unread: here, and on its way from the ingress."""
        return self.transport.get_write_buffer_size() + (self.cycle.expected_content_length if self.cycle else 0)

    def caller(self) -> str:
        """Return the network of the caller, as far as the proxy knows it."""
        client = (self.scope or {}).get("client") or self.client
        return network_of(client[0]) if client else ""

    def cut_off(self) -> None:
        """Close the connection at once, and drop what its caller has not read."""
        self.transport.abort()

    # Parsing of one request at a time.

    def _parse_pending(self) -> None:
        while self._pending and not self._deaf:
            if self._message_complete:
                if len(self._pending) > self.settings.max_head_bytes:
                    self._stop_listening()
                return
            self._pending = self._pending[self._parse_some() :]

    def _parse_some(self) -> int:
        """Give the parser a part of what is pending and return its length."""
        if not self._head_complete:
            return self._parse_head()
        if self._body_left is not None:
            part = self._pending[: self._body_left]
            self._body_left -= len(part)
            self._feed(part)
            return len(part)
        whole, before = len(self._pending), self._body_bytes
        self._feed(self._pending)
        self._framing_bytes += whole - (self._body_bytes - before)
        if self._framing_bytes > self.settings.max_head_bytes + self._body_bytes // 4:
            self._refuse(
                _too_large(
                    f"the chunk sizes, extensions and trailers of the body exceed {self.settings.max_head_bytes} bytes "
                    "plus a quarter of the body: send larger chunks"
                )
            )
        return whole

    def _parse_head(self) -> int:
        """Parse up to the end of the head, or up to the limit of its size."""
        if self._head_bytes == 0 and self._timer is None:
            self._start_timer(self.settings.head_timeout_s, self._head_timed_out)
        data, tail = self._pending, self._head_tail
        # Empty lines before a request are skipped.
        blank = 0 if tail else len(data) - len(data.lstrip(b"\r\n"))
        found = (tail + data[blank:]).find(_HEAD_END)
        end = len(data) if found < 0 else blank + found + len(_HEAD_END) - len(tail)
        end = min(end, self.settings.max_head_bytes - self._head_bytes)
        self._head_bytes += end
        self._head_tail = (tail + data[blank:end])[1 - len(_HEAD_END) :]
        if blank < end:
            self._feed(data[blank:end])
        if self._head_bytes >= self.settings.max_head_bytes and not self._head_complete and not self._deaf:
            self._refuse(_too_large(f"the request line and headers are over {self.settings.max_head_bytes} bytes"))
        return end

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._stop_listening()
        except httptools.HttpParserError as error:
            if not self._deaf:
                self._refuse(Problem(400, "bad-request", f"this is not a valid HTTP request: {error}"))
        else:
            self._end_request_if_answered()

    # Callbacks of the parser.

    def on_message_begin(self) -> None:
        """Begin a request.

        One that follows a chunked body in the same piece is lost: the connection then closes, and
        its client sends it again.
        """
        if self._head_complete:
            self._stop_listening()
        if not self._deaf:
            super().on_message_begin()
            self.scope["extensions"] = {EXTENSION: {CALLER_KNOWN: partial(self.opened.rename, self)}}

    def on_url(self, url: bytes) -> None:
        """Take a part of the request's target."""
        if not self._deaf:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. Trailers are dropped: the request has begun without them."""
        if not self._deaf and not self._head_complete:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the application on a request whose head is complete."""
        if self._deaf:
            return
        if len(self.headers) > MAX_FIELDS:
            self._refuse(_too_large(f"the request has more than {MAX_FIELDS} headers"))
            return
        self._head_complete = True
        self._note("receiving")
        self._stop_timer()
        headers = dict(self.headers)
        self._body_left = None if b"transfer-encoding" in headers else int(headers.get(b"content-length", b"0"))
        super().on_headers_complete()
        self.cycle.transport = GentleTransport(self.transport, self.close_gently)  # type: ignore[assignment]
        if self.parser.should_upgrade():
            # The parser does not go on after a request for an upgrade.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if not self._deaf:
            self._body_bytes += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is there as a whole."""
        if not self._deaf:
            self._message_complete = True
            self._note("working")
            super().on_message_complete()

    def _should_upgrade(self) -> bool:
        return False  # there is no WebSocket here; a request for one is answered like any other

    def _unsupported_upgrade_warning(self) -> None:
        pass

    # The end of a request and of a connection.

    def on_response_complete(self) -> None:
        """Go on with the next request, once the client has sent the whole of this one."""
        super().on_response_complete()
        if self.transport.is_closing() or self._deaf:
            return
        if self._message_complete:
            self._end_request_if_answered()
            self._parse_pending()
        else:
            self._note("waiting")
            self._start_timer(LINGER_S, self._close)

    def _end_request_if_answered(self) -> None:
        if self._message_complete and self.cycle.response_complete and not self._deaf:
            self._stop_timer()
            self._begin_request()
            self._note("waiting")
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _stop_listening(self) -> None:
        """Drop what arrives from now on, and close the connection once its request is answered."""
        self._deaf = True
        self._pending = b""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            if not self._message_complete:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
        else:
            self.close_gently()

    def _refuse(self, problem: Problem) -> None:
        """Answer with a problem and close the connection."""
        self._deaf = True
        self._pending = b""
        request_id = choose_request_id(None)
        log_problem(problem, self._logged_scope(), request_id)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:  # the application has begun on it
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self._close()
                return
        response = problem.response(request_id)
        headers = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
        lines = [STATUS_LINE[problem.status], *(b"%b: %b\r\n" % header for header in headers), b"\r\n"]
        self.transport.write(b"".join(lines) + bytes(response.body))
        self.close_gently()

    def _logged_scope(self) -> Scope:
        """Return the method and path as far as they are known."""
        scope: Scope = dict(self.scope or {})
        url = getattr(self, "url", b"") if self._head_tail else b""
        return {"method": scope.get("method", "-"), "path": scope.get("path", url[:200].decode("latin-1"))}

    def close_gently(self) -> None:
        """Close the connection, in such a way that the client can read the answer first.

        Closing while it still sends would reset the connection and lose the answer.
        """
        if self._message_complete and not self._pending and not self._deaf:
            self._close()
            return
        self._deaf = True
        self._pending = b""
        self._note("waiting")
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._start_timer(LINGER_S, self._close)

    def _close(self) -> None:
        """Close the connection once its client has read what is left, or has taken too long.

        Closing alone would wait for the client without an end.
        """
        self.transport.close()
        if self._write_timer is None and self.transport.get_write_buffer_size():
            self._write_timer = self.loop.call_later(self.settings.stall_timeout_s, self.transport.abort)

    # Timers, and the number of connections.

    def _start_timer(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_timed_out(self) -> None:
        if self._head_tail:
            limit = self.settings.head_timeout_s
            self._refuse(Problem(408, "too-slow", f"the request line and headers did not arrive within {limit:g} s"))
        else:
            self._close()

    def _watch_reading(self, left: int | None) -> None:
        """Cut off a client that reads too slowly: one that leaves an answer in memory."""
        seconds = self.settings.stall_timeout_s
        size = self.transport.get_write_buffer_size()
        if left is not None and left - size < self.settings.min_bytes_per_s * seconds:
            self.transport.abort()
            return
        self._write_timer = self.loop.call_later(seconds, self._watch_reading, size)

    def _stop_watching_reading(self) -> None:
        self.unread.discard(self)
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _note(self, state: State) -> None:
        """Note the state by which this connection makes room for others, until it has ended."""
        if not self._lost:
            self.opened.put(self, state)

    def _close_another(self) -> bool:
        """Close a connection that waits for a request or receives one; say whether there is one."""
        chosen = self.opened.choose()
        if chosen is None:
            return False
        chosen.transport.abort()
        chosen._lost = True  # it only hears of that later
        self.opened.remove(chosen)
        self.connections.discard(chosen)
        return True


def _too_large(detail: str) -> Problem:
    return Problem(431, "head-too-large", detail)


def install(settings: ProxySettings) -> None:
    """Make every server of uvicorn that this process starts from now on use ``BoundedProtocol``."""
    BoundedProtocol.settings = settings
    BoundedProtocol.unread = UnreadAnswers(settings.max_unread_bytes)
    BoundedProtocol.opened = OpenConnections()
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{BoundedProtocol.__module__}:{BoundedProtocol.__qualname__}"
