"""`ryla top` against the whole ingress over a fake graph, and answers of Ray's dashboard."""

import asyncio
from dataclasses import replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from serve.cli.main import app
from serve.cli.ray_dashboard import DashboardUnavailable, RayDashboard
from serve.cli.top import Deployment, Snapshot, look
from serve.client import Client
from tests.unit.serve.cli.dashboard_answers import NODES, answer
from tests.unit.serve.cli.live_service import live_service
from tests.unit.serve.client.job_answers import raw_record
from tests.unit.serve.fake_graph import FakeGraph, FakeVideoModel
from tests.unit.serve.scripted_server import Scripted, problem, scripted_server

REPLICAS = {
    "applications": {
        "ryla": {
            "deployments": {
                "Ingress": {"replicas": [{"state": "RUNNING"}]},
                "Wan26": {"replicas": [{"state": "RUNNING"}, {"state": "STARTING"}]},
            }
        }
    }
}


def drawn(snapshot: Snapshot) -> list[str]:
    console = Console(width=200, no_color=True)
    with console.capture() as captured:
        console.print(snapshot.drawn())
    return [" ".join(line.split()) for line in captured.get().splitlines() if line.strip()]


@pytest.mark.slow
def test_everything_that_runs_is_a_line_for_scripts() -> None:
    graph = FakeGraph(wan26=FakeVideoModel(gate=asyncio.Event()))
    with live_service(graph) as url, scripted_server(answer(REPLICAS), answer(NODES)) as ray, Client(url) as client:
        job = client.submit("wan2.6", {"prompt": "a cat", "length": 5, "steps": 2})
        for record in job.subscribe():
            if record.progress.step == 2:
                break
        result = CliRunner().invoke(app, ["top", "--once", "--url", url, "--dashboard", ray.url])
        job.cancel()
    assert result.exit_code == 0, result.output
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert ["deployment", "Wan26", "ready", "1, 1 starting", ""] in lines
    assert ["deployment", "FaceSwapper", "ready", "1", ""] in lines, "what only the service knows is shown as well"
    assert ["deployment", "Ingress", "ready", "1", ""] in lines
    (shown,) = [line for line in lines if line[0] == "job"]
    assert shown[1:5] == [job.id, "wan2.6", "running", "denoising"]
    assert 0 < float(shown[5]) < 100
    assert ["gpu", "gpu-1", "0", "NVIDIA L40S", "87", "18022", "46068"] in lines


@pytest.mark.slow
def test_without_a_dashboard_the_service_is_shown_and_the_rest_is_said_to_be_unknown() -> None:
    with live_service(FakeGraph()) as url, scripted_server(answer({}, 401)) as ray:
        result = CliRunner().invoke(app, ["top", "--once", "--url", url, "--dashboard", ray.url])
        without = CliRunner().invoke(app, ["top", "--once", "--url", url, "--dashboard", ""])
    assert result.exit_code == without.exit_code == 0
    assert "deployment\tWan26\tready\t1\t" in result.stdout.splitlines()
    assert "wants a token" in result.stderr
    assert without.stdout == result.stdout
    assert without.stderr == ""


def test_a_service_that_does_not_answer_is_one_line() -> None:
    with scripted_server(Scripted(cut=-1)) as server:
        result = CliRunner().invoke(app, ["top", "--once", "--url", server.url, "--dashboard", ""])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "no answer from" in result.stderr


def test_a_service_without_a_usable_model_still_shows_its_jobs() -> None:
    page = answer({"jobs": [raw_record("queued", queue_position=0)]})
    with scripted_server(problem(503, "no model is ready"), page) as server, Client(server.url) as client:
        snapshot = look(client, None)
    assert len(snapshot.jobs) == 3, "one of each state that is asked for"
    assert "no model is ready" in snapshot.notes[0]


def test_the_table_needs_a_terminal() -> None:
    with live_service(FakeGraph()) as url:
        result = CliRunner().invoke(app, ["top", "--url", url, "--dashboard", ""])
    assert result.exit_code == 2
    assert "--once" in result.stderr


def test_the_table_shows_what_a_service_sent_as_it_is() -> None:
    deployment = Deployment(name="Wan26", state="failed", replicas="0", hardware="[red]no[/red] GPU")
    lines = drawn(Snapshot(deployments=[deployment], notes=["[b]unknown"]))
    assert "Wan26 failed 0 [red]no[/red] GPU" in lines
    assert "You have no waiting or running jobs." in lines
    assert "[b]unknown" in lines


def test_the_table_has_gpus_where_there_are_some() -> None:
    with scripted_server(answer(NODES)) as server, RayDashboard(server.url) as dashboard:
        (gpu,) = [gpu for node in dashboard.nodes() for gpu in node.gpus]
    lines = drawn(Snapshot(gpus=[gpu, replace(gpu, index=1, used_percent=None)]))
    assert "gpu-1 0 NVIDIA L40S 87 % 18022 of 46068" in lines
    assert "gpu-1 1 NVIDIA L40S 18022 of 46068" in lines


def test_a_name_with_a_tab_stays_in_its_column() -> None:
    (line,) = Snapshot(deployments=[Deployment(name="a\tb\nc", state="ready", replicas="1")]).lines()
    assert line.split("\t") == ["deployment", "a b c", "ready", "1", ""]


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(DashboardUnavailable, match="is not the URL of Ray's dashboard"):
        RayDashboard("http://host:port")
