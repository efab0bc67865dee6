"""The job that runs before an install or upgrade."""

from tests.chart.rendering import EVERYTHING, groups, one, pod_templates, render


def test_files_are_fetched_and_verified_before_anything_changes() -> None:
    objects = render(EVERYTHING)
    job = one(objects, "Job", "ryla-preflight")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    containers = {
        c["name"]: c
        for c in [*job["spec"]["template"]["spec"]["initContainers"], *job["spec"]["template"]["spec"]["containers"]]
    }
    assert [*containers] == ["fetch", "verify", "check"]
    assert [c["name"] for c in job["spec"]["template"]["spec"]["initContainers"]] == ["fetch"]
    assert containers["check"]["command"] == ["ryla", "check", "/etc/ryla/serve.yaml", "--files"]
    writable = [
        n for n, c in containers.items() if any(m["name"] == "models" and not m.get("readOnly") for m in c["volumeMounts"])
    ]
    assert writable == ["fetch"]
    bare = one(render({}), "Job", "ryla-preflight")["spec"]["template"]["spec"]["containers"][0]
    assert bare["command"][-1] == "--files", "missing model files are reported before the install, not by the first replica"
    assert one(objects, "ConfigMap", "ryla-preflight")["data"]["SHA256SUMS"].strip() == f"{'0' * 64}  a/b"


def test_only_pods_with_a_gpu_mount_the_model_files() -> None:
    """The others need no file, and may lack the identity that the volume asks for."""
    objects = render(EVERYTHING)
    mounted, volumes = {}, {}
    for name, template in pod_templates([one(objects, "RayService")]):
        mounts = template["spec"]["containers"][0]["volumeMounts"]
        mounted[name] = [m for m in mounts if m["name"] == "models"]
        volumes[name] = [v for v in template["spec"]["volumes"] if v["name"] == "models"]
    mount = {"name": "models", "mountPath": "/models", "readOnly": True}
    prefix = "RayService ryla: "
    assert mounted == {
        f"{prefix}{name}": [mount] if gpu else []
        for name, gpu in {"head": False, "cpu": False, "l40s": True, "a100-80g": True, "h100": True}.items()
    }
    assert {name: bool(found) for name, found in volumes.items()} == {name: bool(found) for name, found in mounted.items()}


def test_the_deadline_is_short_unless_files_are_fetched() -> None:
    deadline = one(render(), "Job", "ryla-preflight")["spec"]["activeDeadlineSeconds"]
    assert deadline <= 900
    fetching = {"models": {"claim": {"create": True}, "fetch": {"command": ["fetch"]}}}
    assert one(render(fetching), "Job", "ryla-preflight")["spec"]["activeDeadlineSeconds"] == deadline + 5400


def test_workers_and_the_preflight_job_use_the_service_account() -> None:
    objects = render({**EVERYTHING, "serviceAccountName": "models"})
    assert {group["template"]["spec"]["serviceAccountName"] for group in groups(objects).values()} == {"models"}
    assert one(objects, "Job", "ryla-preflight")["spec"]["template"]["spec"]["serviceAccountName"] == "models"
    assert one(objects, "Job", "ryla-rollout")["spec"]["template"]["spec"]["serviceAccountName"] == "ryla-rollout"


def test_a_failed_job_is_removed_if_helm_can_print_its_log() -> None:
    """Helm prints the logs of containers only, so a job with an init container has to stay."""
    policy = "helm.sh/hook-delete-policy"
    bare = one(render({"models": {"volume": {"emptyDir": {}}, "sha256": {"a/b": "0" * 64}}}), "Job", "ryla-preflight")
    assert bare["metadata"]["annotations"][policy].endswith(",hook-failed")
    assert "initContainers" not in bare["spec"]["template"]["spec"]
    fetching = one(render(EVERYTHING), "Job", "ryla-preflight")
    assert not fetching["metadata"]["annotations"][policy].endswith(",hook-failed")


def test_nothing_deletes_the_claim_with_the_model_files() -> None:
    """Argo CD reads Helm's hooks and deletes them by any policy, so it has to skip this one."""
    claim = one(render({"models": {"claim": {"create": True}, "fetch": {"command": ["fetch"]}}}), "PersistentVolumeClaim")
    annotations = claim["metadata"]["annotations"]
    assert annotations["argocd.argoproj.io/hook"] == "Skip"
    assert annotations["helm.sh/resource-policy"] == "keep"
    policies = annotations["helm.sh/hook-delete-policy"].split(",")
    assert policies == ["hook-failed"], "without a policy, Helm takes before-hook-creation"
