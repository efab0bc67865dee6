"""Checks of the chart that need neither Helm nor Ray."""

from typing import get_args

import pytest
import yaml

from helm.generator.paths import CHART, ROOT
from helm.generator.pods import WorkerGroup, WorkerGroups
from helm.generator.values import ChartValues
from serve.models import MODELS, Model

PLATFORMS = get_args(ChartValues.model_fields["platform"].annotation)


def test_the_chart_has_the_versions_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    constraints = (ROOT / "constraints" / "constraints.txt").read_text().splitlines()
    assert f"ray=={chart['annotations']['ryla/ray-version']}" in constraints
    assert f'version = "{chart["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()


def test_every_platform_has_its_node_labels() -> None:
    assert set(yaml.safe_load((CHART / "files" / "platforms.yaml").read_text())) == set(PLATFORMS)


@pytest.mark.parametrize("platform", [platform for platform in PLATFORMS if platform != "generic"])
def test_each_platform_has_a_values_file(platform: str) -> None:
    values = yaml.safe_load((CHART / f"values-{platform}.yaml").read_text())
    assert values["platform"] == platform


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_has_a_worker_group_with_its_accelerator(model: Model) -> None:
    groups: list[WorkerGroup] = [getattr(WorkerGroups(), name) for name in WorkerGroups.model_fields]
    assert model.accelerator in [group.accelerator for group in groups if group.gpus]


def test_every_alert_is_documented() -> None:
    rules = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    operations = (ROOT / "docs" / "operations.md").read_text()
    assert len(alerts) >= 6
    assert [alert for alert in alerts if f"`{alert}`" not in operations] == []
