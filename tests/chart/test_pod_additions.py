"""What values add to the pods: labels, volumes, init containers, the rotation of logs."""

import pytest

from tests.chart.rendering import Json, one, pod_templates, render

VOLUME = {"name": "certificates", "configMap": {"name": "ca"}}
MOUNT = {"name": "certificates", "mountPath": "/etc/ssl/own", "readOnly": True}
INIT = {"name": "warm", "image": "busybox:1", "command": ["true"]}
ADDED: Json = {"labels": {"cost": "own"}, "extraVolumes": [VOLUME], "extraVolumeMounts": [MOUNT], "initContainers": [INIT]}


@pytest.mark.parametrize(
    ("values", "pod"),
    [
        ({"head": ADDED}, "RayService ryla: head"),
        ({"workerGroups": {"l40s": ADDED}}, "RayService ryla: l40s"),
        ({"extraWorkerGroups": [{"name": "h100", **ADDED}]}, "RayService ryla: h100"),
        ({"mode": "pod", "preset": "demo", "pod": {"placement": ADDED}}, "Deployment ryla"),
    ],
    ids=["head", "worker group", "extra group", "single pod"],
)
def test_a_group_has_its_own_parts(values: Json, pod: str) -> None:
    with_parts = 0
    for name, template in pod_templates(render({**values, "podLabels": {"cost": "all", "team": "video"}}, hooks=False)):
        spec, own = template["spec"], name == pod
        with_parts += own
        assert (VOLUME in spec["volumes"]) is own, name
        assert (MOUNT in spec["containers"][0]["volumeMounts"]) is own, name
        assert (INIT in spec.get("initContainers", [])) is own, name
        assert template["metadata"]["labels"]["cost"] == ("own" if own else "all"), name
        assert template["metadata"]["labels"]["team"] == "video", name
    assert with_parts == 1


def test_jobs_have_the_labels_of_all_pods() -> None:
    jobs = [t for name, t in pod_templates(render({"podLabels": {"team": "video"}})) if name.startswith(("Job", "Pod"))]
    assert len(jobs) == 3
    assert all(job["metadata"]["labels"]["team"] == "video" for job in jobs)


@pytest.mark.parametrize("values", [{}, {"mode": "pod", "preset": "demo"}])
def test_log_files_cannot_fill_the_volume_that_they_are_on(values: Json) -> None:
    """Ray writes some twenty files in a pod, and by default rotates each at 512 MiB."""
    objects = render(values, hooks=False)
    for name, template in pod_templates(objects):
        (container,) = template["spec"]["containers"]
        if "nginx" in container["image"]:
            continue
        environment = {e["name"]: e.get("value") for e in container["env"]}
        each = int(environment["RAY_ROTATION_MAX_BYTES"]) * (1 + int(environment["RAY_ROTATION_BACKUP_COUNT"]))
        (volume,) = [v["emptyDir"]["sizeLimit"] for v in template["spec"]["volumes"] if v["name"] == "tmp"]
        assert 20 * each < int(volume.removesuffix("Gi")) * 2**30, name
        assert container["resources"]["requests"]["ephemeral-storage"], name
    if not values:
        autoscaler = one(objects, "RayService")["spec"]["rayClusterConfig"]["autoscalerOptions"]["env"]
        assert {"name": "RAY_ROTATION_MAX_BYTES", "value": "33554432"} in autoscaler
