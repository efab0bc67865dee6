"""The alert rules."""

from tests.chart.rendering import EVERYTHING, one, render


def test_alerts_only_cover_this_release() -> None:
    for rule in one(render(EVERYTHING), "PrometheusRule")["spec"]["groups"][0]["rules"]:
        assert 'namespace="ryla"' in rule["expr"], rule["alert"]
