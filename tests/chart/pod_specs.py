"""Finds pods, and what is mounted in them, among rendered objects."""

from tests.chart.rendering import Json, one


def workers(objects: list[Json]) -> list[Json]:
    """Return the pod specs of the worker groups."""
    groups = one(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    return [group["template"]["spec"] for group in groups]


def cpu_pods(objects: list[Json]) -> list[Json]:
    """Return the pod specs of the groups without GPUs, which run the ingress and the Runner."""
    groups = one(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    return [group["template"]["spec"] for group in groups if "GPU" not in group["resources"]]


def secret_at(spec: Json, path: str) -> str:
    """Return the name of the Secret that is mounted so that ``path`` is a file of it."""
    (container,) = spec["containers"]
    (name,) = [mount["name"] for mount in container["volumeMounts"] if path.rpartition("/")[0] == mount["mountPath"]]
    (secret,) = [volume["secret"]["secretName"] for volume in spec["volumes"] if volume["name"] == name]
    return str(secret)
