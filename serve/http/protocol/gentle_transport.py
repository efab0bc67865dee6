"""The transport of a connection that is closed only once its client can have read the answer."""

import asyncio
from collections.abc import Callable


class GentleTransport:
    """The transport as an answer uses it: closing it calls ``close``, which leaves time to read."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close
