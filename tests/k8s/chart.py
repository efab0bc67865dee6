"""The chart, rendered."""

import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from helm.generate import CHART, KUBERNETES

Json = dict[str, Any]
PLATFORMS = ("generic", "gke", "eks-karpenter", "gfd")
VALUES = sorted([*CHART.glob("values-*.yaml"), *(CHART / "ci").glob("*.yaml")])
"""Every file of values that comes with the chart."""
APIS = ("monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1")


class Refused(Exception):
    """What helm said."""


def helm(*arguments: str, text: str | None = None) -> str:
    """Standard output; raises Refused."""
    done = subprocess.run(["helm", *arguments], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stdout + done.stderr)
    return done.stdout


def render(values: Json | None = None, *files: Path, hooks: bool = True) -> list[Json]:
    """The objects that an install makes; with tests and hooks unless told otherwise."""
    return _render(json.dumps(values or {}), files, hooks)


@cache
def _render(values: str, files: tuple[Path, ...], hooks: bool) -> list[Json]:
    options = [part for file in files for part in ("-f", str(file))]
    command = ["template", "ryla", str(CHART), "--namespace", "ryla", "--kube-version", KUBERNETES, *options, "-f", "-"]
    command += [part for api in APIS for part in ("--api-versions", api)]
    text = helm(*command, *([] if hooks else ["--no-hooks"]), text=values)
    return [document for document in yaml.safe_load_all(text) if document]


def one(objects: list[Json], kind: str, name: str | None = None) -> Json:
    """The object of a kind; raises ValueError unless there is exactly one."""
    (found,) = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    return found


def pod_templates(objects: list[Json]) -> Iterator[tuple[str, Json]]:
    """Name, and metadata and spec, of every kind of pod that the objects make."""
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
    """The worker groups by name."""
    return {g["groupName"]: g for g in one(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]}


def serve_config(objects: list[Json]) -> Json:
    """What the RayService gives to Serve."""
    config: Json = yaml.safe_load(one(objects, "RayService")["spec"]["serveConfigV2"])
    return config
