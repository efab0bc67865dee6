"""The processes of a service while it is under load."""

import contextlib
import re
import threading
from collections.abc import Callable

import psutil

from loadtest.growth import Sample, Usage
from loadtest.processes import PROCESSES, REPLICA
from serve.cli.processes import ProcessTree, is_alive

_TITLE = re.compile(r"ray::[\w:.]+")


def name_of(process: psutil.Process) -> str:
    """Return what a process is called in a table: by what it does, where Ray says so."""
    title = " ".join(process.cmdline())
    for name, beginning in PROCESSES.items():
        if process.name() == beginning or title.startswith(beginning):
            return name
    if title.startswith(REPLICA):
        return title.removeprefix(REPLICA).split()[0]
    if (found := _TITLE.match(title)) is not None:
        return found[0]
    # What runs a module or a script of Python is known by that.
    words = process.cmdline()
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1]
    script = next((word.rpartition("/")[2] for word in words[1:] if word.endswith(".py")), "")
    return script or process.name()


def sample(requests: int, root: int | None = None) -> Sample:
    """Return what the descendants of ``root``, or of this process, use now."""
    usages: dict[int, Usage] = {}
    for process in ProcessTree(root).descendants():
        with contextlib.suppress(psutil.Error):  # it may end in between
            if not is_alive(process):
                continue
            with process.oneshot():
                memory = process.memory_info()
                usages[process.pid] = Usage(
                    name=name_of(process),
                    rss=memory.rss,
                    private=memory.rss - getattr(memory, "shared", 0),
                    files=process.num_fds(),
                    threads=process.num_threads(),
                )
    return Sample(requests, usages)


class Watch(threading.Thread):
    """Takes a sample now and then. ``requests`` says how many have been sent."""

    def __init__(self, requests: Callable[[], int], every_s: float) -> None:
        super().__init__(daemon=True)
        self._requests = requests
        self._every_s = every_s
        self._done = threading.Event()
        self.samples: list[Sample] = []

    def run(self) -> None:
        """Take samples until ``end``."""
        while not self._done.wait(self._every_s):
            self.samples.append(sample(self._requests()))

    def end(self) -> list[Sample]:
        """Take a last sample and return all of them."""
        self._done.set()
        self.join()
        self.samples.append(sample(self._requests()))
        return self.samples
