"""What a platform engineer would look for in the objects, rule by rule."""

from pathlib import Path

import pytest
import yaml

from helm.generate import CHART, ROOT
from tests.k8s.chart import VALUES, Json, Refused, groups, one, pod_templates, render

ALL: Json = yaml.safe_load((CHART / "ci" / "everything-values.yaml").read_text())
"""Everything that can be on, on."""


def _resources(group: Json) -> dict[str, str]:
    found: dict[str, str] = group["resources"]
    return found


def test_no_replica_runs_beside_the_gcs() -> None:
    assert one(render(), "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_each_group_declares_what_brings_it_from_zero() -> None:
    """Ray's autoscaler knows a group without pods by its `resources` alone; beside rayStartParams KubeRay refuses them."""
    declared = {name: _resources(group) for name, group in groups(render()).items()}
    assert declared == {
        "cpu": {"CPU": "4", "ingress": "1"},
        "l40s": {"CPU": "4", "GPU": "1", "accelerator_type:L40S": "1"},
        "a100-80g": {"CPU": "4", "GPU": "1", "accelerator_type:A100-80G": "1", "accelerator_type:A100": "1"},
    }
    for group in groups(render()).values():
        assert not {"num-cpus", "num-gpus", "memory", "resources"} & set(group["rayStartParams"])
    assert groups(render())["l40s"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in groups(render())["cpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_the_autoscaler_is_the_second_version_and_gpu_groups_begin_at_zero() -> None:
    spec = one(render(), "RayService")["spec"]["rayClusterConfig"]
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert {name: group["minReplicas"] for name, group in groups(render()).items()} == {"cpu": 2, "l40s": 0, "a100-80g": 0}


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
def test_gpu_pods_go_to_their_nodes(platform: str, group: str, accelerator: str, selector: Json, toleration: str) -> None:
    objects = render(None, CHART / f"values-{platform}.yaml")
    spec = groups(objects)[group]["template"]["spec"]
    assert f"accelerator_type:{accelerator}" in _resources(groups(objects)[group])
    assert toleration in [t["key"] for t in spec["tolerations"]]
    wanted = dict(spec.get("nodeSelector", {}))
    required = spec.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    for term in required["nodeSelectorTerms"] if required else []:
        wanted |= {e["key"]: e["values"] for e in term["matchExpressions"]}
    assert wanted == selector
    assert "nodeSelector" not in groups(objects)["cpu"]["template"]["spec"]


def test_an_accelerator_that_a_platform_does_not_have_is_refused() -> None:
    with pytest.raises(Refused, match="platform gke has no known node labels for accelerator L40S"):
        render({"platform": "gke"})
    placed = render({"platform": "gke", "workerGroups": {"l40s": {"nodeSelector": {"pool": "l40s"}}}})
    assert groups(placed)["l40s"]["template"]["spec"]["nodeSelector"] == {"pool": "l40s"}


@pytest.mark.parametrize("file", VALUES, ids=lambda path: path.stem)
def test_every_pod_is_one_of_the_restricted_level(file: Path) -> None:
    found = 0
    for name, template in pod_templates(render(None, file)):
        spec = template["spec"]
        found += 1
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), name
        assert not any("hostPath" in volume for volume in spec.get("volumes", [])), name
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"], name
            assert container["resources"]["limits"]["memory"], name
            mounts = {m["mountPath"] for m in container.get("volumeMounts", [])}
            if "ray" in container["name"]:
                assert {"/tmp", "/dev/shm"} <= mounts, name
                assert {"name": "HOME", "value": "/tmp"} in container["env"], name
        declared = {volume["name"] for volume in spec.get("volumes", [])} | {"data"}
        used = {m["name"] for c in [*spec.get("initContainers", []), *spec["containers"]] for m in c.get("volumeMounts", [])}
        assert used <= declared, name
    assert found >= 3


def test_the_container_that_kuberay_adds_is_one_of_the_restricted_level_too() -> None:
    context = one(render(), "RayService")["spec"]["rayClusterConfig"]["autoscalerOptions"]["securityContext"]
    assert context == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def test_the_object_store_is_in_memory() -> None:
    """What does not fit into /dev/shm, Ray puts on disk."""
    cluster = one(render(), "RayService")["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (shm,) = [v["emptyDir"] for v in group["template"]["spec"]["volumes"] if v["name"] == "shm"]
        gib = int(shm["sizeLimit"].removesuffix("Gi"))
        assert shm["medium"] == "Memory"
        assert 0.8 * gib < int(group["rayStartParams"]["object-store-memory"]) / 2**30 < 0.95 * gib


def test_an_ingress_replica_is_placed_in_no_gpu_pod() -> None:
    """Not even in an idle one, which has room: it would never be given back, and the model would find its CPUs taken."""
    objects = render()
    arguments = yaml.safe_load(one(objects, "RayService")["spec"]["serveConfigV2"])["applications"][0]["args"]
    asked = arguments["ingress"]["resources"]
    assert asked
    fits = {name: all(float(_resources(g).get(r, 0)) >= n for r, n in asked.items()) for name, g in groups(objects).items()}
    assert fits == {"cpu": True, "l40s": False, "a100-80g": False}


def test_pods_that_carry_requests_drain_no_faster_than_those_that_work_on_them() -> None:
    drains = {name: group["template"]["spec"]["terminationGracePeriodSeconds"] for name, group in groups(render()).items()}
    assert drains["cpu"] >= max(drains.values())


def test_node_autoscalers_leave_the_head_and_busy_gpu_pods_alone() -> None:
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


def test_an_identity_for_the_bucket_reaches_the_workers_and_the_job_that_fetches() -> None:
    objects = render({**ALL, "serviceAccountName": "models"})
    assert {group["template"]["spec"]["serviceAccountName"] for group in groups(objects).values()} == {"models"}
    assert one(objects, "Job", "ryla-preflight")["spec"]["template"]["spec"]["serviceAccountName"] == "models"
    assert one(objects, "Job", "ryla-rollout")["spec"]["template"]["spec"]["serviceAccountName"] == "ryla-rollout"


def test_a_wrong_image_is_told_in_minutes_unless_files_are_fetched() -> None:
    deadline = one(render(), "Job", "ryla-preflight")["spec"]["activeDeadlineSeconds"]
    assert deadline <= 900
    fetching = {"models": {"claim": {"create": True}, "fetch": {"command": ["fetch"]}}}
    assert one(render(fetching), "Job", "ryla-preflight")["spec"]["activeDeadlineSeconds"] == deadline + 5400


@pytest.mark.parametrize("values", [{}, {"mode": "pod", "preset": "demo"}, {"rollout": {"smoke": False}}])
def test_what_the_rollout_job_does_ends_before_it_is_killed(values: Json) -> None:
    spec = one(render(values), "Job", "ryla-rollout")["spec"]
    pod = spec["template"]["spec"]
    commands = [c["command"] for c in (*pod.get("initContainers", []), *pod["containers"])]
    assert sum(int(command[command.index("--timeout") + 1]) for command in commands) <= spec["activeDeadlineSeconds"] - 60


def test_a_load_balancer_of_aws_waits_as_long_as_a_request_may_take() -> None:
    ingress = {"enabled": True, "controller": "alb", "hosts": [{"host": "a.example"}]}
    annotations = one(render({"ingress": ingress}), "Ingress")["metadata"]["annotations"]
    assert annotations["alb.ingress.kubernetes.io/load-balancer-attributes"] == "idle_timeout.timeout_seconds=2160"
    assert annotations["alb.ingress.kubernetes.io/healthcheck-path"] == "/healthz"
    assert not any(name.startswith("nginx") for name in annotations)


def test_requests_go_through_no_pod_that_comes_and_goes_with_a_gpu() -> None:
    """A Service that names its target port has the pods that have that name as endpoints."""
    objects = render()
    spec = one(objects, "RayService")["spec"]
    assert [port["targetPort"] for port in spec["serveService"]["spec"]["ports"]] == ["serve"]
    named = {}
    cluster = spec["rayClusterConfig"]
    for name, group in [("head", cluster["headGroupSpec"]), *((g["groupName"], g) for g in cluster["workerGroupSpecs"])]:
        ports = group["template"]["spec"]["containers"][0]["ports"]
        named[name] = "serve" in [port["name"] for port in ports]
    assert named == {"head": True, "cpu": True, "l40s": False, "a100-80g": False}


def test_an_incremental_upgrade_leaves_the_service_to_kuberays_gateway() -> None:
    objects = render(None, CHART / "ci" / "incremental-values.yaml")
    spec = one(objects, "RayService")["spec"]
    assert "serveService" not in spec
    assert spec["upgradeStrategy"]["clusterUpgradeOptions"]["gatewayClassName"] == "istio"
    for name, template in pod_templates(objects):  # nobody calls a Service that is not there
        for container in template["spec"].get("containers", []):
            assert container.get("command", [])[:2] != ["ryla", "smoke"], name


def test_the_rollout_ends_before_its_job_is_ended() -> None:
    job = one(render(), "Job", "ryla-rollout")
    (container,) = job["spec"]["template"]["spec"]["initContainers"]
    assert int(container["command"][-1]) < job["spec"]["activeDeadlineSeconds"]


def test_alerts_are_of_this_release_alone() -> None:
    for rule in one(render(ALL), "PrometheusRule")["spec"]["groups"][0]["rules"]:
        assert 'namespace="ryla"' in rule["expr"], rule["alert"]


@pytest.mark.parametrize("values", [{}, {"head": {"drainSeconds": 300}}])
def test_ray_gives_up_draining_before_the_kubelet_kills(values: Json) -> None:
    assert one(render(values), "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"][
        "terminationGracePeriodSeconds"
    ] == (310 if values else 60)
    for name, template in pod_templates(render(values, hooks=False)):
        environment = {e["name"]: e.get("value") for e in template["spec"]["containers"][0]["env"]}
        grace = template["spec"]["terminationGracePeriodSeconds"]
        assert 0 < grace - int(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]) <= 15, name


def test_budgets_leave_a_drain_its_way() -> None:
    """A budget with maxUnavailable allows no eviction at all of a RayCluster's pods: it has no scale subresource."""
    objects = render({"extraWorkerGroups": ALL["extraWorkerGroups"]})
    assert "unused" not in groups(objects)
    budgets = [o for o in objects if o["kind"] == "PodDisruptionBudget"]
    assert budgets
    for budget in budgets:
        assert "maxUnavailable" not in budget["spec"]
        labels = budget["spec"]["selector"]["matchLabels"]
        (group,) = [g for g in groups(objects).values() if labels.items() <= g["template"]["metadata"]["labels"].items()]
        assert budget["spec"]["minAvailable"] < group["minReplicas"]
    assert len(budgets) == len([g for g in groups(objects).values() if g["minReplicas"] > 1])


# Network policies, evaluated: a peer is (labels of its namespace, labels of the pod).
RYLA = {"app.kubernetes.io/part-of": "ryla-serve", "app.kubernetes.io/instance": "ryla"}
HEAD = ({"kubernetes.io/metadata.name": "ryla"}, {**RYLA, "app.kubernetes.io/component": "head", "ray.io/is-ray-node": "yes"})
GPU = ({"kubernetes.io/metadata.name": "ryla"}, {**RYLA, "app.kubernetes.io/component": "l40s", "ray.io/is-ray-node": "yes"})
JOB = ({"kubernetes.io/metadata.name": "ryla"}, {**RYLA, "app.kubernetes.io/component": "job"})
REDIS = ({"kubernetes.io/metadata.name": "ryla"}, {**RYLA, "app.kubernetes.io/component": "redis"})
OPERATOR = ({"kubernetes.io/metadata.name": "kuberay"}, {"app.kubernetes.io/name": "kuberay-operator"})
GATEWAY = ({"kubernetes.io/metadata.name": "gateway"}, {"app": "gateway"})
PROMETHEUS = ({"kubernetes.io/metadata.name": "monitoring"}, {"app": "prometheus"})
STRANGER = ({"kubernetes.io/metadata.name": "other"}, {"app": "other"})
Peer = tuple[dict[str, str], dict[str, str]]


def _selects(selector: Json | None, labels: dict[str, str]) -> bool:
    if selector is None:
        return True
    for expression in selector.get("matchExpressions", []):
        value, values = labels.get(expression["key"]), expression.get("values", [])
        fits = {"In": value in values, "NotIn": value not in values, "Exists": value is not None}[expression["operator"]]
        if not fits:
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def _reaches(objects: list[Json], source: Peer, target: Peer, port: int) -> bool:
    policies = [
        o for o in objects if o["kind"] == "NetworkPolicy" and _selects(o["spec"]["podSelector"], target[1])
    ]  # fmt: skip
    for rule in (rule for policy in policies for rule in policy["spec"]["ingress"]):
        if "ports" in rule and port not in [p["port"] for p in rule["ports"]]:
            continue
        for peer in rule["from"]:
            same = "namespaceSelector" not in peer and source[0] == target[0]
            if (same or ("namespaceSelector" in peer and _selects(peer["namespaceSelector"], source[0]))) and _selects(
                peer.get("podSelector"), source[1]
            ):
                return True
    return not policies


@pytest.mark.parametrize(
    ("source", "target", "port", "open_"),
    [
        (OPERATOR, HEAD, 8265, True),
        (OPERATOR, HEAD, 6379, False),
        (GPU, HEAD, 6379, True),
        (HEAD, GPU, 52365, True),
        (GATEWAY, HEAD, 8000, True),
        (GATEWAY, GPU, 8000, True),  # no endpoint of the Service, but Ray's ports need one rule
        (GATEWAY, HEAD, 8265, False),
        (GATEWAY, GPU, 10002, False),
        (STRANGER, HEAD, 8000, False),
        (STRANGER, HEAD, 8265, False),
        (STRANGER, HEAD, 8080, False),
        (PROMETHEUS, GPU, 8080, True),
        (PROMETHEUS, HEAD, 44217, True),
        (PROMETHEUS, HEAD, 8000, False),
        (JOB, HEAD, 8000, True),
        (JOB, HEAD, 8265, False),
        (HEAD, REDIS, 6379, True),
        (GATEWAY, REDIS, 6379, False),
        (JOB, REDIS, 6379, False),
    ],
)
def test_who_reaches_what(source: Peer, target: Peer, port: int, open_: bool) -> None:
    callers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateway"}}}]
    objects = render({**ALL, "networkPolicy": {"callers": callers}})
    assert _reaches(objects, source, target, port) is open_


def test_gateways_wait_longer_than_the_service_and_do_not_buffer() -> None:
    objects = render(ALL)
    annotations = one(objects, "Ingress")["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io/"
    assert int(annotations[f"{prefix}proxy-read-timeout"]) > 2100
    assert annotations[f"{prefix}proxy-buffering"] == "off"
    assert int(annotations[f"{prefix}proxy-body-size"]) == 64 * 2**20
    assert annotations[f"{prefix}proxy-next-upstream"] == "off"  # a video is not made twice because a pod went
    (rule,) = one(objects, "HTTPRoute")["spec"]["rules"]
    assert int(rule["timeouts"]["request"].removesuffix("s")) > 2100
    (header_filter,) = rule["filters"]
    assert set(header_filter["requestHeaderModifier"]["remove"]) == {
        "x-request-timeout-seconds",
        "x-request-disconnect-disabled",
    }
    assert one(objects, "Ingress")["spec"]["tls"] == [{"secretName": "tls", "hosts": ["video.example"]}]


def test_secrets_are_referred_to_and_never_written() -> None:
    objects = render(ALL)
    assert not [o for o in objects if o["kind"] == "Secret"]
    spec = one(objects, "RayService")["spec"]["rayClusterConfig"]
    assert spec["authOptions"] == {"mode": "token", "secretName": "token"}
    assert spec["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"] == {
        "name": "redis",
        "key": "password",
    }
    text = one(objects, "RayService")["spec"]["serveConfigV2"]
    assert yaml.safe_load(text)["applications"][0]["args"]["ingress"]["api_keys"] == "/etc/ryla/keys/keys"
    for group in groups(objects).values():
        assert {"name": "api-keys", "secret": {"secretName": "keys"}} in group["template"]["spec"]["volumes"]


def test_only_the_rollout_may_ask_the_api_server_and_only_for_its_own() -> None:
    objects = render()
    rules = one(objects, "Role")["rules"]
    assert [(r["resources"], r["verbs"]) for r in rules] == [(["rayservices"], ["get"]), (["pods"], ["list"])]
    assert rules[0]["resourceNames"] == ["ryla"]
    for name, template in pod_templates(objects):
        if "head" not in name and "rollout" not in name:
            assert template["spec"]["automountServiceAccountToken"] is False, name


def test_files_are_fetched_and_verified_before_anything_changes() -> None:
    objects = render(ALL)
    job = one(objects, "Job", "ryla-preflight")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    containers = {
        c["name"]: c
        for c in [*job["spec"]["template"]["spec"]["initContainers"], *job["spec"]["template"]["spec"]["containers"]]
    }
    assert [*containers] == ["fetch", "verify", "check"]
    assert containers["check"]["command"] == ["ryla", "check", "/etc/ryla/serve.yaml", "--files"]
    writable = [
        n for n, c in containers.items() if any(m["name"] == "models" and not m.get("readOnly") for m in c["volumeMounts"])
    ]
    assert writable == ["fetch"]
    bare = one(render({}), "Job", "ryla-preflight")["spec"]["template"]["spec"]["containers"][0]
    assert bare["command"][-1] == "--files", "files that are nowhere are found before the install, not by the first replica"
    assert one(objects, "ConfigMap", "ryla-preflight")["data"]["SHA256SUMS"].strip() == f"{'0' * 64}  a/b"
    for group in groups(objects).values():
        (mount,) = [m for m in group["template"]["spec"]["containers"][0]["volumeMounts"] if m["name"] == "models"]
        assert mount == {"name": "models", "mountPath": "/models", "readOnly": True}


def test_alerts_have_their_paragraph() -> None:
    rules = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    operations = (ROOT / "docs" / "operations.md").read_text()
    assert len(alerts) >= 6
    assert [alert for alert in alerts if f"`{alert}`" not in operations] == []
