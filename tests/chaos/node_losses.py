"""A script that loses the nodes of a Ray cluster one by one, each during a video.

    python -m tests.chaos.node_losses FOLDER

The cluster runs on this machine: a head, a node for the ingress, with a proxy of its own, two nodes
for a fake video model, and one for the other models. The state of its head is kept in FOLDER, so
that the head's GCS can be killed and started again. The script prints `LOST` and JSON: what was
lost -> the answers to the requests meanwhile, as ``{"status", "attempts", "seconds"}``; and under
`actors` the classes of all Ray actors.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import ray
import ray._private.state
from ray import serve
from ray.cluster_utils import Cluster

from serve.app import bind
from serve.cli.presets import PRESETS
from serve.cli.service import serve_environment
from serve.config import AppConfig
from serve.models import FACE_SWAPPER, WAN22_GGUF, WAN26
from tests.graph.conftest import Journal, wait_until
from tests.graph.fake_engine import FakeWan26

PORT = 8370
"""The port of the head's proxy. The proxies of the other nodes have the ports after it."""
GPU = "accelerator_type:L40S"
GCS_AWAY_S = 15
STARTS = 5
"""How often the start of a node is tried."""
START_S = 240
"""Seconds that nodes and replicas may take to start on a busy machine."""
REPLICA = f"ServeReplica:lost:{WAN26.deployment}"


@serve.deployment(name=FACE_SWAPPER.deployment)
class NoFaces:
    """Takes the place of the face swapper, which no request here calls."""

    def __init__(self, settings: object, models: object) -> None:
        pass


