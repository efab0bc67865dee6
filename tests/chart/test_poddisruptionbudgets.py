"""The PodDisruptionBudgets."""

from tests.chart.rendering import EVERYTHING, groups, one, render


def test_budgets_do_not_block_drains() -> None:
    """With maxUnavailable, no pod of a RayCluster could be evicted: it has no scale subresource."""
    objects = render({"extraWorkerGroups": EVERYTHING["extraWorkerGroups"]})
    assert "unused" not in groups(objects)
    budgets = [o for o in objects if o["kind"] == "PodDisruptionBudget" and o["metadata"]["name"] != "ryla-gateway"]
    assert budgets
    for budget in budgets:
        assert "maxUnavailable" not in budget["spec"]
        labels = budget["spec"]["selector"]["matchLabels"]
        (group,) = [g for g in groups(objects).values() if labels.items() <= g["template"]["metadata"]["labels"].items()]
        assert budget["spec"]["minAvailable"] < group["minReplicas"]
    assert len(budgets) == len([g for g in groups(objects).values() if g["minReplicas"] > 1])


def test_the_gateway_has_a_budget_if_it_has_a_spare_pod() -> None:
    assert one(render(), "PodDisruptionBudget", "ryla-gateway")["spec"]["maxUnavailable"] == 1
    single = render({"gateway": {"replicas": 1}})
    assert "ryla-gateway" not in [o["metadata"]["name"] for o in single if o["kind"] == "PodDisruptionBudget"]
