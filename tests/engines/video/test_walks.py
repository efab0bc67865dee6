"""The walks in docs/architecture.md are those of a request that runs through the whole service.

Ray is not in it: its two hops are calls of the tests here.
"""

import re
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import pytest
from diffusers import WanTransformer3DModel

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
TRANSFORMER: Call = ("diffusers", "WanTransformer3DModel.forward")
CALLS = 18
"""The length of the walk of a seed: one that gets longer needs a reason."""
HOPS: set[Call] = {("serve/jobs/runner_handle.py", "RunnerHandle.__call__")}
"""The calls that only a service on Ray makes."""
ENTRIES: set[Call] = {
    ("serve/http/endpoint_handler.py", "EndpointHandler.__call__"),
    ("deployments/video_deployment.py", "VideoDeployment.generate"),
}
"""The calls that the router and Ray make."""


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


def own(frame: FrameType) -> Call | None:
    """Return the function of the service that ``frame`` runs, or None for any other.

    What is defined in a function counts as that function.
    """
    path, name = frame.f_code.co_filename.removeprefix(f"{ROOT}/"), frame.f_code.co_qualname
    return (path, name.partition(".<locals>")[0]) if path.startswith(("serve/", "deployments/")) else None


def caller_of(frame: FrameType) -> Call | None:
    """Return the nearest function of the service above ``frame``; None in a new task or thread."""
    above = frame.f_back
    while above is not None and (found := own(above)) is None:
        above = above.f_back
    return None if above is None else found


@contextmanager
def first_calls() -> Iterator[dict[Call, Call | None]]:
    """Collect the functions that are called in the block, in their order, each with its caller.

    They are those of the service, and the forward pass of diffusers' transformer.
    """
    calls: dict[Call, Call | None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        call = TRANSFORMER if frame.f_code is WanTransformer3DModel.forward.__code__ else own(frame)
        if call is not None and call not in calls:
            calls[call] = caller_of(frame)

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


@pytest.fixture
def calls(wan26: WanEngine, monkeypatch: pytest.MonkeyPatch) -> dict[Call, Call | None]:
    """The calls of a plain POST of a seed that is answered with an MP4 file, with their callers."""
    monkeypatch.setattr(hardware, "publish", lambda text: None)
    with first_calls() as made:
        graph = FakeGraph(consumer=GenerousConsumer())
        graph.wan26 = VideoDeployment(wan26, VideoSettings(), "wan26")  # type: ignore[assignment]
        body = {"prompt": "a cat", "seed": 7, "width": 64, "height": 64, "num_frames": 9, "steps": 2, "cfg": 4}
        answer = make_client(graph).post("/wan2.6", json=body, headers={"Accept": "video/mp4"})
    assert (answer.status_code, answer.headers["x-seed"], answer.headers["x-frames"]) == (200, "7", "9")
    return made


def test_a_seed_walks_as_it_is_documented(calls: dict[Call, Call | None]) -> None:
    documented = walk("The walk of a seed")
    assert len(documented) == CALLS
    made = [call for call in documented if call not in HOPS]
    assert [call for call in calls if call in made] == made
    callers = {call: calls[call] for call in [*made, TRANSFORMER] if call not in ENTRIES and calls[call] is not None}
    assert {call: caller for call, caller in callers.items() if caller not in made} == {}, "a call is left out"
    assert callers[TRANSFORMER] == made[-1]


def test_a_chunk_walks_as_it_is_documented(calls: dict[Call, Call | None]) -> None:
    documented = walk("The walk of a chunk")
    without_credits = {("deployments/flow_control.py", "Credits.acquire")}
    assert len(documented) > 12
    assert set(documented) - set(calls) == without_credits
