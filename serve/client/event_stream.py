"""Reads server-sent events (the WHATWG's HTML standard, section 9.2) from bytes as they arrive."""

import re
from dataclasses import dataclass

_LINE = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class ServerEvent:
    """One event. ``id`` is the last id that the stream has named, or empty."""

    name: str
    data: str
    id: str


class EventDecoder:
    """Turns the bytes of one stream into events. An event that was cut off is not one."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []
        self._id = ""

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """Return the events that ``chunk`` completes. Keep-alive comments are skipped."""
        text = self._rest + chunk
        # A carriage return at the end may be half of a line's end.
        held = text.endswith(b"\r")
        *lines, self._rest = _LINE.split(text[:-1] if held else text)
        if held:
            self._rest += b"\r"
        return [event for line in lines if (event := self._take(line)) is not None]

    def _take(self, line: bytes) -> ServerEvent | None:
        if not line:
            event = ServerEvent(self._name or "message", "\n".join(self._data), self._id) if self._data else None
            self._name, self._data = "", []
            return event
        name, _, value = line.decode(errors="replace").partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        return None
