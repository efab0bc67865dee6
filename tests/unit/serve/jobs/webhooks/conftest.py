"""What the tests of webhooks have in common."""

import pytest

from serve.jobs.webhooks import call


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for connections, so that a busy machine fails no test."""
    monkeypatch.setattr(call, "_CONNECT_S", 600)
    monkeypatch.setattr(call, "_READ_S", 600)
