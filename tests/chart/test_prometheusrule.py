"""The alert rules."""

from tests.chart.rendering import EVERYTHING, one, render


def test_alerts_only_cover_this_release_and_name_it() -> None:
    for rule in one(render(EVERYTHING), "PrometheusRule")["spec"]["groups"][0]["rules"]:
        assert 'namespace="ryla"' in rule["expr"], rule["alert"]
        assert rule["labels"]["release"] == "ryla", rule["alert"]


def test_the_memory_of_the_head_has_an_alert_of_its_own() -> None:
    rules = {rule["alert"]: rule for rule in one(render(EVERYTHING), "PrometheusRule")["spec"]["groups"][0]["rules"]}
    assert 'ray_io_group="headgroup"' in rules["RylaHeadMemory"]["expr"]
    assert rules["RylaHeadMemory"]["labels"]["severity"] == "critical"
