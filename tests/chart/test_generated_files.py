"""The files that `make chart` generates."""

import pytest
import yaml

from helm.generator.generate import stale
from helm.generator.paths import MANIFESTS, ROOT
from serve.check import documents, faults


def test_generated_files_are_up_to_date() -> None:
    assert [str(path.relative_to(ROOT)) for path in stale()] == []


@pytest.mark.parametrize("name", ["production", "demo"])
def test_the_plain_manifests_are_a_kustomization(name: str) -> None:
    folder = MANIFESTS / name
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(kustomization["resources"]) == {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    text = "\n---\n".join((folder / file).read_text() for file in kustomization["resources"])
    assert "helm.sh/hook" not in text
    for _, config, service in documents(text):
        assert faults(config, service) == []
