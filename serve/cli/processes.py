"""The processes of a service on this machine: all that descend from `ryla serve`."""

import contextlib
import ctypes
import os
import signal
import sys

import psutil

from serve.models import INGRESS, RUNNER

NOT_STARTED = 75
"""The driver's exit code if Ray itself did not start: that of a temporary failure in sysexits.h."""

VITAL = {"raylet": "Ray's raylet", "gcs_server": "Ray's GCS server"}
"""The processes that nothing restarts, by program name."""

_CONTROLLER = ("ray::ServeController", "")
REPLACED = {
    _CONTROLLER: "Serve's controller",
    ("ray::ProxyActor", ""): "Serve's proxy",
    ("ray::ServeReplica", f":{INGRESS}"): "the ingress",
    ("ray::ServeReplica", f":{RUNNER}"): "the Runner",
}
"""The processes that Serve restarts and that every request passes.

Each is known by the prefix of its title and a part of it.
"""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class ProcessTree:
    """The descendants of a process, with what Ray runs in them."""

    def __init__(self, root: int | None = None) -> None:
        self._root = psutil.Process(root or os.getpid())
        self._vital: dict[str, psutil.Process] = {}
        self._running: set[tuple[str, str]] = set()
        self._seen: set[tuple[str, str]] = set()

    def look(self) -> None:
        """Look at the processes as they are now."""
        self._running = set()
        for process in self.descendants():
            with contextlib.suppress(psutil.Error):  # it may end in between
                name, title = process.name(), " ".join(process.cmdline())
                if name in VITAL:
                    self._vital.setdefault(name, process)
                elif (kind := _replaced_kind(title)) is not None and is_alive(process):
                    self._running.add(kind)
        self._seen |= self._running

    def ended(self) -> list[str]:
        """Return the processes that ended and that nothing restarts, each by its display name."""
        return [VITAL[name] for name, process in self._vital.items() if not is_alive(process)]

    def missing(self) -> list[str]:
        """Return what was running before and did not run at the latest look."""
        return [name for kind, name in REPLACED.items() if kind in self._seen - self._running]

    def runs_serve(self) -> bool:
        """Return whether Ray Serve's controller ran at the latest look."""
        return _CONTROLLER in self._running

    def descendants(self) -> list[psutil.Process]:
        """Return all processes that descend from the root."""
        try:
            return self._root.children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill(self, timeout_s: float = 10) -> list[int]:
        """Kill all descendants; return the ids of those that did not end in time."""
        processes = self.descendants()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _, left = psutil.wait_procs(processes, timeout_s)
        return [process.pid for process in left if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs.

    One that has ended, and for which its parent has not waited, is in the table of processes
    still: as a zombie.
    """
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def adopt_orphans() -> None:
    """Become the parent of each descendant whose own parent ends, where the system is Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(but: int) -> None:
    """Take ended orphans out of the table of processes; leave the child ``but`` to its owner."""
    for process in psutil.Process().children():
        if process.pid != but and not is_alive(process):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def end_with_parent() -> None:
    """Have this process terminated when its parent ends, even if that is killed, under Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _replaced_kind(title: str) -> tuple[str, str] | None:
    return next(((prefix, part) for prefix, part in REPLACED if title.startswith(prefix) and part in title), None)
