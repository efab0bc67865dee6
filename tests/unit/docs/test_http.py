"""The tables of docs/http.md list what the code has, and its examples work on a fake graph."""

import base64
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from starlette.testclient import TestClient

from serve.config import AppConfig
from serve.http.endpoints import VIDEOS, Endpoint, make_endpoints
from serve.http.routes import Route
from serve.jobs.results.headers import EXPOSED_HEADERS, JOB_HEADERS
from serve.problems import TITLES
from serve.route_table import Row
from tests.unit.docs.markdown import ROOT, code_blocks, read, rows, section
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import make_service_of, routes_over

HTTP = read("docs/http.md")
CONFIG = AppConfig()
ENDPOINTS = make_endpoints(CONFIG)
SERVICE = "http://127.0.0.1:8000"
COMPARED = ("content-type", "x-model", "x-frames", "x-fps", "x-seed", "x-frame-count", "x-frames-swapped")
"""Headers that do not depend on the models."""


@dataclass
class Example:
    """A curl command and the status and headers that its answer is documented with."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None
    files: list[tuple[str, tuple[str | None, bytes]]]
    output: str | None
    status: int
    documented: dict[str, str]

    def send(self, client: TestClient) -> Any:
        """Send the request; write the answer where the command does."""
        response = client.request(self.method, self.path, headers=self.headers, content=self.body, files=self.files or None)
        if self.output is not None:
            Path(self.output).write_bytes(response.content)
        return response


def parse_command(command: str, answer: str) -> Example:
    """Read a curl command, in which a shell variable holds a file as base64."""
    variables = dict(re.findall(r"^(\w+)=\$\(base64 < (\S+) \|.*\)$", command, re.MULTILINE))
    heredoc = re.search(r"<<END\n(.*?)\nEND$", command, re.DOTALL | re.MULTILINE)
    line = command[command.index("curl ") :].split("<<END")[0].replace("\\\n", " ")
    words = iter(shlex.split(line)[1:])
    status = re.match(r"HTTP/1.1 (\d+)", answer)
    documented = dict(re.findall(r"^([a-z-]+): (.*)$", answer.partition("\n\n")[0], re.MULTILINE))
    example = Example(
        method="GET",
        path="",
        headers={},
        body=None,
        files=[],
        output=None,
        status=int(status[1]) if status else 200,
        documented=documented,
    )
    for word in words:
        if word == "-d":
            example.body = next(words).encode()
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            example.headers[name] = value
        elif word == "-F":
            name, _, value = next(words).partition("=")
            file = Path(value.removeprefix("@"))
            example.files.append((name, (file.name, file.read_bytes()) if value.startswith("@") else (None, value.encode())))
        elif word == "-o":
            example.output = next(words)
        elif word == "-D":
            next(words)
        elif word.startswith(SERVICE):
            example.path = word.removeprefix(SERVICE)
    if heredoc:
        text = heredoc[1]
        for name, file in variables.items():
            text = text.replace(f"${name}", base64.b64encode(Path(file).read_bytes()).decode())
        example.body = text.encode()
    if example.body is not None or example.files:
        example.method = "POST"
    return example


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A client of the demo's settings over a fake graph, in a folder that has the sample images."""
    (tmp_path / "serve").symlink_to(ROOT / "serve")
    monkeypatch.chdir(tmp_path)
    args = yaml.safe_load(read("serve/presets/demo.yaml"))["applications"][0]["args"]
    graph = FakeGraph()
    return TestClient(make_service_of(AppConfig.model_validate(args), graph))


def commands(text: str) -> list[tuple[str, str]]:
    """Return each curl command for the demo with the block that follows it."""
    blocks = [*code_blocks(text), ("", "")]
    return [
        (block, blocks[i + 1][1] if blocks[i + 1][0] in ("http", "json") else "")
        for i, (language, block) in enumerate(blocks)
        if language == "sh" and "curl " in block and SERVICE in block
    ]


