"""How a soak test waits for what requests have used to be given back."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from loadtest.growth import Totals
from loadtest.soak import left_in_time, settled
from loadtest.watched_processes import Watch, sample


def in_use(files: int) -> Totals:
    return Totals(processes={"ingress": 1}, files={"ingress": files}, threads={}, actors={}, object_store_bytes=0)


def looks(*files: int) -> Iterator[Totals]:
    return (in_use(count) for count in files)


def test_what_is_in_use_is_noted_once_it_does_not_fall_any_more() -> None:
    found = looks(30, 25, 20, 20, 99)
    assert settled(lambda: next(found), seconds=60, poll_s=0) == in_use(20)


def test_what_is_given_back_late_is_not_left() -> None:
    found = looks(25, 22, 20, 99)
    assert left_in_time(lambda: next(found), in_use(20), leeway=0, seconds=60, poll_s=0) == []


def test_what_is_never_given_back_is_left() -> None:
    (text,) = left_in_time(lambda: in_use(21), in_use(20), leeway=0, seconds=0, poll_s=0)
    assert text == "ingress: 21 files, 1 more than before"


@pytest.fixture
def child() -> Iterator[int]:
    """A process below this one that holds three pipes' ends and waits to be ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


def test_the_processes_below_this_one_are_watched(child: int) -> None:
    watch = Watch(lambda: 7, every_s=1000)
    watch.start()
    (taken,) = watch.end()
    assert taken.requests == 7
    usage = taken.processes[child]
    assert usage.rss >= usage.private > 0
    assert usage.files >= 3
    assert usage.threads >= 1
    assert sample(0).processes[child].name == usage.name
