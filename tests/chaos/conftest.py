"""The services whose processes and stores are lost: one for each kind of store."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.site import Site, open_site
from tests.unit.serve.jobs.redis_server import PROGRAM, RedisServer

DISK = "64m"
"""The size of the disk of the embedded store, where this user may make one."""


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """A small disk for the embedded store, or None if this user may not mount one."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        yield None
        return
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, disk: Path | None) -> Iterator[Site]:
    """A service over the embedded store."""
    folder = tmp_path_factory.mktemp("chaos")
    jobs = (disk or folder) / "jobs"
    # Far more is lost here than in a year of production, and one caller listens 500 times.
    settings = {"folder": str(jobs), "max_attempts": 6, "max_listeners_per_caller": 600}
    with open_site(folder, port=8390, jobs=settings, files=jobs / "ryla" / "files") as site:
        yield site


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that writes to its disk each second, as Debian's does with `appendonly yes`."""
    if PROGRAM is None:
        pytest.skip("redis-server is not installed (Debian: apt install redis-server)")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start("--appendfsync", "everysec")
    yield server
    server.kill()


@pytest.fixture(scope="module")
def redis_site(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[Site]:
    """A service over Redis, with its files in a folder."""
    folder = tmp_path_factory.mktemp("chaos-redis")
    files = folder / "files"
    with open_site(folder, port=8392, jobs={"store": redis.url, "files": files.as_uri()}, files=files / "ryla") as site:
        yield site
