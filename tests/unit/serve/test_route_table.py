"""The table of routes, and that the light module that holds it stays light."""

import subprocess
import sys

from serve.route_table import DOCS_ASSETS, ENDPOINTS, Row


def test_probes_and_documentation_are_open_and_nothing_else_is() -> None:
    opened = {(row.method, row.path) for row in Row if row.key == "no key"}
    assert opened == {("GET", path) for path in ("/", "/health", "/healthz", "/readyz", "/docs", "/openapi.json", "/verify")}


def test_only_the_verification_of_a_file_can_be_opened_by_a_setting() -> None:
    assert [(row.method, row.path) for row in Row if row.key == "verify.open"] == [("POST", "/verify")]


def test_no_two_rows_are_the_same_route() -> None:
    routes = [(row.method, row.path) for row in Row.__members__.values()]
    routes += [("POST", path) for paths in ENDPOINTS.values() for path in paths]
    assert len(set(routes)) == len(routes)


def test_the_first_path_of_an_endpoint_is_its_name() -> None:
    assert {name: paths[0] for name, paths in ENDPOINTS.items()} == {name: f"/{name}" for name in ENDPOINTS}


def test_no_route_is_below_the_files_of_the_documentation() -> None:
    assert not any(row.path.startswith(f"{DOCS_ASSETS}/") for row in Row)


def test_whoever_reads_the_table_imports_nothing_else_of_the_service() -> None:
    program = "import sys, serve.route_table; print(sorted(name for name in sys.modules if name.startswith('serve')))"
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert printed == "['serve', 'serve.route_table']\n"
