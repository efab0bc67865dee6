"""The walks in docs/architecture.md are those of a request that runs through the whole service.

Ray is not in it: its two hops are plain calls here.
"""

import re
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import pytest

from deployments import hardware
from deployments.settings import VideoSettings
from deployments.video.engine import WanEngine
from deployments.video_deployment import VideoDeployment
from tests.unit.docs.markdown import ROOT, read
from tests.unit.serve.fake_graph import FakeConsumer, FakeGraph
from tests.unit.serve.http.service import make_client
from tests.unit.serve.local_jobs import Line

Call = tuple[str, str]
"""A file and the qualified name of a function in it."""
HOPS: set[Call] = {("serve/jobs/runner_handle.py", "RunnerHandle.__call__")}
"""The calls that only a service on Ray makes."""


def walk(title: str) -> list[Call]:
    """Return the calls in the table below a heading, in their order."""
    text = read("docs/architecture.md")
    section = text[text.index(f"### {title}\n") :].partition("\n\n#")[0]
    return re.findall(r"^\| \d+ \| `([\w/.]+)`: `([\w.]+)` \|", section, re.MULTILINE)


class CreditedLine(Line):
    """The producer's end of a stream whose consumer has credits without end."""

    async def acquire(self) -> None:
        """Return at once."""

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["CreditedLine"]:
        """Yield the line itself."""
        yield self


class GenerousConsumer(FakeConsumer):
    """A consumer that gives each stream credits without end."""

    def open(self, size: int) -> Any:
        """Return a new stream."""
        return CreditedLine()


@contextmanager
def first_calls() -> Iterator[dict[Call, None]]:
    """Collect the functions of this repository that are called in the block, in their order."""
    calls: dict[Call, None] = {}
    root = f"{ROOT}/"

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(root):
            calls.setdefault((code.co_filename.removeprefix(root), code.co_qualname))

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


@pytest.fixture
def calls(wan26: WanEngine, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The calls of a plain POST of a seed that is answered with an MP4 file."""
    monkeypatch.setattr(hardware, "publish", lambda text: None)
    with first_calls() as made:
        graph = FakeGraph(consumer=GenerousConsumer())
        graph.wan26 = VideoDeployment(wan26, VideoSettings(), "wan26")  # type: ignore[assignment]
        body = {"prompt": "a cat", "seed": 7, "width": 64, "height": 64, "num_frames": 9, "steps": 2, "cfg": 4}
        answer = make_client(graph).post("/wan2.6", json=body, headers={"Accept": "video/mp4"})
    assert (answer.status_code, answer.headers["x-seed"], answer.headers["x-frames"]) == (200, "7", "9")
    return list(made)


def test_a_seed_walks_as_it_is_documented(calls: list[Call]) -> None:
    documented = [call for call in walk("The walk of a seed") if call not in HOPS]
    assert len(documented) > 20
    assert [call for call in calls if call in documented] == documented


def test_a_chunk_walks_as_it_is_documented(calls: list[Call]) -> None:
    documented = walk("The walk of a chunk")
    without_credits = {("deployments/flow_control.py", "Credits.acquire")}
    assert len(documented) > 12
    assert set(documented) - set(calls) == without_credits
