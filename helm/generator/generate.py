"""Writes what is made from `values.py`, the settings and the presets: `python -m helm.generate`; `--check` says what is stale."""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from ray.serve.schema import DeploymentSchema

from helm.dashboards import DASHBOARDS, grafana
from helm.pods import WorkerGroup
from helm.values import ChartValues
from serve.config import AppConfig
from serve.readiness import MODELS

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "ryla-serve"
PRESETS = ROOT / "serve" / "presets"
MANIFESTS = ROOT / "k8s"
WIDTH = 130
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
VALUES = {"production": "values-gfd.yaml", "demo": "values-demo.yaml"}
"""Of the plain manifests: folder in k8s/ -> values."""
KUBERNETES = "1.34.0"
"""What manifests are rendered for."""

Json = dict[str, Any]


def values_yaml() -> str:
    """values.yaml, with helm-docs' comments."""
    head = "# Made from helm/values.py by `make chart`: change it there. Every value, its type and its default: README.md.\n"
    return head + "\n".join(_lines(ChartValues(), ""))


def _lines(model: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(model).model_fields.items():
        value, key = getattr(model, name), field.alias or name
        text = textwrap.wrap(field.description or "", WIDTH - len(indent))
        if not indent:
            yield ""
        yield from (f"{indent}# {'-- ' if number == 0 else ''}{line}" for number, line in enumerate(text))
        if isinstance(value, BaseModel):
            yield f"{indent}{key}:"
            yield from _lines(value, f"{indent}  ")
        else:
            plain = json.dumps(value, default=lambda v: v.model_dump(by_alias=True))
            yield f"{indent}{key}: {plain}"


def values_schema() -> Json:
    """values.schema.json: strict, with the settings' own schema for `config` and Serve's for `deployments`."""
    schema = ChartValues.model_json_schema(by_alias=True)
    settings, deployment = AppConfig.model_json_schema(), DeploymentSchema.model_json_schema()
    schema["$defs"] |= {f"AppConfig.{name}": value for name, value in settings.pop("$defs").items()}
    schema["$defs"] |= {f"Serve.{name}": value for name, value in deployment.pop("$defs").items()}
    deployment["properties"].pop("name")  # the key says it
    deployment.pop("required")
    _strict_deployment(deployment)
    schema["properties"]["config"] |= _named(_partial(settings), "AppConfig")
    one = _named(deployment, "Serve")
    schema["properties"]["deployments"] |= {
        "additionalProperties": False,
        "properties": dict.fromkeys(("Ingress", *MODELS.values()), one),
    }
    schema["$defs"] = {name: _definition(name, value) for name, value in schema["$defs"].items()}
    schema["properties"]["global"] = {"type": "object", "description": "Helm's own."}
    tidied: Json = _tidy({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    return tidied


def _definition(name: str, value: Json) -> Json:
    owner = name.partition(".")[0]
    if owner == "AppConfig":
        named: Json = _named(_partial(value), owner)
        return named
    if name == "Serve.AutoscalingConfig":
        value["additionalProperties"] = False
    return _named(value, owner) if owner == "Serve" else value


def _strict_deployment(schema: Json) -> None:
    """Serve takes any object where its own class is meant too; the chart takes the class."""
    schema["additionalProperties"] = False
    scale = schema["properties"]["autoscaling_config"]
    scale["anyOf"] = [kind for kind in scale["anyOf"] if "additionalProperties" not in kind]


def _partial(schema: Json) -> Json:
    """Values are laid over a preset: nothing is required, and null takes the preset's away."""
    properties = {
        name: {"description": value.get("description", ""), "anyOf": [value, {"type": "null"}]}
        for name, value in schema.get("properties", {}).items()
    }
    return {key: value for key, value in schema.items() if key != "required"} | (
        {"properties": properties} if properties else {}
    )


def _named(value: Any, owner: str) -> Any:
    """With references to the definitions of ``owner``."""
    if isinstance(value, dict):
        return {
            key: item.replace("#/$defs/", f"#/$defs/{owner}.")
            if key == "$ref" and f"/{owner}." not in item
            else _named(item, owner)
            for key, item in value.items()
        }
    return [_named(item, owner) for item in value] if isinstance(value, list) else value


def _tidy(value: Any, *, names: bool = False) -> Any:
    """Without pydantic's titles and without defaults: values.yaml has those. ``names``: the keys are names of properties."""
    if isinstance(value, dict):
        return {
            key: _tidy(item, names=key in ("properties", "$defs") and not names)
            for key, item in value.items()
            if names or key not in ("title", "default")
        }
    return [_tidy(item) for item in value] if isinstance(value, list) else value


def readme() -> str:
    """The chart's README, by helm-docs."""
    with tempfile.TemporaryDirectory() as folder:
        chart = Path(folder) / "ryla-serve"
        shutil.copytree(CHART, chart)
        (chart / "values.yaml").write_text(values_yaml())
        subprocess.run(
            ["helm-docs", "--chart-search-root", folder, "--log-level", "error", "--sort-values-order", "file"], check=True
        )
        return (chart / "README.md").read_text()


def manifests(name: str) -> dict[str, str]:
    """File -> text of the plain manifests in k8s/NAME: the chart's objects without hooks, a file a kind, and a kustomization."""
    command = ["helm", "template", "ryla", str(CHART), "--namespace", "ryla", "--no-hooks", "--kube-version", KUBERNETES]
    command += ["-f", str(CHART / VALUES[name]), "--set", "preflight.enabled=false,rollout.enabled=false"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kinds: dict[str, list[Json]] = {}
    for document in yaml.safe_load_all(text):
        if document:
            _strip_helm(document)
            kinds.setdefault(document["kind"].lower(), []).append(document)
    note = f"# Made from the chart by `make chart`: helm template ryla helm/ryla-serve -f helm/ryla-serve/{VALUES[name]}\n"
    kinds["namespace"] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ryla", "labels": RESTRICTED}}]
    files = {f"{kind}.yaml": note + _dump(found) for kind, found in sorted(kinds.items())}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "ryla",
        "resources": [*sorted(files)],
    }
    return {"kustomization.yaml": note + _dump([kustomization])} | files


def _strip_helm(document: Json) -> None:
    if "serveService" in document.get("spec", {}):
        _strip_helm(document["spec"]["serveService"])
    labels = document["metadata"].get("labels", {})
    labels.pop("helm.sh/chart", None)
    if labels.get("app.kubernetes.io/managed-by") == "Helm":
        labels["app.kubernetes.io/managed-by"] = "kustomize"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _dump(documents: list[Json]) -> str:
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=WIDTH)


def outputs() -> Iterator[tuple[Path, Callable[[], str]]]:
    """Every made file and how it is made, in an order in which each finds what it needs."""
    for preset in sorted(PRESETS.glob("*.yaml")):
        yield CHART / "files" / "presets" / preset.name, preset.read_text
    for dashboard in DASHBOARDS:
        text = json.dumps(grafana(dashboard), indent=1) + "\n"
        yield CHART / "files" / "dashboards" / f"{dashboard.name}.json", lambda text=text: text  # type: ignore[misc]
    group = WorkerGroup().model_dump(by_alias=True)
    yield CHART / "files" / "worker-group.yaml", lambda: "# What an extra worker group has by default.\n" + _dump([group])
    yield CHART / "values.yaml", values_yaml
    yield CHART / "values.schema.json", lambda: json.dumps(values_schema(), indent=1) + "\n"
    yield CHART / "README.md", readme


def all_files() -> Mapping[Path, str]:
    """Path -> what should stand there; manifests are rendered from the chart as it lies on disk."""
    files = {path: make() for path, make in outputs()}
    for name in VALUES:
        files |= {MANIFESTS / name / file: text for file, text in manifests(name).items()}
    return files


def stale() -> list[Path]:
    """Made files that are not what they should be."""
    wanted = all_files()
    wrong = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    return wrong + [path for name in VALUES for path in (MANIFESTS / name).glob("*") if path not in wanted]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something is stale")
    if parser.parse_args().check:
        for path in (wrong := stale()):
            print(f"{path.relative_to(ROOT)} is stale: run `make chart`", file=sys.stderr)
        raise SystemExit(1 if wrong else 0)
    for path, make in outputs():  # the chart first: the manifests are rendered from it
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make())
    for name in VALUES:
        shutil.rmtree(MANIFESTS / name, ignore_errors=True)
        (MANIFESTS / name).mkdir(parents=True)
        for file, text in manifests(name).items():
            (MANIFESTS / name / file).write_text(text)


if __name__ == "__main__":
    main()
