"""`mode: pod`: everything in one pod, without an operator."""

from typing import Any

import pytest
import yaml

from helm.generator.paths import CHART
from serve.cli.config_check import model_paths
from serve.config import AppConfig
from tests.chart.rendering import Json, Refused, one, render


def test_it_needs_no_operator() -> None:
    objects = render({"mode": "pod", "preset": "demo"})
    assert not [o for o in objects if o["apiVersion"].startswith("ray.io")]
    service = one(objects, "Service", "ryla-serve-svc")
    labels: Any = one(objects, "Deployment", "ryla")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    config = yaml.safe_load(one(objects, "ConfigMap", "ryla-config")["data"]["serve.yaml"])
    assert config["http_options"]["host"] == "0.0.0.0"
    assert config["applications"][0]["args"]["models"] == "demo"


@pytest.mark.parametrize(
    "values",
    [{"preset": "production"}, {"preset": "demo", "config": {"ingress": {"num_cpus": 2, "resources": {"ingress": 1}}}}],
)
def test_the_ingress_requests_no_custom_resources(values: Json) -> None:
    """Only worker groups declare them: the ingress would never be scheduled."""
    objects = render({"mode": "pod", **values})
    config = yaml.safe_load(one(objects, "ConfigMap", "ryla-config")["data"]["serve.yaml"])
    ingress = config["applications"][0]["args"]["ingress"]
    assert "num_cpus" in ingress
    assert "resources" not in ingress


def test_one_large_gpu_has_enough_memory_and_time_for_all_models() -> None:
    objects = render(None, CHART / "values-single-gpu.yaml")
    spec = one(objects, "Deployment", "ryla")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    proportion = next(e["value"] for e in container["env"] if e["name"] == "RAY_DEFAULT_OBJECT_STORE_MEMORY_PROPORTION")
    memory = int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
    (shm,) = [v for v in spec["volumes"] if v["name"] == "shm"]
    assert memory * float(proportion) <= int(shm["emptyDir"]["sizeLimit"].removesuffix("Gi")), (
        "Ray would spill the rest to disk"
    )
    probe = container["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == 1800
    (mount,) = [m for m in container["volumeMounts"] if m["name"] == "models"]
    assert mount["mountPath"] == "/models"
    config = yaml.safe_load(one(objects, "ConfigMap", "ryla-config")["data"]["serve.yaml"])
    assert all(
        str(path).startswith("/models/") for _, path in model_paths(AppConfig.model_validate(config["applications"][0]["args"]))
    )


def test_the_pod_restarts_once_the_application_has_not_answered_for_two_minutes() -> None:
    """Serve's own /-/healthz says 200 even when the raylet has died."""
    (container,) = one(render({"mode": "pod", "preset": "demo"}), "Deployment", "ryla")["spec"]["template"]["spec"][
        "containers"
    ]
    probe = container["livenessProbe"]
    assert probe["httpGet"] == {"path": "/healthz", "port": "serve"}
    assert probe["periodSeconds"] * probe["failureThreshold"] == 120
    assert container["startupProbe"]["httpGet"]["path"] == "/healthz", "it must not restart a pod that still starts"


@pytest.mark.parametrize("values", [{"metrics": {"rules": True}}, {"metrics": {"podMonitor": True}}])
def test_unsupported_values_are_refused(values: Json) -> None:
    with pytest.raises(Refused, match="mode: pod does not support"):
        render({"mode": "pod", "preset": "demo", **values})
