"""What runs below a process, what has ended there, and how nothing of it is left."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from serve.cli.processes import REPLACED, VITAL, ProcessTree, is_alive

PARENT = """
import os, subprocess, sys
children = {}
print("up", flush=True)
for line in sys.stdin:
    verb, program, title = line.rstrip("\\n").split("|")
    if verb == "start":
        children[title] = subprocess.Popen([title, "-c", "import time; print(1, flush=True); time.sleep(600)"],
                                           executable=program, stdout=subprocess.PIPE)
        children[title].stdout.readline()
        print(children[title].pid, flush=True)
"""
"""Starts children when it is told so, and never waits for them when they end."""


class Parent:
    """A process with children of given programs and titles."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self.process = process
        self._folder = folder

    def start(self, title: str, name: str = "python") -> psutil.Process:
        """Start a child by the name of its program and its title; return it."""
        program = self._folder / name
        if not program.exists():
            program.symlink_to(os.path.realpath(sys.executable))
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"start|{program}|{title}\n")
        self.process.stdin.flush()
        return psutil.Process(int(self.process.stdout.readline()))


@contextmanager
def _parent(folder: Path) -> Iterator[Parent]:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        try:
            yield Parent(process, folder)
        finally:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    with _parent(tmp_path) as parent:
        yield parent


def killed(process: psutil.Process) -> None:
    """Kill a child of the parent, and return when it is a zombie."""
    process.kill()
    while process.status() != psutil.STATUS_ZOMBIE:
        pass


@pytest.mark.parametrize("name", VITAL)
def test_a_vital_process_that_was_killed_has_ended_though_it_is_a_zombie(parent: Parent, name: str) -> None:
    tree = ProcessTree(parent.process.pid)
    tree.look()
    assert tree.ended() == [], "it has not started yet"
    process = parent.start(name, name)
    tree.look()
    assert tree.ended() == []
    killed(process)
    assert psutil.pid_exists(process.pid)
    for _ in range(2):
        tree.look()
        assert tree.ended() == [VITAL[name]]


@pytest.mark.parametrize("kind", REPLACED)
def test_a_process_that_serve_replaces_is_missing_until_another_runs(parent: Parent, kind: tuple[str, str]) -> None:
    prefix, part = kind
    title = f"{prefix}:ryla{part}" if part else prefix
    tree = ProcessTree(parent.process.pid)
    tree.look()
    assert tree.missing() == [], "it has not started yet"
    first = parent.start(title)
    tree.look()
    assert tree.missing() == []
    killed(first)
    tree.look()
    assert (tree.missing(), tree.ended()) == ([REPLACED[kind]], [])
    parent.start(title)
    tree.look()
    assert tree.missing() == []


def test_a_model_that_ends_is_nothing_to_watch_for(parent: Parent) -> None:
    tree = ProcessTree(parent.process.pid)
    replica = parent.start("ray::ServeReplica:ryla:Wan26")
    tree.look()
    killed(replica)
    tree.look()
    assert (tree.missing(), tree.ended()) == ([], [])


@pytest.mark.slow
def test_killing_leaves_no_descendant_and_keeps_the_root(parent: Parent) -> None:
    children = [parent.start(title) for title in ("one", "two")]
    assert ProcessTree(parent.process.pid).kill(0.5) == []
    assert [is_alive(child) for child in children] == [False, False]
    assert is_alive(psutil.Process(parent.process.pid))


def test_a_tree_without_a_root_is_empty(tmp_path: Path) -> None:
    with _parent(tmp_path) as parent:
        tree = ProcessTree(parent.process.pid)
    tree.look()
    assert (tree.descendants(), tree.ended(), tree.kill()) == ([], [], [])


ORPHAN = """
import os, subprocess, sys, psutil
from serve.cli.processes import ProcessTree, adopt_orphans, reap_orphans
adopt_orphans()
middle = subprocess.Popen([sys.executable, "-c",
    "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True)"], stdout=subprocess.PIPE, text=True)
orphan = psutil.Process(int(middle.stdout.readline()))
middle.wait()
print(orphan.pid, orphan in ProcessTree().descendants())
assert ProcessTree().kill() == []
reap_orphans(but=middle.pid)
print(psutil.pid_exists(orphan.pid))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to an ancestor")
def test_a_process_whose_parent_ended_is_a_descendant_still() -> None:
    result = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True, timeout=120, check=True)
    pid, adopted, exists = result.stdout.split()
    assert (adopted, exists) == ("True", "False")
    assert not psutil.pid_exists(int(pid))


DRIVER = """
import subprocess, sys
from serve.cli.processes import end_with_parent
child = subprocess.Popen(["sleep", "600"], preexec_fn=end_with_parent)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_driver_ends_with_a_parent_that_is_killed() -> None:
    command = [sys.executable, "-c", DRIVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        process.wait()
    psutil.wait_procs([child], 60)
    assert not is_alive(child)
