"""Everything in one pod, without an operator."""

from typing import Any

import pytest
import yaml

from tests.k8s.chart import Json, one, render


def test_one_pod_mode_needs_no_operator() -> None:
    objects = render({"mode": "pod", "preset": "demo"})
    assert not [o for o in objects if o["apiVersion"].startswith("ray.io")]
    service = one(objects, "Service")
    labels: Any = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    config = yaml.safe_load(one(objects, "ConfigMap", "ryla-config")["data"]["serve.yaml"])
    assert config["http_options"]["host"] == "0.0.0.0"
    assert config["applications"][0]["args"]["models"] == "demo"


@pytest.mark.parametrize(
    "values",
    [{"preset": "production"}, {"preset": "demo", "config": {"ingress": {"num_cpus": 2, "resources": {"ingress": 1}}}}],
)
def test_the_ingress_asks_for_no_resource_that_only_a_worker_group_declares(values: Json) -> None:
    """No node of the Ray in that pod would ever have it, and the service would never be ready."""
    objects = render({"mode": "pod", **values})
    config = yaml.safe_load(one(objects, "ConfigMap", "ryla-config")["data"]["serve.yaml"])
    ingress = config["applications"][0]["args"]["ingress"]
    assert "num_cpus" in ingress
    assert "resources" not in ingress
