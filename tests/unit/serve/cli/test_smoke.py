"""The smoke test calls every endpoint, says what is wrong, and saves what it got."""

import re
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from deployments.errors import VideoTooLarge
from serve.cli import smoke
from serve.cli.console import console, error_console
from serve.cli.smoke import ENDPOINTS, call_example, run_smoke
from serve.client import CallFailed, Client, decode
from tests.unit.serve.cli.live_service import live_service
from tests.unit.serve.fake_graph import FakeFaceSwapper, FakeGraph
from tests.unit.serve.scripted_server import problem, scripted_server

EXTENSIONS = {"wan2.6": "webp", "wan2.6-i2v": "webp", "wan22-i2v": "webp", "image-faceswap": "jpg"}
"""What a result is saved as, if not as MP4."""


@pytest.fixture(autouse=True)
def _wide_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 400)


def soon() -> float:
    """Return a time of the monotonic clock that leaves enough for all calls."""
    return time.monotonic() + 60


@pytest.mark.slow
def test_all_endpoints_are_called_and_their_results_are_saved(tmp_path: Path) -> None:
    graph, folder = FakeGraph(), tmp_path / "results"
    with live_service(graph) as url, Client(url) as client, console.capture() as printed:
        assert run_smoke(client, folder, soon())
    assert len(ENDPOINTS) == 7
    for name in ENDPOINTS:
        saved = folder / f"{name}.{EXTENSIONS.get(name, 'mp4')}"
        assert decode(saved.read_bytes()).frames >= 1
        assert f"/{name} " in printed.get()
    sheet = np.asarray(PIL.Image.open(folder / "overview.png"))
    assert sheet.shape[0] > 7 * 128
    assert len(graph.wan26.requests) == 3
    assert len(graph.wan22.requests) == 2


@pytest.mark.slow
def test_a_refused_call_fails_the_test_and_the_other_endpoints_are_called_all_the_same(tmp_path: Path) -> None:
    graph = FakeGraph()
    graph.wan22.error = VideoTooLarge("width", "the GPU has not enough memory [/red]")
    with live_service(graph) as url, Client(url) as client, console.capture() as printed:
        assert not run_smoke(client, tmp_path, soon())
    assert printed.get().count("not enough memory [/red]") == 2
    assert not (tmp_path / "wan22-i2v.webp").exists()
    assert (tmp_path / "batch-video-faceswap.mp4").exists()


@pytest.mark.slow
def test_a_video_in_which_no_face_was_swapped_is_a_fault() -> None:
    graph = FakeGraph(swapper=FakeFaceSwapper(faces=()))
    message = "batch-video-faceswap: no face was swapped"
    with live_service(graph) as url, Client(url) as client, pytest.raises(CallFailed, match=message):
        call_example(client, "batch-video-faceswap", 60)


def test_no_endpoint_is_called_after_the_deadline() -> None:
    with Client("http://127.0.0.1:9") as client, console.capture() as printed:
        assert not run_smoke(client, None, time.monotonic() - 1)
    assert printed.get().count("the time limit was reached") == len(smoke.ENDPOINTS)


@pytest.mark.parametrize(
    ("key", "secret", "advice"),
    [
        (None, "my-key", "none was given.*the Secret my-key \\(auth.smokeKeySecret\\), which must exist"),
        ("", None, "none was given.*the Secret that auth.smokeKeySecret names, which must exist"),
        ("wrong", "my-key", "does not know this key: .*`key` of the Secret my-key"),
    ],
)
def test_a_401_is_followed_by_where_the_key_comes_from(
    monkeypatch: pytest.MonkeyPatch, key: str | None, secret: str | None, advice: str
) -> None:
    monkeypatch.delenv("RYLA_API_KEY_SECRET", raising=False)
    if secret:
        monkeypatch.setenv("RYLA_API_KEY_SECRET", secret)
    with (
        scripted_server(problem(401, "a valid key is required")) as server,
        Client(server.url, key=key) as client,
        console.capture(),
        error_console.capture() as printed,
    ):
        assert not run_smoke(client, None, soon())
    assert re.search(advice, printed.get()), printed.get()
