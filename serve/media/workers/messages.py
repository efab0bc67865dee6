"""The messages between this service and its worker processes: small JSON objects with descriptors.

They travel over a socket that keeps the boundaries of messages (``SOCK_SEQPACKET``). Nothing that
a worker sends is ever unpickled, so a decoder that a file has taken over cannot run code here.
"""

import json
import socket
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

_MAX_BYTES = 2**16
_MAX_TEXT_CHARS = 4_000
MAX_FILES = 8
"""The number of descriptors that go with a message at most."""


def send_message(connection: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send ``message`` and copies of the descriptors ``fds``.

    Raises ``EOFError`` if the other end is gone.
    """
    data = json.dumps({name: v[:_MAX_TEXT_CHARS] if isinstance(v, str) else v for name, v in message.items()}).encode()
    try:
        socket.send_fds(connection, [data], list(fds))
    except ConnectionError:
        raise EOFError from None


def receive_message(connection: socket.socket) -> tuple[Message, list[int]]:
    """Return the next message and its descriptors; raise ``EOFError`` if the other end is gone."""
    try:
        data, fds, _, _ = socket.recv_fds(connection, _MAX_BYTES, MAX_FILES)
    except ConnectionError:
        raise EOFError from None
    if not data:
        raise EOFError
    return json.loads(data), fds
