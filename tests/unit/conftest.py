"""What the unit tests share: processes that decode files, which take long to start."""

import pytest

from tests.unit.shared_pool import KeptPool, SharedPool


@pytest.fixture(autouse=True)
def shared_pool(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Share processes between tests: those marked `own_pool` have a pool that they look into."""
    own = request.node.get_closest_marker("own_pool") is not None
    for module in ("serve.pipelines.decoder", "serve.provenance.marking", "serve.provenance.verifier"):
        monkeypatch.setattr(f"{module}.WorkerPool", KeptPool if own else SharedPool)