@pytest.mark.slow
def test_the_examples_give_the_documented_answers(client: TestClient) -> None:
    found = commands(HTTP)
    paths = set()
    for command, answer in found:
        if "?model=" in command:  # its answer is that of a model that is still starting
            continue
        example = parse_command(command, answer)
        response = example.send(client)
        assert response.status_code == example.status, (command, response.text)
        expected = {name: value for name, value in example.documented.items() if name in COMPARED}
        if response.headers["content-type"] == "image/webp":
            expected.pop("x-frames", None)  # the fake model's equal frames become one frame of a WebP
        assert {name: response.headers[name] for name in expected} == expected, command
        paths.add((example.method, example.path))
    endpoints = {("POST", endpoint.paths[0]) for endpoint in ENDPOINTS}
    assert endpoints <= paths
    assert len(found) >= 16


def test_the_documented_problem_is_the_one_that_comes(client: TestClient) -> None:
    ((command, answer),) = [(c, a) for c, a in commands(HTTP) if '"width": 120' in c]
    documented = json.loads(answer.partition("\n\n")[2])
    body = parse_command(command, answer).send(client).json()
    varying = ("instance", "request_id")
    assert {k: v for k, v in body.items() if k not in varying} == {k: v for k, v in documented.items() if k not in varying}
    assert body.keys() == documented.keys()


def test_getting_started_works_from_python(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [source for language, source in code_blocks(read("docs/getting-started.md")) if language == "python"]
    (source,) = [block for block in blocks if "ryla.client" not in block]
    monkeypatch.setattr(httpx, "Client", lambda **_: client)
    exec(compile(source, "getting-started.md", "exec"), {})
    assert Path("star.mp4").read_bytes()[4:8] == b"ftyp"
    assert Path("swapped.jpg").read_bytes()[:2] == b"\xff\xd8"


def routes() -> tuple[Route, ...]:
    """Return the routes of a service with the default settings."""
    return routes_over(CONFIG, FakeGraph())


def test_the_table_of_endpoints_lists_every_route() -> None:
    listed = {(cells[0], path) for cells in rows(HTTP, "Endpoints") for path in re.findall(r"`(/[^`]*)`", cells[1])}
    assert listed == {(route.method, route.path) for route in routes()}


def test_the_keyless_paths_are_those_of_the_table() -> None:
    sentences = re.split(r"(?<=\.)\s+(?=[A-Z`])", section(HTTP, "Keys"))
    sentence = next(text for text in sentences if "need no key" in text)
    assert set(re.findall(r"`(/[^`]*)`", sentence)) == {row.path for row in Row if row.key == "no key"}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_every_endpoint_has_a_section_with_an_example(endpoint: Endpoint) -> None:
    assert f"{SERVICE}/{endpoint.name}" in section(HTTP, f"`POST /{endpoint.name}`")


def fields_of(heading: str) -> set[str]:
    """Return the fields that a table has, in code in its first column, apart from paths."""
    return {field for cells in rows(HTTP, heading) for field in re.findall(r"`([a-z_]+)`", cells[0])}


def test_every_field_is_in_the_tables_of_its_endpoint() -> None:
    videos, swaps = fields_of("Fields of a generated video"), fields_of("Fields of a face swap")
    known: set[str] = set()
    bodies = "\n".join(cells[2] for cells in rows(HTTP, "Endpoints"))
    for endpoint in ENDPOINTS:
        names = endpoint.schema.names
        public = {name for aliases in names.values() for name in aliases}
        described = (videos if endpoint.group == VIDEOS else set()) | (swaps if "faces" in names else set())
        assert public - described == set(), endpoint.name
        files = {name for field in ("image", "last_image", "source", "face") for name in names.get(field, ())}
        assert [name for name in files if name not in bodies] == [], endpoint.name
        known |= public
    assert videos | swaps == known


def test_every_result_header_is_in_its_table() -> None:
    listed = {re.findall(r"`([^`]+)`", cells[0])[0] for cells in rows(HTTP, "Result headers")}
    assert listed == set(EXPOSED_HEADERS) - set(JOB_HEADERS)
    assert [header for header in JOB_HEADERS if f"`{header}`" not in section(HTTP, "Browsers")] == []
    assert "`Retry-After`" in section(HTTP, "Result headers")


def test_every_problem_is_in_the_table_with_its_status() -> None:
    listed = {cells[1].strip("`"): int(cells[0]) for cells in rows(HTTP, "Problems")}
    assert listed.keys() == TITLES.keys()
    assert listed["invalid-field"] == 422
    assert listed["timeout"] == 504
