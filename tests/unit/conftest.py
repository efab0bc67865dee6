"""What the unit tests share: processes that decode files, which take long to start."""

import pytest

from tests.unit.shared_pool import KeptPool, SharedPool


@pytest.fixture(autouse=True)
def shared_pool(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Share processes between tests: those marked `own_pool` have a pool that they look into."""
    own = request.node.get_closest_marker("own_pool") is not None
    monkeypatch.setattr("serve.pipelines.decoder.WorkerPool", KeptPool if own else SharedPool)
