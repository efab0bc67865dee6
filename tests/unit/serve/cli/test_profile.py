"""`ryla profile`. What it asks of Ray and of py-spy is given by others here."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from deployments.wire import VideoRequest
from serve.cli import profile as profiles
from serve.cli.main import app
from serve.cli.profile import ProfileFailed, VideoModel, Watched, draw_flames, find_process, take_trace, video_request
from serve.client import Client
from serve.models import VIDEO_MODELS, WAN22_GGUF, WAN26
from tests.unit.serve.cli.live_service import SMALL, live_service
from tests.unit.serve.fake_graph import FakeGraph

SHAPE = {"width": 64, "height": 48, "num_frames": 5, "steps": 2}


@pytest.fixture
def service() -> Iterator[str]:
    with live_service(FakeGraph()) as url:
        yield url


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[VideoRequest]:
    """Give every replica's trace, and keep the requests of which they were asked."""
    requests: list[VideoRequest] = []

    class Profile:
        def remote(self, request: VideoRequest) -> "Profile":
            requests.append(request)
            return self

        def result(self, timeout_s: float) -> bytes:
            return b"a trace"

    class Handle:
        profile = Profile()

    @contextmanager
    def joined() -> Iterator[None]:
        yield

    monkeypatch.setattr(profiles, "joined_cluster", joined)
    monkeypatch.setattr("ray.serve.get_deployment_handle", lambda name, application: Handle())
    return requests


def py_spy(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program of the name into the path."""
    program = folder / "bin" / "py-spy"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


def test_every_video_model_can_be_traced() -> None:
    assert [model.value for model in VideoModel] == [model.name for model in VIDEO_MODELS]


def test_the_trace_is_of_a_video_of_the_services_own_size(service: str, traced: list[VideoRequest], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["profile", "--save", str(tmp_path / "new"), "--no-flame", "--url", service])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "new" / "wan26-trace.json.gz").read_bytes() == b"a trace"
    (request,) = traced
    assert (request.width, request.height, request.num_frames, request.steps) == (
        SMALL.width,
        SMALL.height,
        SMALL.num_frames,
        SMALL.steps,
    )


def test_the_size_can_be_given(service: str, traced: list[VideoRequest], tmp_path: Path) -> None:
    command = ["profile", "--save", str(tmp_path), "--no-flame", "--model", "wan22-gguf", "--size", "32x16x5x3"]
    assert CliRunner().invoke(app, [*command, "--url", service]).exit_code == 0
    (request,) = traced
    assert (request.width, request.height, request.num_frames, request.steps) == (32, 16, 5, 3)
    assert request.image is not None, "this model makes a video of a picture only"
    assert request.image.shape == (16, 32, 3)


@pytest.mark.parametrize("size", ["832", "832x480", "832x480x33x", "axbxcxd"])
def test_a_size_that_is_none_says_what_to_write(service: str, size: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["profile", "--save", str(tmp_path), "--size", size, "--url", service])
    assert result.exit_code == 1
    assert "such as 832x480x33x30" in result.stderr


def test_a_video_from_a_prompt_has_no_picture() -> None:
    assert video_request(WAN26, SHAPE).image is None
    image = video_request(WAN22_GGUF, SHAPE).image
    assert image.dtype == np.uint8


def test_a_replica_that_fails_says_why_in_a_line(traced: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, application: str) -> object:
        raise TimeoutError("first\nlast line")

    monkeypatch.setattr("ray.serve.get_deployment_handle", fail)
    with pytest.raises(ProfileFailed, match=r"^no trace of wan26: last line$"):
        take_trace(WAN26, SHAPE)


@pytest.mark.parametrize("kind", Watched)
def test_a_process_that_does_not_run_here_is_said_to_run_elsewhere(kind: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(profiles.TITLES, kind, "the title of no process")
    with pytest.raises(ProfileFailed, match=f"no {kind.value} runs on this machine"):
        find_process(kind)


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ([["raylet", "--node_ip_address=127.0.0.1"]], True),
        ([["raylet", "--node_ip_address=10.0.0.2"], ["raylet", "--node_ip_address=127.0.0.1"]], True),
        ([None, ["raylet", "--node_ip_address=10.0.0.2"]], False),
        ([], False),
    ],
)
def test_a_ray_on_the_loopback_interface_is_found_beside_others(
    monkeypatch: pytest.MonkeyPatch, commands: list[list[str] | None], expected: bool
) -> None:
    processes = [SimpleNamespace(info={"name": "raylet", "cmdline": command}) for command in commands]
    other = SimpleNamespace(info={"name": "grep", "cmdline": ["grep", "--node_ip_address=127.0.0.1"]})
    monkeypatch.setattr("psutil.process_iter", lambda attributes: [other, *processes])
    assert profiles.runs_on_loopback() is expected


def test_the_flame_graph_is_drawn_while_requests_are_answered(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    py_spy(tmp_path, monkeypatch, 'sleep 0.2; while [ "$1" != --output ]; do shift; done; echo "$2" > "$2"')
    path = tmp_path / "flame.svg"
    with Client(service) as client:
        draw_flames(1, path, seconds=1, client=client)
    assert path.read_text() == f"{path}\n"


def test_py_spy_that_may_not_look_says_what_it_needs(service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    py_spy(tmp_path, monkeypatch, "echo Permission denied; exit 1")
    with Client(service) as client, pytest.raises(ProfileFailed, match=r"Permission denied\): it needs root"):
        draw_flames(1, tmp_path / "flame.svg", seconds=1, client=client)
