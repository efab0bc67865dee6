"""Every object against the schemas of Kubernetes and KubeRay."""

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from helm.generator.paths import CHART
from tests.chart.rendering import APIS, CRDS, VALUES, helm, render


@pytest.mark.parametrize("file", VALUES, ids=lambda path: path.stem)
def test_every_values_file_passes_lint(file: Path) -> None:
    helm("lint", "--strict", str(CHART), "-f", str(file))


def _closed(schema: Any) -> Any:
    """Return a structural schema that refuses fields which the API server would silently drop."""
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
    if CRDS is None:
        pytest.skip("KUBERAY_CRDS is not set: it names a folder with KubeRay's CRDs")
    crd = yaml.safe_load((CRDS / "ray.io_rayservices.yaml").read_text())
    (version,) = [v for v in crd["spec"]["versions"] if v["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    closed = _closed(schema["properties"]["spec"])
    return jsonschema.Draft202012Validator({"type": "object", "properties": {"spec": closed}})


@pytest.mark.parametrize("file", VALUES, ids=lambda path: path.stem)
def test_every_object_matches_its_schema(file: Path, ray_service: jsonschema.Draft202012Validator) -> None:
    for document in render(None, file):
        if document["kind"] == "RayService":
            errors = [f"{'.'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in ray_service.iter_errors(document)]
            assert errors == []
        elif document["apiVersion"] not in APIS:
            kubernetes_validate.validate(document, "1.34", strict=True)
        assert len(document["metadata"]["name"]) <= 63
