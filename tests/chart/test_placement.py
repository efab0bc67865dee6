"""Which nodes pods are scheduled on, by platform."""

import pytest

from helm.generator.paths import CHART
from tests.chart.rendering import EVERYTHING, Json, Refused, declared_resources, groups, one, pod_templates, render


@pytest.mark.parametrize(
    ("platform", "group", "accelerator", "selector", "toleration"),
    [
        ("gke", "a100-80g", "A100-80G", {"cloud.google.com/gke-accelerator": "nvidia-a100-80gb"}, "nvidia.com/gpu"),
        ("gke", "l40s", "L4", {"cloud.google.com/gke-accelerator": "nvidia-l4"}, "nvidia.com/gpu"),
        ("eks-karpenter", "l40s", "L40S", {"karpenter.k8s.aws/instance-gpu-name": "l40s"}, "nvidia.com/gpu"),
        (
            "eks-karpenter",
            "a100-80g",
            "A100-80G",
            {"karpenter.k8s.aws/instance-gpu-name": "a100", "karpenter.k8s.aws/instance-gpu-memory": "81920"},
            "nvidia.com/gpu",
        ),
        ("gfd", "l40s", "L40S", {"nvidia.com/gpu.product": ["NVIDIA-L40S"]}, "nvidia.com/gpu"),
        (
            "gfd",
            "a100-80g",
            "A100-80G",
            {"nvidia.com/gpu.product": ["NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe"]},
            "nvidia.com/gpu",
        ),
    ],
)
def test_gpu_pods_select_their_nodes(platform: str, group: str, accelerator: str, selector: Json, toleration: str) -> None:
    objects = render(None, CHART / f"values-{platform}.yaml")
    spec = groups(objects)[group]["template"]["spec"]
    assert f"accelerator_type:{accelerator}" in declared_resources(groups(objects)[group])
    assert toleration in [t["key"] for t in spec["tolerations"]]
    found = dict(spec.get("nodeSelector", {}))
    required = spec.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    for term in required["nodeSelectorTerms"] if required else []:
        found |= {e["key"]: e["values"] for e in term["matchExpressions"]}
    assert found == {**selector, "kubernetes.io/arch": "amd64"}
    assert groups(objects)["cpu"]["template"]["spec"]["nodeSelector"] == {"kubernetes.io/arch": "amd64"}


def test_an_accelerator_that_the_platform_lacks_is_refused() -> None:
    with pytest.raises(Refused, match="platform gke has no known node labels for accelerator L40S"):
        render({"platform": "gke"})
    placed = render({"platform": "gke", "workerGroups": {"l40s": {"nodeSelector": {"pool": "l40s"}}}})
    assert groups(placed)["l40s"]["template"]["spec"]["nodeSelector"] == {
        "kubernetes.io/arch": "amd64",
        "pool": "l40s",
    }


def test_every_pod_of_the_service_image_runs_on_its_architecture() -> None:
    for name, template in pod_templates(render(EVERYTHING)):
        service = any("ryla-serve" in c["image"] for c in template["spec"]["containers"])
        assert (template["spec"].get("nodeSelector") == {"kubernetes.io/arch": "amd64"}) is service, name
    assert "nodeSelector" not in groups(render({"arch": ""}))["cpu"]["template"]["spec"]


def test_spread_constraints_of_a_group_replace_its_spread() -> None:
    own = [{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]
    objects = render({"workerGroups": {"cpu": {"topologySpreadConstraints": own}}, "head": {"topologySpreadConstraints": own}})
    assert groups(objects)["cpu"]["template"]["spec"]["topologySpreadConstraints"] == own
    head = one(objects, "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    assert head["topologySpreadConstraints"] == own
    assert len(groups(render())["cpu"]["template"]["spec"]["topologySpreadConstraints"]) == 2


def test_node_autoscalers_do_not_remove_the_nodes_of_the_head_and_gpu_pods() -> None:
    for platform, annotation in (
        ("eks-karpenter", "karpenter.sh/do-not-disrupt"),
        ("gke", "cluster-autoscaler.kubernetes.io/safe-to-evict"),
    ):
        objects = render(
            {"podAnnotations": {"a": "b"}, "workerGroups": {"l40s": {"annotations": {"a": "c"}}}},
            CHART / f"values-{platform}.yaml",
        )
        cluster = one(objects, "RayService")["spec"]["rayClusterConfig"]
        found = {name: group["template"]["metadata"]["annotations"] for name, group in groups(objects).items()}
        assert {name for name, annotations in found.items() if annotation in annotations} == {"l40s", "a100-80g"}
        assert annotation in cluster["headGroupSpec"]["template"]["metadata"]["annotations"]
        assert {name: annotations["a"] for name, annotations in found.items()} == {"cpu": "b", "l40s": "c", "a100-80g": "b"}
    assert "annotations" not in groups(render())["l40s"]["template"]["metadata"]
