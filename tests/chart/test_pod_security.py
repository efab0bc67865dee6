"""Security of the pods: the restricted Pod Security Standard, Secrets, access to the API server."""

import re
from pathlib import Path

import pytest
import yaml

from helm.generator.paths import CHART
from tests.chart.rendering import EVERYTHING, VALUES, groups, one, pod_templates, render


@pytest.mark.parametrize("file", VALUES, ids=lambda path: path.stem)
def test_every_pod_meets_the_restricted_level(file: Path) -> None:
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


def test_the_autoscaler_container_meets_the_restricted_level() -> None:
    context = one(render(), "RayService")["spec"]["rayClusterConfig"]["autoscalerOptions"]["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_cluster_chooses_the_user_if_none_is_set() -> None:
    """OpenShift assigns each namespace a range of users and refuses any other."""
    for name, template in pod_templates(render({**EVERYTHING, "podUser": None})):
        context = template["spec"]["securityContext"]
        assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}, name
    for name, template in pod_templates(render({**EVERYTHING, "podUser": 2000000000})):
        context = template["spec"]["securityContext"]
        assert {context[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {2000000000}, name


def test_the_demo_gets_a_token_that_no_upgrade_changes() -> None:
    objects = render(None, CHART / "values-demo.yaml")
    secret = one(objects, "Secret", "ryla-ray-token")
    assert one(objects, "RayService")["spec"]["rayClusterConfig"]["authOptions"]["secretName"] == "ryla-ray-token"
    assert re.fullmatch(r"[A-Za-z0-9]{64}", secret["stringData"]["auth_token"])
    annotations = secret["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert "before-hook-creation" not in annotations["helm.sh/hook-delete-policy"]
    assert annotations["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("file", [file for file in VALUES if file.parent == CHART], ids=lambda path: path.stem)
def test_every_values_file_for_the_operator_turns_on_rays_token(file: Path) -> None:
    for service in [o for o in render(None, file) if o["kind"] == "RayService"]:
        assert service["spec"]["rayClusterConfig"]["authOptions"]["mode"] == "token"


def test_secrets_are_referenced_and_never_created() -> None:
    objects = render(EVERYTHING)
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


def test_only_the_head_and_the_rollout_job_may_call_the_api_server() -> None:
    objects = render()
    rules = one(objects, "Role")["rules"]
    assert [(r["resources"], r["verbs"]) for r in rules] == [(["rayservices"], ["get"]), (["pods", "events"], ["list"])]
    assert rules[0]["resourceNames"] == ["ryla"]
    for name, template in pod_templates(objects):
        if "head" not in name and "rollout" not in name:
            assert template["spec"]["automountServiceAccountToken"] is False, name
