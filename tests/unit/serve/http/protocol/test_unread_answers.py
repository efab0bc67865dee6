"""Which answer is cut off when all that wait to be read are too large."""

import asyncio
import logging

import pytest

from serve.http.protocol import unread_answers
from serve.http.protocol.unread_answers import UnreadAnswers


class Answer:
    """An answer that nobody reads."""

    def __init__(self, caller: str, size: int) -> None:
        self._caller = caller
        self._size = size
        self.cut = asyncio.Event()

    def unread_bytes(self) -> int:
        return self._size

    def caller(self) -> str:
        return self._caller

    def cut_off(self) -> None:
        self.cut.set()


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread_answers, "BUSY_STALL_S", 0.0)


@pytest.mark.usefixtures("no_grace")
async def test_the_caller_with_the_largest_share_loses_its_oldest_answers(caplog: pytest.LogCaptureFixture) -> None:
    room = UnreadAnswers(100)
    other = Answer("b", 40)
    mine = [Answer("a", 20) for _ in range(6)]
    with caplog.at_level(logging.WARNING, "ray.serve"):
        for answer in (mine[0], other, *mine[1:]):
            room.add(answer)
    assert not other.cut.is_set(), "the single largest answer, and one of the oldest, is that of another caller"
    assert [answer.cut.is_set() for answer in mine] == [True] * 3 + [False] * 3
    assert len(room) == 4
    assert len(caplog.records) == 3


@pytest.mark.usefixtures("no_grace")
async def test_one_answer_over_the_budget_goes_and_one_of_its_size_does_not() -> None:
    room = UnreadAnswers(100)
    exact, over = Answer("a", 100), Answer("a", 101)
    room.add(exact)
    assert not exact.cut.is_set()
    room.discard(exact)
    room.discard(exact)
    room.add(over)
    assert over.cut.is_set()


async def test_one_that_just_made_progress_is_spared_until_it_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread_answers, "BUSY_STALL_S", 3600.0)
    monkeypatch.setattr(unread_answers, "_CHECK_S", 0.001)
    room = UnreadAnswers(100)
    answers = [Answer("a", 60), Answer("b", 60)]
    for answer in answers:
        room.add(answer)
    await asyncio.sleep(0.01)  # some looks
    assert not any(answer.cut.is_set() for answer in answers)
    monkeypatch.setattr(unread_answers, "BUSY_STALL_S", 0.0)
    await answers[0].cut.wait()
    assert not answers[1].cut.is_set()


@pytest.mark.usefixtures("no_grace")
async def test_an_answer_that_was_read_makes_room() -> None:
    room = UnreadAnswers(100)
    for _ in range(5):
        answer = Answer("a", 90)
        room.add(answer)
        room.discard(answer)
        assert not answer.cut.is_set()
