"""The hardware of a deployment, published in a key-value store that here is a dictionary."""

from types import SimpleNamespace

import pytest

from deployments import hardware


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[bytes, bytes], bytes]:
    values: dict[tuple[bytes, bytes], bytes] = {}

    def put(key: bytes, value: bytes, *, namespace: bytes) -> None:
        values[namespace, key] = value

    def get(key: bytes, *, namespace: bytes) -> bytes | None:
        return values.get((namespace, key))

    monkeypatch.setattr(hardware, "_internal_kv_put", put)
    monkeypatch.setattr(hardware, "_internal_kv_get", get)
    return values


def publish_as(monkeypatch: pytest.MonkeyPatch, deployment: str, text: str) -> None:
    context = SimpleNamespace(app_name="ryla", deployment=deployment)
    monkeypatch.setattr("deployments.hardware.serve.get_replica_context", lambda: context)
    hardware.publish(text)


def test_what_a_replica_publishes_is_read_by_the_name_of_its_deployment(
    monkeypatch: pytest.MonkeyPatch, store: dict[tuple[bytes, bytes], bytes]
) -> None:
    publish_as(monkeypatch, "Wan26", "NVIDIA L40S")
    publish_as(monkeypatch, "FaceSwapper", "CPU")
    assert hardware.read("ryla", "Wan26") == "NVIDIA L40S"
    assert hardware.read("ryla", "FaceSwapper") == "CPU"
    assert hardware.read("ryla", "Wan22GGUF") is None
    assert hardware.read("another", "Wan26") is None
    assert {namespace for namespace, _ in store} == {b"ryla"}


def test_the_last_replica_to_start_replaces_the_text_of_the_others(
    monkeypatch: pytest.MonkeyPatch, store: dict[tuple[bytes, bytes], bytes]
) -> None:
    publish_as(monkeypatch, "Wan26", "NVIDIA L40S")
    publish_as(monkeypatch, "Wan26", "NVIDIA H100")
    assert hardware.read("ryla", "Wan26") == "NVIDIA H100"
    assert len(store) == 1
