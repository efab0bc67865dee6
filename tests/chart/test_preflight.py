"""The job that runs before an install or upgrade."""

from tests.chart.rendering import EVERYTHING, groups, one, render


def test_files_are_fetched_and_verified_before_anything_changes() -> None:
    objects = render(EVERYTHING)
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
    assert bare["command"][-1] == "--files", "missing model files are reported before the install, not by the first replica"
    assert one(objects, "ConfigMap", "ryla-preflight")["data"]["SHA256SUMS"].strip() == f"{'0' * 64}  a/b"
    for group in groups(objects).values():
        (mount,) = [m for m in group["template"]["spec"]["containers"][0]["volumeMounts"] if m["name"] == "models"]
        assert mount == {"name": "models", "mountPath": "/models", "readOnly": True}


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
