"""Server-sent events, whatever the pieces in which their bytes arrive."""

import pytest

from serve.client.event_stream import EventDecoder, ServerEvent

TEXT = ": comment\r\n\r\nid: 1\nevent: progress\ndata: {\ndata:  1}\n\nretry: 5\nfoo\ndata:x\r\rid\ndata: é\n\nevent: lost\n\ndata: cut"
EVENTS = [ServerEvent("progress", "{\n 1}", "1"), ServerEvent("message", "x", "1"), ServerEvent("message", "é", "")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_in_whatever_pieces_they_come(size: int) -> None:
    data = TEXT.encode()
    decoder = EventDecoder()
    assert [e for i in range(0, len(data), size) for e in decoder.feed(data[i : i + size])] == EVENTS


def test_separators_of_unicode_end_no_line() -> None:
    text = "data: a\u2028b\x0b\x0cc\x85d\n\n"
    assert [event.data for event in EventDecoder().feed(text.encode())] == ["a\u2028b\x0b\x0cc\x85d"]
