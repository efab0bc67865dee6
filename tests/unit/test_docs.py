"""Checks of the documentation: what it must list, and where its links lead."""

import re
from pathlib import Path

import pytest

from serve.http.endpoints import Endpoint, make_endpoints
from serve.http.problems import TITLES
from serve.http.result_headers import EXPOSED_HEADERS
from serve.http.routes import make_routes
from serve.pipelines.pipelines import make_pipelines
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import make_config

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
HTTP = (ROOT / "docs" / "http.md").read_text()
CONFIG = make_config()
ENDPOINTS = make_endpoints(CONFIG)
MAX_LINES = 400

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def section(heading: str) -> str:
    """Return the part of docs/http.md between a heading and the next one of any level."""
    match = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", HTTP, re.MULTILINE | re.DOTALL)
    assert match is not None, heading
    return match.group(1)


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading."""
    lines = [line for line in section(heading).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def anchors(text: str) -> set[str]:
    """Return the anchors that the headings of a page get."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        plain = LINK.sub(lambda match: match.group(0)[1:].split("]")[0], heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number, unique = 0, anchor
        while unique in found:
            number += 1
            unique = f"{anchor}-{number}"
        found.add(unique)
    return found


def broken_links(page: Path) -> list[str]:
    """Return the links of a page that lead to no file or to no heading."""
    broken = []
    for target in LINK.findall(CODE.sub("", FENCE.sub("", page.read_text()))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page if not name else page.parent / name
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `code` title\n[a](#a-code-title) [b](#no) [c](no.md) [d](page.md#a-code-title) `[e](no.md)` [f](http://x/y)"
    )
    assert broken_links(page) == ["#no", "no.md"]


def test_the_table_of_endpoints_lists_every_route() -> None:
    graph = FakeGraph()
    routes = make_routes(CONFIG, make_pipelines(CONFIG, graph.handles()), graph.readiness)
    listed = {(cells[0], path) for cells in rows("Endpoints") for path in re.findall(r"`([^`]+)`", cells[1])}
    assert listed == {(route.method, route.path) for route in routes}


def test_the_keyless_paths_are_those_of_the_table() -> None:
    graph = FakeGraph()
    routes = make_routes(CONFIG, make_pipelines(CONFIG, graph.handles()), graph.readiness)
    sentence = next(text for text in re.split(r"(?<=\.)\s+(?=[A-Z])", section("Keys")) if "need no key" in text)
    assert set(re.findall(r"`(/[^`]*)`", sentence)) == {route.path for route in routes if not route.needs_key}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_every_endpoint_has_a_section_with_an_example(endpoint: Endpoint) -> None:
    assert f"http://127.0.0.1:8000/{endpoint.name}" in section(f"`POST /{endpoint.name}`")


def test_every_field_is_in_the_table_of_its_kind() -> None:
    tables = {
        field
        for heading in ("Fields of a generated video", "Fields of a face swap")
        for cells in rows(heading)
        for field in re.findall(r"`([a-z_]+)`", cells[0])
    }
    files = {"reference_image", "source_image", "source_video", "face_image", "reference_face"}
    public = {name for endpoint in ENDPOINTS for names in endpoint.schema.names.values() for name in names}
    assert public == tables | files
    endpoints = "\n".join(cells[2] for cells in rows("Endpoints"))
    assert [name for name in files if name not in endpoints] == []


def test_every_result_header_is_in_its_table() -> None:
    listed = {re.findall(r"`([^`]+)`", cells[0])[0] for cells in rows("Result headers")}
    assert listed == set(EXPOSED_HEADERS) - {"Retry-After"}
    assert "`Retry-After`" in section("Result headers")


def test_every_problem_is_in_the_table_with_its_status() -> None:
    listed = {cells[1].strip("`"): int(cells[0]) for cells in rows("Problems")}
    assert listed.keys() == TITLES.keys()
    assert listed["invalid-field"] == 422
    assert listed["timeout"] == 504


def test_the_variables_of_the_proxy_are_documented() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    assert "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH" in operations
    assert "RYLA_MAX_BODY_BYTES" in operations


@pytest.mark.parametrize("folder", ["serve", "deployments", "demo", "training", "loadtest", "benchmarks", "helm", "tests"])
def test_no_module_is_over_its_number_of_lines(folder: str) -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert sizes != {}
    assert {str(path.relative_to(ROOT)): lines for path, lines in sizes.items() if lines > MAX_LINES} == {}
