"""Calls a service over HTTP from asynchronous programs."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Self, TypeVar

import httpx

from serve.client import job_calls
from serve.client.answers import Answer
from serve.client.connection import connection_options, plain_call
from serve.client.download import result
from serve.client.flow import Emit, Flow, Pause, Read, Send, Steps, Stream
from serve.client.follow import follow
from serve.client.records import JobRecord, State
from serve.client.retries import RETRIES, Retries, Service

T = TypeVar("T")


class AsyncClient:
    """A connection to one service. Tasks of one event loop may share it.

    ``url`` may also be `host:port`. ``timeout_s`` is the limit for a whole plain call: a model that
    is asleep may need minutes to start. ``key`` is the caller's key, where the service requires
    one. Calls about jobs may be sent twice without harm, and are as ``retries`` says; ``on_retry``
    gets a sentence before each other attempt. Raises CallFailed for a URL or a key that no request
    can have.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float = 1800,
        key: str | None = None,
        *,
        retries: Retries = RETRIES,
        on_retry: Callable[[str], None] | None = None,
    ) -> None:
        options = connection_options(url, timeout_s=timeout_s, key=key)
        self.url = str(options["base_url"])
        self.has_key = bool(key)
        self._http = httpx.AsyncClient(**options)
        self._service = Service(self.url, retries)
        self._on_retry = on_retry

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def call(self, endpoint: str, body: dict[str, Any], timeout_s: float | None = None, accept: str = "*/*") -> Answer:
        """POST ``body`` and return the answer, of the media type ``accept``.

        Raises CallFailed with the problem's detail unless the status is 200.
        """
        return await self._run(plain_call(self.url, endpoint, body, timeout_s=timeout_s, accept=accept))

    async def submit(
        self,
        endpoint: str,
        fields: Mapping[str, Any] | None = None,
        /,
        *,
        accept: str = "*/*",
        idempotency_key: str | None = None,
        **more_fields: Any,
    ) -> "AsyncJobHandle":
        """Make a job that goes on whatever becomes of this client.

        A field that is a ``pathlib.Path``, bytes or an open binary file is sent as a file. A key of
        its own makes one job of all attempts of this call; give ``idempotency_key`` to find the job
        again after a restart of your program. Raises CallFailed for a refusal, OSError for a file
        that cannot be read, and TypeError for a value that cannot be sent.
        """
        key = idempotency_key or uuid.uuid4().hex
        fields = {**(fields or {}), **more_fields}
        record = await self._run(job_calls.submit(self._service, endpoint, fields, accept=accept, idempotency_key=key))
        return AsyncJobHandle(self, record)

    async def job(self, job_id: str) -> "AsyncJobHandle":
        """Return a handle of a job that was made before. Raises CallFailed if there is none."""
        return AsyncJobHandle(self, await self.status(job_id))

    async def status(self, job_id: str) -> JobRecord:
        """Return a job's record. Raises CallFailed if there is none."""
        return await self._run(job_calls.status(self._service, job_id))

    def subscribe(self, job_id: str) -> AsyncGenerator[JobRecord, None]:
        """Yield a job's record whenever it changes; the last one says how the job has ended.

        It survives lost connections and restarts of the service. Who leaves before the end calls
        ``aclose()``, which ends the connection. Raises CallFailed when there is no such job, or no
        answer for as long as ``retries`` says.
        """
        return self._iterate(Steps(follow(self._service, job_id)))

    async def result(self, job_id: str, *, wait: bool = True) -> Answer:
        """Return a job's result, once it has ended unless ``wait`` is false.

        A download that breaks off goes on where it was. Raises CallFailed with the problem of a job
        that has failed, and for one that was cancelled or whose result has expired.
        """
        return await self._run(result(self._service, job_id, wait=wait))

    async def cancel(self, job_id: str) -> JobRecord:
        """Cancel a job, and return its record. A job that has ended stays as it is."""
        return await self._run(job_calls.cancel(self._service, job_id))

    async def delete(self, job_id: str) -> None:
        """Cancel a job, or remove the result of one that has ended."""
        await self._run(job_calls.delete(self._service, job_id))

    def jobs(self, *, state: State | None = None, limit: int | None = None) -> AsyncGenerator[JobRecord, None]:
        """Yield your jobs, newest first, at most ``limit`` of them."""
        return self._iterate(Steps(job_calls.jobs(self._service, state, limit)))

    async def _run(self, flow: Flow[T]) -> T:
        steps = Steps(flow)
        async for _ in self._iterate(steps):
            pass
        return steps.result

    async def _iterate(self, steps: Steps[Any]) -> AsyncGenerator[Any, None]:
        """Carry out a flow, and yield what it emits."""
        stream: Stream | None = None
        try:
            while (operation := steps.operation) is not None:
                if isinstance(operation, Emit):
                    yield operation.value
                    steps.reply(None)
                    continue
                if stream is not None and not isinstance(operation, Read):
                    await stream.aclose()
                    stream = None
                try:
                    reply: Any = None
                    if isinstance(operation, Send):
                        reply = await self._send(operation)
                        stream = Stream(reply) if operation.stream and not reply.is_error else None
                    elif isinstance(operation, Pause):
                        await self._pause(operation)
                    elif stream is not None:
                        reply = await stream.aread()
                except httpx.RequestError as e:
                    steps.fail(e)
                else:
                    steps.reply(reply)
        finally:
            steps.close()
            if stream is not None:
                await stream.aclose()

    async def _send(self, operation: Send) -> httpx.Response:
        request = self._http.build_request(operation.method, operation.path, **operation.options)
        response = await self._http.send(request, stream=operation.stream)
        if operation.stream and response.is_error:
            await response.aread()
        return response

    async def _pause(self, pause: Pause) -> None:
        if self._on_retry is not None and pause.reason:
            self._on_retry(pause.reason)
        await asyncio.sleep(pause.seconds)


class AsyncJobHandle:
    """A job of a client. ``record`` is what was known about it when the handle was made."""

    def __init__(self, client: AsyncClient, record: JobRecord) -> None:
        self._client = client
        self.record = record
        self.id = record.id

    async def status(self) -> JobRecord:
        """Return the record as it is now; see ``AsyncClient.status``."""
        return await self._client.status(self.id)

    def subscribe(self) -> AsyncGenerator[JobRecord, None]:
        """Yield the record whenever it changes; see ``AsyncClient.subscribe``."""
        return self._client.subscribe(self.id)

    async def result(self, *, wait: bool = True) -> Answer:
        """Return the result, once there is one; see ``AsyncClient.result``."""
        return await self._client.result(self.id, wait=wait)

    async def cancel(self) -> JobRecord:
        """Cancel the job; see ``AsyncClient.cancel``."""
        return await self._client.cancel(self.id)
