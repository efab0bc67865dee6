"""What is read from Ray's dashboard. The answers are those of Ray 2.60, shortened."""

from pathlib import Path

import pytest

from serve.cli.ray_dashboard import DashboardUnavailable, Gpu, Node, RayDashboard, find_token
from tests.unit.serve.cli.dashboard_answers import NODES, answer
from tests.unit.serve.scripted_server import Scripted, scripted_server


def test_nodes_that_live_have_gpus_and_an_object_store() -> None:
    with scripted_server(answer(NODES)) as server, RayDashboard(server.url) as dashboard:
        found = dashboard.nodes()
    gpu = Gpu(node="gpu-1", index=0, name="NVIDIA L40S", memory_used=18022, memory_total=46068, used_percent=87)
    assert found == [Node(name="gpu-1", gpus=(gpu,), object_store_bytes=4096)]
    assert server.requests[0].path == "/nodes?view=summary"


def test_actors_that_live_are_counted_by_class() -> None:
    listed = [{"class_name": "ServeReplica:ryla:Ingress"}, {"class_name": "ProxyActor"}, {"class_name": "ProxyActor"}]
    with scripted_server(answer({"data": {"result": {"result": listed}}})) as server, RayDashboard(server.url) as dashboard:
        assert dashboard.actors() == {"ServeReplica:ryla:Ingress": 1, "ProxyActor": 2}
    assert "filter_keys=state&filter_predicates=%21%3D&filter_values=DEAD" in server.requests[0].path


def test_replicas_are_counted_by_state() -> None:
    deployments = {"Wan26": {"replicas": [{"state": "RUNNING"}, {"state": "STARTING"}]}, "FaceSwapper": {"replicas": []}}
    body = {"applications": {"ryla": {"deployments": deployments}}}
    with scripted_server(answer(body)) as server, RayDashboard(server.url) as dashboard:
        assert dashboard.replicas() == {"Wan26": {"RUNNING": 1, "STARTING": 1}, "FaceSwapper": {}}


@pytest.mark.parametrize(
    ("scripted", "said"),
    [
        (answer({}, 401), "wants a token: set RAY_AUTH_TOKEN"),
        (answer({}, 500), "answers /nodes with 500"),
        (Scripted(b"<html>"), "is not JSON"),
        (answer([]), "answers /nodes with 200"),
        (answer({"data": {}}), "describes its nodes in another form"),
        (Scripted(cut=-1), "no answer from Ray's dashboard"),
    ],
)
def test_a_dashboard_that_cannot_be_read_says_why(scripted: Scripted, said: str) -> None:
    with scripted_server(scripted) as server, RayDashboard(server.url) as dashboard, pytest.raises(DashboardUnavailable) as e:
        dashboard.nodes()
    assert said in str(e.value)


def test_an_unexpected_list_of_actors_asks_for_the_version_of_ray() -> None:
    said = "returned an unexpected list of actors; is this the Ray version in constraints/"
    with (
        scripted_server(answer({"data": {}})) as server,
        RayDashboard(server.url) as dashboard,
        pytest.raises(DashboardUnavailable, match=said),
    ):
        dashboard.actors()


def test_the_token_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    with scripted_server(answer(NODES)) as server, RayDashboard(server.url) as dashboard:
        dashboard.nodes()
    assert server.requests[0].headers["authorization"] == "Bearer secret"


def test_the_token_is_found_where_ray_looks(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("of home\n")
    named = tmp_path / "named"
    named.write_text("named\n")
    environment = {"HOME": str(home)}
    assert find_token(environment) == "of home"
    assert find_token(environment | {"RAY_AUTH_TOKEN_PATH": str(named)}) == "named"
    assert find_token(environment | {"RAY_AUTH_TOKEN_PATH": str(named), "RAY_AUTH_TOKEN": "given"}) == "given"
    assert find_token({"HOME": str(tmp_path)}) is None
