"""The chart as a whole: made files, lint, every object against Kubernetes' and KubeRay's schemas, the settings inside."""

import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from helm.generate import CHART, MANIFESTS, ROOT, stale
from serve.check import documents, faults
from serve.cli import PRESETS
from serve.config import AppConfig, Limits
from tests.k8s.chart import APIS, PLATFORMS, VALUES, helm, one, render, serve_config

CRDS = Path(os.environ.get("KUBERAY_CRDS", ROOT.parent / "shared" / "kuberay-crds"))


def test_what_is_made_is_fresh() -> None:
    assert [str(path.relative_to(ROOT)) for path in stale()] == []


@pytest.mark.parametrize("file", VALUES, ids=lambda path: path.stem)
def test_every_file_of_values_lints(file: Path) -> None:
    helm("lint", "--strict", str(CHART), "-f", str(file))


def _closed(schema: Any) -> Any:
    """A structural schema that refuses what the API server would silently drop."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
    if (
        "properties" in schema
        and "additionalProperties" not in schema
        and not schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        closed["additionalProperties"] = False
    return closed


@pytest.fixture(scope="module")
def ray_service() -> jsonschema.Draft202012Validator:
    if not CRDS.is_dir():
        pytest.skip(f"no KubeRay CRDs in {CRDS}: name their folder by KUBERAY_CRDS")
    crd = yaml.safe_load((CRDS / "ray.io_rayservices.yaml").read_text())
    (version,) = [v for v in crd["spec"]["versions"] if v["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    closed = _closed(schema["properties"]["spec"])
    return jsonschema.Draft202012Validator({"type": "object", "properties": {"spec": closed}})


@pytest.mark.parametrize("file", VALUES, ids=lambda path: path.stem)
def test_every_object_is_one_that_kubernetes_and_kuberay_know(file: Path, ray_service: jsonschema.Draft202012Validator) -> None:
    for document in render(None, file):
        if document["kind"] == "RayService":
            errors = [f"{'.'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in ray_service.iter_errors(document)]
            assert errors == []
        elif document["apiVersion"] not in APIS:
            kubernetes_validate.validate(document, "1.34", strict=True)
        assert len(document["metadata"]["name"]) <= 63


@pytest.mark.parametrize("file", VALUES, ids=lambda path: path.stem)
def test_the_settings_inside_are_checked_as_a_whole(file: Path) -> None:
    for name, config, service in documents(yaml.safe_dump_all(render(None, file))):
        assert faults(config, service) == [], name


def test_the_default_is_the_production_preset() -> None:
    preset = yaml.safe_load((PRESETS / "production.yaml").read_text())
    assert serve_config(render()) == preset


def test_config_and_deployments_are_laid_over_the_preset() -> None:
    objects = render(
        {
            "config": {
                "limits": {"max_frames": 33, "max_body_bytes": 1000},
                "wan26": {"hardware": {"num_cpus": 0}, "engine": {"warm_up": None, "compile": False}},
            },
            "deployments": {"Wan26": {"autoscaling_config": {"min_replicas": 1}, "max_queued_requests": 5}},
        }
    )
    application = serve_config(objects)["applications"][0]
    settings = AppConfig.model_validate(application["args"])
    assert settings.limits.max_frames == 33
    assert settings.wan26.hardware.num_cpus == 0  # zero and false are values too
    assert settings.wan26.engine.compile is False
    assert settings.wan26.engine.warm_up == ()  # null took the preset's away
    assert settings.wan26.hardware.accelerator_type == "L40S"
    wan26 = next(d for d in application["deployments"] if d["name"] == "Wan26")
    assert (wan26["autoscaling_config"]["min_replicas"], wan26["autoscaling_config"]["max_replicas"]) == (1, 4)
    assert wan26["max_queued_requests"] == 5
    head = one(objects, "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    environment = {e["name"]: e.get("value") for e in head["spec"]["containers"][0]["env"]}
    assert environment["RYLA_MAX_BODY_BYTES"] == "1000"


def test_the_proxys_body_limit_is_the_settings_default() -> None:
    environment = one(render(), "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0][
        "env"
    ]
    assert {"name": "RYLA_MAX_BODY_BYTES", "value": str(Limits().max_body_bytes)} in environment


def test_versions_are_those_that_are_installed() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    constraints = (ROOT / "constraints" / "constraints.txt").read_text().splitlines()
    assert f"ray=={chart['annotations']['ryla/ray-version']}" in constraints
    assert f'version = "{chart["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_each_platform_has_its_file_of_values(platform: str) -> None:
    if platform == "generic":
        return
    values = yaml.safe_load((CHART / f"values-{platform}.yaml").read_text())
    assert values["platform"] == platform


@pytest.mark.parametrize("name", ["production", "demo"])
def test_the_plain_manifests_are_a_kustomization(name: str) -> None:
    folder = MANIFESTS / name
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(kustomization["resources"]) == {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    text = "\n---\n".join((folder / file).read_text() for file in kustomization["resources"])
    assert "helm.sh/hook" not in text
    for _, config, service in documents(text):
        assert faults(config, service) == []
