"""The RayService: its head, autoscaler and worker groups."""

import pytest
import yaml

from helm.generator.paths import CHART
from tests.chart.rendering import Json, declared_resources, groups, one, pod_templates, render


def test_the_head_runs_no_replicas() -> None:
    assert one(render(), "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_each_group_declares_the_resources_it_scales_from_zero_for() -> None:
    """Ray's autoscaler only knows the `resources` of a group without pods.

    KubeRay refuses a group that sets them in rayStartParams as well.
    """
    declared = {name: declared_resources(group) for name, group in groups(render()).items()}
    assert declared == {
        "cpu": {"CPU": "4", "ingress": "1"},
        "l40s": {"CPU": "4", "GPU": "1", "accelerator_type:L40S": "1"},
        "a100-80g": {"CPU": "4", "GPU": "1", "accelerator_type:A100-80G": "1", "accelerator_type:A100": "1"},
    }
    for group in groups(render()).values():
        assert not {"num-cpus", "num-gpus", "memory", "resources"} & set(group["rayStartParams"])
    assert groups(render())["l40s"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in groups(render())["cpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_the_autoscaler_is_v2_and_gpu_groups_start_at_zero() -> None:
    spec = one(render(), "RayService")["spec"]["rayClusterConfig"]
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert {name: group["minReplicas"] for name, group in groups(render()).items()} == {"cpu": 2, "l40s": 0, "a100-80g": 0}


def test_the_object_store_is_in_memory() -> None:
    """Ray writes to disk what does not fit into /dev/shm."""
    cluster = one(render(), "RayService")["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (shm,) = [v["emptyDir"] for v in group["template"]["spec"]["volumes"] if v["name"] == "shm"]
        gib = int(shm["sizeLimit"].removesuffix("Gi"))
        assert shm["medium"] == "Memory"
        assert 0.8 * gib < int(group["rayStartParams"]["object-store-memory"]) / 2**30 < 0.95 * gib


def test_ingress_replicas_do_not_fit_into_gpu_pods() -> None:
    """Not even into an idle one, which has room.

    The pod would never be removed, and the model would find its CPUs taken.
    """
    objects = render()
    arguments = yaml.safe_load(one(objects, "RayService")["spec"]["serveConfigV2"])["applications"][0]["args"]
    asked = arguments["ingress"]["resources"]
    assert asked
    fits = {
        name: all(float(declared_resources(g).get(r, 0)) >= n for r, n in asked.items()) for name, g in groups(objects).items()
    }
    assert fits == {"cpu": True, "l40s": False, "a100-80g": False}


def test_cpu_pods_drain_at_least_as_long_as_gpu_pods() -> None:
    drains = {name: group["template"]["spec"]["terminationGracePeriodSeconds"] for name, group in groups(render()).items()}
    assert drains["cpu"] >= max(drains.values())


@pytest.mark.parametrize("values", [{}, {"head": {"drainSeconds": 300}}])
def test_ray_stops_draining_before_the_kubelet_kills_the_pod(values: Json) -> None:
    assert one(render(values), "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"][
        "terminationGracePeriodSeconds"
    ] == (310 if values else 15)
    for name, template in pod_templates([one(render(values), "RayService")]):
        environment = {e["name"]: e.get("value") for e in template["spec"]["containers"][0]["env"]}
        grace = template["spec"]["terminationGracePeriodSeconds"]
        assert 0 < grace - int(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]) <= 15, name
        # The controller of a new head may reach replicas late, and must not kill them.
        assert int(environment["RAY_SERVE_SLOW_STARTUP_WARNING_S"]) >= 300, name
        # Ray gives up a node after five failed checks; a pod that is lost must not be waited for.
        assert 5 * int(environment["RAY_health_check_period_ms"]) <= 5000, name


def test_gpu_pods_are_not_endpoints_of_the_service() -> None:
    """The Service selects pods by the name of its target port."""
    objects = render()
    spec = one(objects, "RayService")["spec"]
    assert [port["targetPort"] for port in spec["serveService"]["spec"]["ports"]] == ["serve"]
    named = {}
    cluster = spec["rayClusterConfig"]
    for name, group in [("head", cluster["headGroupSpec"]), *((g["groupName"], g) for g in cluster["workerGroupSpecs"])]:
        ports = group["template"]["spec"]["containers"][0]["ports"]
        named[name] = "serve" in [port["name"] for port in ports]
    assert named == {"head": True, "cpu": True, "l40s": False, "a100-80g": False}


def test_an_incremental_upgrade_has_neither_a_service_nor_a_smoke_test() -> None:
    objects = render(None, CHART / "ci" / "incremental-values.yaml")
    spec = one(objects, "RayService")["spec"]
    assert "serveService" not in spec
    assert spec["upgradeStrategy"]["clusterUpgradeOptions"]["gatewayClassName"] == "istio"
    for name, template in pod_templates(objects):  # there is no Service to call
        for container in template["spec"].get("containers", []):
            assert container.get("command", [])[:2] != ["ryla", "smoke"], name
