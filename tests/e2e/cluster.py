"""A namespace of the Kubernetes cluster that KUBECONFIG names, controlled by kubectl and helm."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "ryla-serve"
VALUES = Path(__file__).parent / "values.yaml"

Json = dict[str, Any]


def run(*command: str, text: str | None = None, timeout_s: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program; with ``check``, raise AssertionError with its output if it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Wait until ``condition`` returns something true, and return that."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"timed out after {timeout_s:g} s waiting for: {what}"
        time.sleep(1)


@dataclass(frozen=True)
class Cluster:
    """One namespace of a cluster, and the image under test."""

    namespace: str
    image: str

    def kubectl(self, *arguments: str, text: str | None = None, timeout_s: float = 120, check: bool = True) -> str:
        """Run kubectl in the namespace and return its standard output."""
        return run("kubectl", "-n", self.namespace, *arguments, text=text, timeout_s=timeout_s, check=check).stdout

    def get(self, *arguments: str) -> Any:
        """Return an object or a list, parsed."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def pods(self, selector: str) -> list[Json]:
        """Return the pods that are not being deleted."""
        return [p for p in self.get("pods", "-l", selector)["items"] if "deletionTimestamp" not in p["metadata"]]

    def ready_pods(self, selector: str) -> list[Json]:
        """Return the pods that are ready and not being deleted."""
        return [
            p
            for p in self.pods(selector)
            if any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))
        ]

    def secret(self, name: str, **values: str) -> None:
        """Create or change a Secret."""
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}
        self.kubectl("apply", "-f", "-", text=json.dumps(secret))

    def helm(
        self, *arguments: str, values: Json | None = None, timeout_s: float = 900, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run helm with the tests' values and image, and ``values`` merged over them."""
        repository, _, tag = self.image.rpartition(":")
        image = {"image": {"repository": repository, "tag": tag, "pullPolicy": "Never"}}
        redis = os.environ.get("RYLA_E2E_REDIS_IMAGE")
        own: Json = {"faultTolerance": {"own": {"image": redis}}} if redis else {}
        if nginx := os.environ.get("RYLA_E2E_GATEWAY_IMAGE"):
            own["gateway"] = {"image": nginx}
        files = ["-f", str(VALUES), "-f", "/dev/stdin"]
        text = json.dumps(merged(merged(image, own), values or {}))
        command = ["helm", "-n", self.namespace, *arguments, *files, "--timeout", f"{int(timeout_s)}s"]
        done = run(*command, text=text, timeout_s=timeout_s + 60, check=False)
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stderr}\n{self.state()}"
        return done

    def state(self) -> str:
        """Describe the pods, containers (with their last log lines), nodes and events."""
        lines = []
        for pod in self.get("pods")["items"]:
            name = pod["metadata"]["name"]
            lines.append(f"pod {name}: {pod['status']['phase']}")
            unmet = [c for c in pod["status"].get("conditions", []) if c["status"] != "True"]
            lines += [f"- not {c['type']}: {c.get('reason')}: {c.get('message')}" for c in unmet]
            for container in [*pod["status"].get("initContainerStatuses", []), *pod["status"].get("containerStatuses", [])]:
                lines.append(f"- {container['name']}: {container['state']}, {container['restartCount']} restarts")
                for previous in ("--previous",) * bool(container["restartCount"]), ():
                    log = self.kubectl("logs", name, "-c", container["name"], "--tail=12", *previous, check=False)
                    lines += [f"  {line[:160]}" for line in log.splitlines()]
        for node in self.get("nodes")["items"]:
            lines.append(f"node {node['metadata']['name']}: allocatable {node['status']['allocatable']}")
            lines += [f"- {c['type']}={c['status']}: {c['message']}" for c in node["status"]["conditions"]]
        events = self.kubectl("get", "events", "--sort-by=.lastTimestamp", "--no-headers", check=False)
        return "\n".join([*lines, *(line[:240] for line in events.splitlines()[-16:])])

    def python(self, name: str, script: str, *arguments: str, key: str | None = None, claim: str | None = None) -> None:
        """Start a pod that runs a Python script in the service's image.

        The volume of ``claim`` is mounted at /shared.
        """
        self.kubectl("delete", "pod", name, "--ignore-not-found", "--wait", "--grace-period=0", "--force", check=False)
        environment = [{"name": "HOME", "value": "/tmp"}]
        if key is not None:
            environment.append({"name": "RYLA_API_KEY", "value": key})
        mounts, volumes = [{"name": "tmp", "mountPath": "/tmp"}], [{"name": "tmp", "emptyDir": {}}]
        if claim is not None:
            mounts.append({"name": "shared", "mountPath": "/shared"})
            volumes.append({"name": "shared", "persistentVolumeClaim": {"claimName": claim}})
        container = {
            "name": "python",
            "image": self.image,
            "imagePullPolicy": "Never",
            "command": ["python3", "-c", script, *arguments],
            "env": environment,
            # Without a request, a busy node gives it next to no time, and its calls look slow.
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": mounts,
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "caller"}},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 1,
                "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [container],
                "volumes": volumes,
            },
        }
        self.kubectl("apply", "-f", "-", text=json.dumps(pod))

    def phase(self, name: str) -> str:
        """Return the phase of a pod."""
        return str(self.get("pod", name)["status"]["phase"])

    def result(self, name: str, timeout_s: float) -> Json:
        """Wait until a script has ended and return its last line of output, parsed as JSON."""
        wait_until(lambda: self.phase(name) in ("Succeeded", "Failed"), timeout_s, f"the end of pod {name}")
        lines = self.kubectl("logs", name).strip().splitlines()
        assert lines, f"{name} printed nothing"
        assert self.phase(name) == "Succeeded", lines[-5:]
        result: Json = json.loads(lines[-1])
        return result


def merged(base: Json, over: Json) -> Json:
    """Return ``base`` with ``over`` merged into it, map by map."""
    result = dict(base)
    for key, value in over.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
    return result
