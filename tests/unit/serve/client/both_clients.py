"""The blocking and the asynchronous client behind one interface, so that each test is for both."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from serve.client import Answer, AsyncClient, Client, JobRecord
from tests.unit.serve.scripted_server import ScriptedServer

Connect = Callable[..., Any]


class Blocking:
    """The blocking client. ``subscribe`` and ``jobs`` return lists."""

    def __init__(self, url: str, **options: Any) -> None:
        self.client = Client(url, **options)

    def submit(self, endpoint: str, *fields: Any, **options: Any) -> JobRecord:
        """Return the new job's record."""
        return self.client.submit(endpoint, *fields, **options).record

    def subscribe(self, job_id: str) -> list[JobRecord]:
        """Return all records up to the end."""
        return list(self.client.subscribe(job_id))

    def jobs(self, **options: Any) -> list[JobRecord]:
        """Return all jobs."""
        return list(self.client.jobs(**options))

    def result(self, job_id: str, **options: Any) -> Answer:
        """Return the result."""
        return self.client.result(job_id, **options)

    def status(self, job_id: str) -> JobRecord:
        """Return the record."""
        return self.client.status(job_id)

    def cancel(self, job_id: str) -> JobRecord:
        """Cancel the job."""
        return self.client.cancel(job_id)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


class Awaited:
    """The asynchronous client in an event loop of its own."""

    def __init__(self, url: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self.client = AsyncClient(url, **options)

    def submit(self, endpoint: str, *fields: Any, **options: Any) -> JobRecord:
        """Return the new job's record."""
        return self._runner.run(self.client.submit(endpoint, *fields, **options)).record

    def subscribe(self, job_id: str) -> list[JobRecord]:
        """Return all records up to the end."""

        async def collect() -> list[JobRecord]:
            return [record async for record in self.client.subscribe(job_id)]

        return self._runner.run(collect())

    def jobs(self, **options: Any) -> list[JobRecord]:
        """Return all jobs."""

        async def collect() -> list[JobRecord]:
            return [record async for record in self.client.jobs(**options)]

        return self._runner.run(collect())

    def result(self, job_id: str, **options: Any) -> Answer:
        """Return the result."""
        return self._runner.run(self.client.result(job_id, **options))

    def status(self, job_id: str) -> JobRecord:
        """Return the record."""
        return self._runner.run(self.client.status(job_id))

    def cancel(self, job_id: str) -> JobRecord:
        """Cancel the job."""
        return self._runner.run(self.client.cancel(job_id))

    def close(self) -> None:
        """Close the connections and the loop."""
        self._runner.run(self.client.close())
        self._runner.close()


@contextmanager
def connected(kind: type[Blocking] | type[Awaited], url: str, **options: Any) -> Iterator[Blocking | Awaited]:
    """Have a client of one kind while the block runs."""
    client = kind(url, **options)
    try:
        yield client
    finally:
        client.close()


Kind = type[Blocking] | type[Awaited]


def paths(server: ScriptedServer) -> list[str]:
    """Return the methods and paths of the requests that a server has got."""
    return [f"{request.method} {request.path}" for request in server.requests]
