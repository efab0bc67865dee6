import pytest
from starlette.testclient import TestClient

from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import make_client


@pytest.fixture
def graph() -> FakeGraph:
    return FakeGraph()


@pytest.fixture
def client(graph: FakeGraph) -> TestClient:
    """A client of the service over ``graph``, without keys and without CORS."""
    return make_client(graph)
