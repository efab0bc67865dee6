"""The processes of a service, by the names that Ray gives them."""

import contextlib

import psutil

from serve.cli.processes import ProcessTree, is_alive
from serve.models import INGRESS, MODELS, RUNNER

REPLICA = "ray::ServeReplica:ryla:"
PROCESSES = {
    "proxy": "ray::ProxyActor",
    "controller": "ray::ServeController",
    "ingress": f"{REPLICA}{INGRESS}",
    "runner": f"{REPLICA}{RUNNER}",
    **{model.deployment: f"{REPLICA}{model.deployment}" for model in MODELS},
    "raylet": "raylet",
    "GCS": "gcs_server",
}
"""The name of the program, or the beginning of the title, of each kind of process."""


def running_processes(kind: str, root: int | None = None) -> list[psutil.Process]:
    """Return the processes of a kind that descend from ``root``, or from this process.

    A kind that is not among ``PROCESSES`` is the beginning of the title.
    """
    name, found = PROCESSES.get(kind, kind), []
    for process in ProcessTree(root).descendants():
        with contextlib.suppress(psutil.Error):  # it may end in between
            if (process.name() == name or " ".join(process.cmdline()).startswith(name)) and is_alive(process):
                found.append(process)
    return found
