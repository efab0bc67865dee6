"""The service of the embedded store whose processes are killed."""

from collections.abc import Iterator

import pytest

from tests.chaos.site import Site, open_site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("chaos")
    # Far more is lost here than in a year of production.
    jobs = {"folder": str(folder / "jobs"), "max_attempts": 6}
    with open_site(folder, port=8390, jobs=jobs, files=folder / "jobs" / "files") as site:
        yield site
