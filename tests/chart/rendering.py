"""Renders the chart, and finds objects in the result."""

import json
import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from helm.generator.manifests import KUBERNETES
from helm.generator.paths import CHART

Json = dict[str, Any]
VALUES = sorted([*CHART.glob("values-*.yaml"), *(CHART / "ci").glob("*.yaml")])
"""Every values file that comes with the chart."""
APIS = ("monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1")
"""The APIs that the chart uses besides those of Kubernetes and KubeRay."""
EVERYTHING: Json = yaml.safe_load((CHART / "ci" / "everything-values.yaml").read_text())
"""Values that enable every optional feature."""
REQUIRED = CHART / "ci" / "default-values.yaml"
"""The file of values without which nothing is installed."""
CRDS = Path(os.environ["KUBERAY_CRDS"]) if os.environ.get("KUBERAY_CRDS") else None
"""The folder with KubeRay's CRDs, if set: helm-chart/kuberay-operator/crds in its repository."""


class Refused(Exception):
    """Helm refused the values; the message is its output."""


def helm(*arguments: str, text: str | None = None) -> str:
    """Run helm and return its standard output; raises Refused if it fails."""
    done = subprocess.run(["helm", *arguments], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stdout + done.stderr)
    return done.stdout


def render(values: Json | None = None, *files: Path, hooks: bool = True) -> list[Json]:
    """Return the objects of a release named ryla, with its hooks and tests if ``hooks``.

    Without ``files``, ``values`` are merged over those that an installation must set.
    """
    return _render(json.dumps(values or {}), files or (REQUIRED,), hooks)


@cache
def _render(values: str, files: tuple[Path, ...], hooks: bool) -> list[Json]:
    options = [part for file in files for part in ("-f", str(file))]
    command = ["template", "ryla", str(CHART), "--namespace", "ryla", "--kube-version", KUBERNETES, *options, "-f", "-"]
    command += [part for api in APIS for part in ("--api-versions", api)]
    text = helm(*command, *([] if hooks else ["--no-hooks"]), text=values)
    # PyYAML's own parser would take longer than helm.
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


def one(objects: list[Json], kind: str, name: str | None = None) -> Json:
    """Return the object of a kind (and name); raises ValueError unless there is exactly one."""
    (found,) = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    return found


def pod_templates(objects: list[Json]) -> Iterator[tuple[str, Json]]:
    """Yield the name and the template (metadata, spec) of every pod that the objects create."""
    for o in objects:
        name = f"{o['kind']} {o['metadata']['name']}"
        match o["kind"]:
            case "RayService":
                cluster = o["spec"]["rayClusterConfig"]
                yield f"{name}: head", cluster["headGroupSpec"]["template"]
                for group in cluster["workerGroupSpecs"]:
                    yield f"{name}: {group['groupName']}", group["template"]
            case "Deployment" | "StatefulSet" | "Job":
                yield name, o["spec"]["template"]
            case "Pod":
                yield name, o


def groups(objects: list[Json]) -> dict[str, Json]:
    """Return the worker groups by name."""
    return {g["groupName"]: g for g in one(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]}


def declared_resources(group: Json) -> dict[str, str]:
    """Return the Ray resources that a worker group declares for one pod."""
    resources: dict[str, str] = group["resources"]
    return resources


def serve_config(objects: list[Json]) -> Json:
    """Return the Serve config of the RayService."""
    config: Json = yaml.safe_load(one(objects, "RayService")["spec"]["serveConfigV2"])
    return config
