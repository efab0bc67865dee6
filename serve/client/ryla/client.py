"""The client, under the name that programs import: ``from ryla.client import Client``."""

from serve.client import (
    Answer,
    AsyncClient,
    AsyncJobHandle,
    CallFailed,
    Client,
    JobHandle,
    JobRecord,
    Progress,
    Retries,
)

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncJobHandle",
    "CallFailed",
    "Client",
    "JobHandle",
    "JobRecord",
    "Progress",
    "Retries",
]
