"""The transport that an answer gets: it writes as usual, and is closed by another hand."""

import inspect
import re

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serve.http.protocol.gentle_transport import GentleTransport


class Transport:
    """A transport that keeps what happens to it."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def write(self, data: bytes) -> None:
        self.events.append(f"write {data.decode()}")

    def is_closing(self) -> bool:
        return "close" in self.events

    def close(self) -> None:
        self.events.append("close")


def test_closing_leaves_the_connection_to_what_closes_it_gently() -> None:
    transport = Transport()
    gentle = GentleTransport(transport, lambda: transport.events.append("close later"))  # type: ignore[arg-type]
    gentle.write(b"an answer")
    gentle.close()
    assert transport.events == ["write an answer", "close later"]
    assert not gentle.is_closing()
    transport.close()
    assert gentle.is_closing()


def test_it_has_all_that_an_answer_of_uvicorn_uses() -> None:
    used = set(re.findall(r"\bself\.transport\.(\w+)", inspect.getsource(RequestResponseCycle)))
    assert "write" in used
    assert used <= vars(GentleTransport(Transport(), lambda: None)).keys()  # type: ignore[arg-type]
