"""/v1/videos as OpenAI's real package for Node uses it, through Serve's HTTP server on a port.

Node runs `tests/node/openai_videos.mjs` once; each test looks at what that printed and saved.
"""

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serve.media.samples import PORTRAIT
from tests.unit.docs.markdown import code_blocks, read
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.callers.key_file import line
from tests.unit.serve.http.front import front
from tests.unit.serve.http.service import local_jobs, make_config, make_service_over

NODE = shutil.which("node")
FOLDER = Path(__file__).parents[4] / "node"
KEY = "the key of Anna"
LONGEST_S = 300
"""Seconds after which Node is killed. It takes two, and much longer on a busy machine."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NODE is None, reason="Node is not installed (20 or newer; `make tools` installs the package)"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules/openai").is_dir(),
        reason="OpenAI's package for Node is not installed: run `make tools`, which needs npm",
    ),
]


@dataclass
class Session:
    """What the program printed, by step, and what the service made."""

    steps: dict[str, dict[str, Any]]
    graph: FakeGraph
    result_of_swap: bytes | None
    """The video with the face swap, as the service keeps it."""
    example: bytes
    """The file that the documented example wrote."""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Run the program once against the service, behind the middleware of Serve's proxy."""
    folder = tmp_path_factory.mktemp("node")
    keys = folder / "keys"
    keys.write_text(line("anna", KEY))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RYLA_API_KEYS", str(keys))
        yield asyncio.run(_session(folder, keys))


async def _session(folder: Path, keys: Path) -> Session:
    graph, config = FakeGraph(), make_config(ingress={"api_keys": keys})
    jobs = local_jobs(config, graph)
    async with front(make_service_over(config, jobs, graph)) as service:
        arguments = [FOLDER / "openai_videos.mjs", f"http://127.0.0.1:{service.port}/v1", KEY, PORTRAIT, folder]
        out = await _printed(*map(str, arguments))
        steps = {step.pop("step"): step for step in map(json.loads, out.splitlines())}
        job = await jobs.desk.get(steps["swap"]["id"], "anna")
        assert job is not None
        assert job.result is not None
        assert job.result.key is not None
        stored = await jobs.files.get(job.result.key)
        await _printed(str(_example(folder, f"http://127.0.0.1:{service.port}/v1")), folder=folder)
    await jobs.desk.close()
    return Session(steps, graph, stored, (folder / "circle.mp4").read_bytes())


def _example(folder: Path, url: str) -> Path:
    """Write the example of docs/http.md into ``folder``, for a smaller video; return its path."""
    (text,) = [source for language, source in code_blocks(read("docs/http.md")) if language == "js"]
    for documented, used in (("https://your-service/v1", url), ("YOUR KEY", KEY), ("832x480", "64x48"), ("2000", "20")):
        assert documented in text
        text = text.replace(documented, used)
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    path = folder / "example.mjs"
    path.write_text(text)
    return path


