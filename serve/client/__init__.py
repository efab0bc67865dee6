"""A client for the service. It needs no more than httpx, and imports neither Ray nor torch."""

from serve.client.answers import Answer, CallFailed, Decoded, check_answer, decode
from serve.client.async_client import AsyncClient, AsyncJobHandle
from serve.client.client import Client, JobHandle
from serve.client.records import JobRecord, Progress
from serve.client.retries import Retries

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncJobHandle",
    "CallFailed",
    "Client",
    "Decoded",
    "JobHandle",
    "JobRecord",
    "Progress",
    "Retries",
    "check_answer",
    "decode",
]
