import tomllib

from starlette.testclient import TestClient

from serve.http.version import VERSION
from tests.unit.docs.markdown import ROOT


def test_the_version_is_that_of_the_package(client: TestClient) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    for path in ("/", "/health"):
        assert client.get(path).json()["version"] == VERSION
