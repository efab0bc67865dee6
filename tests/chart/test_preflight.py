"""The jobs that run before an install or upgrade."""

from tests.chart.rendering import EVERYTHING, groups, one, pod_templates, render


def test_files_are_fetched_and_verified_before_anything_changes() -> None:
    objects = render(EVERYTHING)
    jobs = [one(objects, "Job", name) for name in ("ryla-fetch", "ryla-preflight")]
    assert {job["metadata"]["annotations"]["helm.sh/hook"] for job in jobs} == {"pre-install,pre-upgrade"}
    before, after = (int(job["metadata"]["annotations"]["helm.sh/hook-weight"]) for job in jobs)
    assert before < after
    containers = {c["name"]: c for job in jobs for c in job["spec"]["template"]["spec"]["containers"]}
    assert [*containers] == ["fetch", "verify", "check"]
    assert [c["name"] for c in jobs[0]["spec"]["template"]["spec"]["containers"]] == ["fetch"]
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
    fetching = render({"models": {"claim": {"create": True}, "fetch": {"command": ["fetch"]}}})
    deadlines = {name: one(fetching, "Job", f"ryla-{name}")["spec"]["activeDeadlineSeconds"] for name in ("fetch", "preflight")}
    assert deadlines == {"fetch": deadline + 5400, "preflight": deadline}


def test_workers_and_the_preflight_job_use_the_service_account() -> None:
    objects = render({**EVERYTHING, "serviceAccountName": "models"})
    assert {group["template"]["spec"]["serviceAccountName"] for group in groups(objects).values()} == {"models"}
    for name in ("ryla-fetch", "ryla-preflight"):
        assert one(objects, "Job", name)["spec"]["template"]["spec"]["serviceAccountName"] == "models"
    assert one(objects, "Job", "ryla-rollout")["spec"]["template"]["spec"]["serviceAccountName"] == "ryla-rollout"


def test_no_failed_hook_job_outlives_the_release() -> None:
    """Helm removes it, after it has printed the log, which it does for containers only."""
    all_jobs = [o for o in render(EVERYTHING) if o["kind"] == "Job"]
    jobs = {o["metadata"]["name"]: o for o in all_jobs if "helm.sh/hook" in o["metadata"].get("annotations", {})}
    assert {"ryla-fetch", "ryla-preflight", "ryla-rollout"} <= jobs.keys()
    for name, job in jobs.items():
        annotations = job["metadata"]["annotations"]
        assert "hook-failed" in annotations["helm.sh/hook-delete-policy"].split(","), name
        assert annotations["helm.sh/hook-output-log-policy"] == "hook-failed", name
        assert "initContainers" not in job["spec"]["template"]["spec"], name


def test_nothing_deletes_the_claim_with_the_model_files() -> None:
    """Argo CD reads Helm's hooks and deletes them by any policy, so it has to skip this one."""
    claim = one(render({"models": {"claim": {"create": True}, "fetch": {"command": ["fetch"]}}}), "PersistentVolumeClaim")
    annotations = claim["metadata"]["annotations"]
    assert annotations["argocd.argoproj.io/hook"] == "Skip"
    assert annotations["helm.sh/resource-policy"] == "keep"
    policies = annotations["helm.sh/hook-delete-policy"].split(",")
    assert policies == ["hook-failed"], "without a policy, Helm takes before-hook-creation"
