"""Files of the chart that need neither Helm nor Ray to be checked."""

import pytest
import yaml

from helm.generator.paths import CHART, ROOT
from tests.chart.rendering import PLATFORMS


def test_the_chart_has_the_versions_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    constraints = (ROOT / "constraints" / "constraints.txt").read_text().splitlines()
    assert f"ray=={chart['annotations']['ryla/ray-version']}" in constraints
    assert f'version = "{chart["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_each_platform_has_a_values_file(platform: str) -> None:
    if platform == "generic":
        return
    values = yaml.safe_load((CHART / f"values-{platform}.yaml").read_text())
    assert values["platform"] == platform


def test_every_alert_is_documented() -> None:
    rules = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    operations = (ROOT / "docs" / "operations.md").read_text()
    assert len(alerts) >= 6
    assert [alert for alert in alerts if f"`{alert}`" not in operations] == []