async def _printed(*arguments: str, folder: Path = FOLDER) -> str:
    """Run Node in ``folder``, and return what it printed."""
    assert NODE is not None
    pipe = asyncio.subprocess.PIPE
    node = await asyncio.create_subprocess_exec(NODE, *arguments, cwd=folder, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(LONGEST_S):
            out, errors = await node.communicate()
    finally:
        if node.returncode is None:
            node.kill()
            await node.wait()
    assert node.returncode == 0, out.decode() + errors.decode()
    return out.decode()


def test_a_video_is_created_polled_and_downloaded(session: Session) -> None:
    created, done = session.steps["create"], session.steps["completed"]
    assert (created["object"], created["model"], created["prompt"]) == ("video", "wan2.6", "a cat, 猫")
    assert (created["size"], created["seconds"], created["error"]) == ("64x48", "0.5", None)
    assert (done["id"], done["status"], done["progress"], done["seed"]) == (created["id"], "completed", 100, 7)
    request = session.graph.wan26.requests[0]
    assert (request.prompt, request.width, request.height, request.num_frames) == ("a cat, 猫", 64, 48, 9)
    assert (request.seed, request.steps) == (7, 2)
    download = session.steps["download"]
    assert download["type"] == "video/mp4"
    assert Path(download["file"]).read_bytes()[4:8] == b"ftyp"
    assert Path(session.steps["download of the swap"]["file"]).read_bytes() == session.result_of_swap


def test_the_documented_example_works(session: Session) -> None:
    assert session.example[4:8] == b"ftyp"
    request = session.graph.wan26.requests[-1]
    assert (request.prompt, request.num_frames, request.seed) == ("a red circle moves to the right", 33, 7)


@pytest.mark.parametrize("step", ["upload of a stream", "upload of bytes", "data URI"])
def test_a_reference_image_is_the_first_frame_however_it_is_sent(session: Session, step: str) -> None:
    assert (session.steps[step]["status"], session.steps[step]["error"]) == ("completed", None)
    (request,) = (request for request in session.graph.wan26.requests if request.prompt == step)
    assert request.image is not None
    assert request.image.shape == (48, 64, 3)


def test_a_video_that_fails_names_the_field_as_it_was_sent(session: Session) -> None:
    video = session.steps["damaged"]
    assert (video["status"], video["error"]["code"]) == ("failed", "invalid_field")
    assert video["error"]["message"].startswith("`input_reference`: ")


def test_the_file_of_a_failed_video_is_one_error(session: Session) -> None:
    assert session.steps["requests for it"] == {"requests": 1}
    message = session.steps["damaged"]["error"]["message"]
    assert session.steps["file of the damaged"]["message"] == f"409 the video has failed, so it has no file: {message}"


def test_fields_with_several_values_arrive_whole(session: Session) -> None:
    assert session.steps["swap"]["status"] == "completed"
    (options, *_) = session.graph.swapper.options
    assert options.padding == (0.1, 0.2, 0.3, 0.4)
    assert (options.restore, options.blend) == (False, 0.5)
    assert session.graph.swapper.swapped, "the face was put in, so that its images had arrived"


def test_an_idempotency_key_makes_one_video(session: Session) -> None:
    first, again = session.steps["idempotency"]["ids"]
    assert first == again


def test_lists_go_through_all_pages(session: Session) -> None:
    """Two calls that made one video are one in the list."""
    steps = ("create", "upload of a stream", "upload of bytes", "data URI", "damaged", "swap")
    made = [session.steps[step]["id"] for step in steps] + session.steps["idempotency"]["ids"][:1]
    assert session.steps["list asc"]["ids"] == made
    assert session.steps["list desc"]["ids"] == made[::-1]
    assert session.steps["models"]["models"][0] == "wan2.6"


def test_a_video_that_is_deleted_is_gone(session: Session) -> None:
    created = session.steps["create"]["id"]
    assert session.steps["delete"] == {"id": created, "object": "video.deleted", "deleted": True}
    assert session.steps["deleted"]["status"] == 410


@pytest.mark.parametrize(
    ("step", "name", "status", "code", "param", "says"),
    [
        ("wrong size", "UnprocessableEntityError", 422, "invalid_field", "size", "nearest valid value is 96"),
        ("objects in a form", "UnprocessableEntityError", 422, "invalid_field", "pairs", "JSON text"),
        ("wrong key", "AuthenticationError", 401, "unauthorized", None, "key"),
    ],
)
def test_errors_name_the_field_and_the_request(
    session: Session, step: str, name: str, status: int, code: str, param: str | None, says: str
) -> None:
    error = session.steps[step]
    assert (error["name"], error["status"], error["code"], error["param"]) == (name, status, code, param)
    assert error["message"].startswith(f"{status} ")
    assert says in error["message"]
    assert len(error["request_id"]) == 32