class Losses:
    """The cluster, and what is done to it."""

    def __init__(self, folder: Path) -> None:
        os.environ.update(serve_environment(PRESETS / "demo.yaml"))
        os.environ["RYLA_TEST_JOURNAL"] = str(folder / "journal.jsonl")
        os.environ.update({"RAY_agent_register_timeout_ms": str(START_S * 1000)})
        self._folder = folder
        self._journal = Journal(folder / "journal.jsonl")
        self._cluster = Cluster()
        _start(self._add_head)
        self._ports = iter(range(PORT + 1, PORT + 100))
        self._nodes: dict[str, Any] = {}
        """Nodes by their ids."""
        self.url = f"http://127.0.0.1:{PORT + 1}"
        self.add_node(ingress=1)
        self._other = self.add_node(**{"accelerator_type:T4": 1})
        for _ in range(2):
            self.add_node(**{GPU: 1})

    def _add_head(self) -> None:
        # A head that did not start may still hold the lock of its folder.
        storage = tempfile.mkdtemp(dir=self._folder)
        os.environ.update({"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": storage})
        self._cluster.add_node(num_cpus=1, include_dashboard=False)

    def add_node(self, **resources: int) -> str:
        """Start a node and return its id."""
        os.environ["RAY_SERVE_WORKER_PROXY_HTTP_PORT"] = str(next(self._ports))
        node = _start(lambda: self._cluster.add_node(num_cpus=1, num_gpus=1, resources=resources))
        self._nodes[node.node_id] = node
        return str(node.node_id)

    def start(self) -> None:
        """Start the application and wait until it answers."""
        ray.init(address=self._cluster.address, namespace="serve", log_to_driver=False)
        serve.start(proxy_location="EveryNode", http_options={"port": PORT})
        place = [{"hardware": {"num_cpus": 0, "num_gpus": 0.4, "accelerator_type": kind}} for kind in ("L40S", "T4")]
        config = AppConfig.model_validate(
            {
                "wan26": place[0],
                "wan22_gguf": place[1],
                "face_swapper": place[1],
                "ingress": {"num_cpus": 0, "resources": {"ingress": 0.1}},
                "runner": {"num_cpus": 0, "resources": {"ingress": 0.1}, "window": 2},
                "wan26_defaults": {"width": 64, "height": 64, "num_frames": 9, "steps": 4},
            }
        )
        fake: Any = FakeWan26
        model = fake.options(num_replicas=2, health_check_period_s=1, max_replicas_per_node=1)
        other = fake.options(name=WAN22_GGUF.deployment)
        serve.run(bind(config, {WAN26: model, WAN22_GGUF: other, FACE_SWAPPER: NoFaces}), name="lost")
        wait_until(lambda: self.video("start", step_s=0)["status"] == 200, START_S)

    def video(self, name: str, step_s: float = 0.4) -> dict[str, Any]:
        """Ask for a video and return what came."""
        start = time.monotonic()
        try:
            response = httpx.post(
                f"{self.url}/wan2.6", json={"prompt": json.dumps({"name": name, "step_s": step_s}), "seed": 1}, timeout=120
            )
        except httpx.TransportError as error:
            return {"status": 0, "error": repr(error)}
        answer = {
            "status": response.status_code,
            "attempts": response.headers.get("x-attempts", "1"),
            "seconds": round(time.monotonic() - start, 1),
        }
        return answer if response.status_code == 200 else {**answer, "text": response.text[:300]}

    def during_a_video(self, name: str, lose: Callable[[], None]) -> list[dict[str, Any]]:
        """Return the answer to a video in whose second step ``lose`` is called."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(self.video, name, 1.0)
            wait_until(lambda: future.done() or self._journal.entries(name, "step"))
            lose()
            print(name, answer := future.result(), file=sys.stderr, flush=True)
            return [answer]

    def nodes_of_model(self) -> dict[str, int]:
        """Return the process id of the model's replica on each node that has one."""
        alive = [actor for actor in _actors() if actor["State"] == "ALIVE" and actor["ActorClassName"] == REPLICA]
        return {actor["Address"]["NodeID"]: actor["Pid"] for actor in alive}

    def remove(self, node: str) -> None:
        """Kill all processes of a node."""
        self._cluster.remove_node(self._nodes[node], allow_graceful=False)

    def remove_other(self) -> None:
        """Kill the node of the other models."""
        self.remove(self._other)

    def remove_model(self, name: str, *, at_work: bool) -> None:
        """Kill the node whose replica works on the video ``name``, or the one whose does not."""
        pid = self._journal.entries(name, "request")[0]["pid"]
        (node,) = [node for node, other in self.nodes_of_model().items() if (other == pid) == at_work]
        self.remove(node)

    def replace_model(self) -> None:
        """Start a node for the replica that is missing, and wait for the replica."""
        self.add_node(**{GPU: 1})
        wait_until(lambda: len(self.nodes_of_model()) == 2, START_S)
        seen: set[int] = set()

        def both_work() -> bool:
            name = f"ready-{time.monotonic()}"
            assert self.video(name, 0)["status"] == 200
            seen.add(self._journal.entries(name, "request")[0]["pid"])
            return len(seen) == 2

        wait_until(both_work, START_S)

    def without_gcs(self) -> list[dict[str, Any]]:
        """Kill the GCS during a video, and return its answer and those until the GCS is back."""
        answers: list[dict[str, Any]] = []

        head: Any = self._cluster.head_node

        def lose() -> None:
            head.kill_gcs_server(check_alive=False)
            deadline = time.monotonic() + GCS_AWAY_S
            while time.monotonic() < deadline:
                answers.append(self.video(f"gcs-{len(answers)}", 0.1))
            head.start_gcs_server()

        return self.during_a_video("gcs", lose) + answers

    def stop(self) -> None:
        """Stop everything."""
        ray.shutdown()
        self._cluster.shutdown()


def _start(node: Callable[[], Any]) -> Any:
    """Return a node that has started.

    Ray gives the processes of a node a fixed time to start, which a busy machine may exceed.
    """
    for _ in range(STARTS - 1):
        try:
            return node()
        except Exception as error:  # Ray has no error of its own for it
            print("a node did not start:", error, file=sys.stderr, flush=True)
    return node()


def _actors() -> list[dict[str, Any]]:
    """Return what the GCS knows of all actors. Ray's public API for it needs the dashboard."""
    return list(ray._private.state.actors().values())


def main() -> None:
    """Run the script."""
    losses = Losses(Path(sys.argv[1]))
    try:
        losses.start()
        lost: dict[str, Any] = {"actors": sorted({actor["ActorClassName"] for actor in _actors()})}
        lost["gcs"] = losses.without_gcs()
        lost["other"] = losses.during_a_video("other", losses.remove_other)
        lost["idle"] = losses.during_a_video("idle", lambda: losses.remove_model("idle", at_work=False))
        losses.replace_model()
        lost["busy"] = losses.during_a_video("busy", lambda: losses.remove_model("busy", at_work=True))
        print("LOST", json.dumps(lost), flush=True)
    finally:
        losses.stop()


if __name__ == "__main__":
    main()
