"""A local Ray for all tests of this folder, with the demo at / and fake_engine.py at /fake."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
import yaml

from demo.face_models import face_models
from deployments.faces.analysis import OpenCVAnalyser
from deployments.settings import FaceSettings
from serve.cli.presets import PRESETS
from serve.cli.service import running
from serve.models import MODELS, WAN22_GGUF, WAN26

ROOT = Path(__file__).parents[2]
PORT = 8123


def wait_until(condition: Callable[[], Any], timeout_s: float = 60) -> Any:
    """Wait until ``condition`` returns a true value, and return that value."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.1)


@dataclass
class Journal:
    """The journal in which the fake engine writes what it does."""

    path: Path

    def entries(self, name: str | None = None, kind: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []
        return [e for e in lines if name in (None, e["name"]) and kind in (None, e["kind"])]


@dataclass
class Service:
    """The running Ray Serve applications: the demo and the fake engine's."""

    url: str
    config: dict[str, Any]
    config_path: Path
    journal: Journal
    temporary: Path

    @property
    def fake(self) -> str:
        return f"{self.url}/fake"

    def deploy(self, config: dict[str, Any]) -> None:
        """Deploy ``config`` as `serve deploy` does."""
        self.config_path.write_text(yaml.safe_dump(config))
        subprocess.run(["serve", "deploy", str(self.config_path)], check=True, env=_environment(), capture_output=True)

    def temporary_files(self) -> set[Path]:
        """Return what the service has in its folder of temporary files."""
        return set(self.temporary.iterdir())

    def replicas(self, app: str, deployment: str) -> dict[str, int]:
        """Return the process id of each living replica, by its actor id."""
        from ray.util.state import list_actors

        name = f"ServeReplica:{app}:{deployment}"
        actors = list_actors(filters=[("class_name", "=", name), ("state", "=", "ALIVE")], detail=True)
        return {actor.actor_id: actor.pid for actor in actors if actor.pid is not None}


def _environment() -> dict[str, str]:
    return {**os.environ, "RAY_ADDRESS": "auto", "RAY_DASHBOARD_ADDRESS": "http://127.0.0.1:8265"}


UNSIGNED = {"c2pa": {"enabled": False}, "watermark": {"enabled": False}}
"""Settings of provenance for tests that compare bytes, or pixels of different requests: a signature
differs each time, and a watermark from request to request."""


SHORT = {"width": 128, "height": 128, "num_frames": 5, "steps": 6, "cfg": 3}
"""Defaults of videos with which the demo's models do what is asked here, in half of the steps.

Five frames are two chunks. `ryla demo` and `ryla smoke` make videos of the demo's own defaults.
"""


ONE_THREAD = {"threads": 1}
"""Settings of an engine: the threads of an engine wait for each other in busy loops, and the cores
are shared with the other parts of `make test`."""


def demo_config(port: int) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((PRESETS / "demo.yaml").read_text())
    config["http_options"]["port"] = port
    args = config["applications"][0]["args"]
    args.update(provenance=UNSIGNED, wan26_defaults=SHORT, wan22_defaults=SHORT)
    for model in MODELS:
        args[model.setting]["engine"] = ONE_THREAD
    return config


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    config = demo_config(PORT)
    (demo,) = config["applications"]
    demo["args"]["wan26"]["hardware"]["price_usd_per_hour"] = 3.6
    demo["args"]["ingress"]["cors_origins"] = ["https://example.org"]
    demo["args"]["jobs"] = {"folder": str(folder / "jobs-demo")}
    fake_args = {
        **{model.setting: {"hardware": {"num_cpus": 0.05}, "engine": ONE_THREAD} for model in MODELS},
        "ingress": {"num_cpus": 0.05},
        "runner": {"num_cpus": 0.05, "window": 3},
        "wan26_defaults": {"width": 192, "height": 224, "num_frames": 17, "steps": 4},
        "limits": {"max_frames": 201, "request_timeout_s": 300},
        "jobs": {"folder": str(folder / "jobs-fake"), "lease_s": 3, "max_attempts": 6},
        "provenance": UNSIGNED,
    }
    scale = {"min_replicas": 0, "max_replicas": 1, "target_ongoing_requests": 1, "upscale_delay_s": 0, "downscale_delay_s": 600}
    config["applications"].append(
        {
            "name": "fake",
            "route_prefix": "/fake",
            "import_path": "tests.graph.fake_engine:build",
            "args": fake_args,
            "deployments": [
                {"name": WAN26.deployment, "max_ongoing_requests": 1, "max_queued_requests": 1, "autoscaling_config": scale},
                {"name": WAN22_GGUF.deployment, "autoscaling_config": scale},
            ],
        }
    )
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    journal = Journal(folder / "journal.jsonl")
    os.environ["RYLA_TEST_JOURNAL"] = str(journal.path)
    os.environ["PYTHONPATH"] = str(ROOT)
    # The service has a folder of temporary files of its own, where the tests find what it leaves.
    # Ray keeps its sockets elsewhere, since their paths must be short.
    temporary = folder / "temporary"
    temporary.mkdir()
    os.environ.setdefault("RAY_TMPDIR", "/tmp")
    os.environ["TMPDIR"] = str(temporary)
    # The tests connect to Ray from this process, which Ray expects at the address of the machine.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
    with running(path, folder / "serve.log") as client:
        url = client.url
        wait_until(lambda: is_healthy(f"{url}/fake"), 120)
        ray.init(address="auto", namespace="serve", log_to_driver=False)
        yield Service(url=url, config=config, config_path=path, journal=journal, temporary=temporary)
        ray.shutdown()


def is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def analyser() -> OpenCVAnalyser:
    """The demo's face analyser, to look at answers with."""
    models = face_models()
    return OpenCVAnalyser(models.detector, models.recogniser, FaceSettings())


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(timeout=120) as client:
        yield client
