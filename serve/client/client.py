"""Calls a service over HTTP, and waits for it."""

import time
import uuid
from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any, Self, TypeVar

import httpx

from serve.client import job_calls
from serve.client.answers import Answer, CallFailed, detail_of, no_answer, refusal
from serve.client.connection import connection_options, plain_call
from serve.client.download import result
from serve.client.flow import Emit, Flow, Pause, Read, Send, Steps, Stream
from serve.client.follow import follow
from serve.client.records import JobRecord, State
from serve.client.retries import NO_APPLICATION, RETRIES, Retries, Service

T = TypeVar("T")

CROWDED = "too many connections"
"""What the proxy's own refusal says while its connections are all in use. The proxy is alive."""


class Client:
    """A connection to one service. Threads may share it.

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
        self._http = httpx.Client(**options)
        self._service = Service(self.url, retries)
        self._on_retry = on_retry

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, endpoint: str, body: dict[str, Any], timeout_s: float | None = None, accept: str = "*/*") -> Answer:
        """POST ``body`` and return the answer, of the media type ``accept``.

        Raises CallFailed with the problem's detail unless the status is 200.
        """
        return self._run(plain_call(self.url, endpoint, body, timeout_s=timeout_s, accept=accept))

    def submit(
        self,
        endpoint: str,
        fields: Mapping[str, Any] | None = None,
        /,
        *,
        accept: str = "*/*",
        idempotency_key: str | None = None,
        **more_fields: Any,
    ) -> "JobHandle":
        """Make a job that goes on whatever becomes of this client.

        A field that is a ``pathlib.Path``, bytes or an open binary file is sent as a file. A key of
        its own makes one job of all attempts of this call; give ``idempotency_key`` to find the job
        again after a restart of your program. Raises CallFailed for a refusal, OSError for a file
        that cannot be read, and TypeError for a value that cannot be sent.
        """
        key = idempotency_key or uuid.uuid4().hex
        fields = {**(fields or {}), **more_fields}
        record = self._run(job_calls.submit(self._service, endpoint, fields, accept=accept, idempotency_key=key))
        return JobHandle(self, record)

    def job(self, job_id: str) -> "JobHandle":
        """Return a handle of a job that was made before. Raises CallFailed if there is none."""
        return JobHandle(self, self.status(job_id))

    def status(self, job_id: str) -> JobRecord:
        """Return a job's record. Raises CallFailed if there is none."""
        return self._run(job_calls.status(self._service, job_id))

    def subscribe(self, job_id: str) -> Generator[JobRecord, None, None]:
        """Yield a job's record whenever it changes; the last one says how the job has ended.

        It survives lost connections and restarts of the service. Who leaves before the end calls
        ``close()``, which ends the connection. Raises CallFailed when there is no such job, or no
        answer for as long as ``retries`` says.
        """
        return self._iterate(Steps(follow(self._service, job_id)))

    def result(self, job_id: str, *, wait: bool = True) -> Answer:
        """Return a job's result, once it has ended unless ``wait`` is false.

        A download that breaks off goes on where it was. Raises CallFailed with the problem of a job
        that has failed, and for one that was cancelled or whose result has expired.
        """
        return self._run(result(self._service, job_id, wait=wait))

    def cancel(self, job_id: str) -> JobRecord:
        """Cancel a job, and return its record. A job that has ended stays as it is."""
        return self._run(job_calls.cancel(self._service, job_id))

    def delete(self, job_id: str) -> None:
        """Cancel a job, or remove the result of one that has ended."""
        self._run(job_calls.delete(self._service, job_id))

    def jobs(self, *, state: State | None = None, limit: int | None = None) -> Generator[JobRecord, None, None]:
        """Yield your jobs, newest first, at most ``limit`` of them."""
        return self._iterate(Steps(job_calls.jobs(self._service, state, limit)))

    def _run(self, flow: Flow[T]) -> T:
        steps = Steps(flow)
        for _ in self._iterate(steps):
            pass
        return steps.result

    def _iterate(self, steps: Steps[Any]) -> Generator[Any, None, None]:
        """Carry out a flow, and yield what it emits."""
        stream: Stream | None = None
        try:
            while (operation := steps.operation) is not None:
                if isinstance(operation, Emit):
                    yield operation.value
                    steps.reply(None)
                    continue
                if stream is not None and not isinstance(operation, Read):
                    stream.close()
                    stream = None
                try:
                    reply: Any = None
                    if isinstance(operation, Send):
                        reply = self._send(operation)
                        stream = Stream(reply) if operation.stream and not reply.is_error else None
                    elif isinstance(operation, Pause):
                        self._pause(operation)
                    elif stream is not None:
                        reply = stream.read()
                except httpx.RequestError as e:
                    steps.fail(e)
                else:
                    steps.reply(reply)
        finally:
            steps.close()
            if stream is not None:
                stream.close()

    def _send(self, operation: Send) -> httpx.Response:
        request = self._http.build_request(operation.method, operation.path, **operation.options)
        response = self._http.send(request, stream=operation.stream)
        if operation.stream and response.is_error:
            response.read()
        return response

    def _pause(self, pause: Pause) -> None:
        if self._on_retry is not None and pause.reason:
            self._on_retry(pause.reason)
        time.sleep(pause.seconds)

    def check_reachable(self) -> None:
        """Raise CallFailed if nothing answers at the URL."""
        try:
            self._http.get("/healthz", timeout=10)
        except httpx.RequestError as e:
            raise CallFailed(f"no answer from {self.url} ({e}); is the service running?") from e

    def wait(self, timeout_s: float) -> None:
        """Return when the service accepts requests; raise CallFailed after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                response = self._http.get("/readyz", timeout=5)
                text = f"{response.status_code} {detail_of(response)}"
            except httpx.RequestError as e:
                text = str(e)
            else:
                if response.status_code == 200:
                    return
            if time.monotonic() > deadline:
                raise CallFailed(f"{self.url} does not accept requests after {timeout_s:g} s: {text}")
            time.sleep(1)

    def not_up(self, timeout_s: float = 5) -> str | None:
        """Return why the service is not up, or None if /healthz answers 200."""
        return self._healthz(timeout_s)[1]

    def silence(self, timeout_s: float = 5) -> str | None:
        """Return why the service gives no sign of life, or None if it does.

        Any answer is one but a server error, and so is the proxy's own refusal of a connection.
        """
        status, reason = self._healthz(timeout_s)
        alive = status is not None and (status < 500 or any(said in (reason or "") for said in (CROWDED, NO_APPLICATION)))
        return None if alive else reason

    def _healthz(self, timeout_s: float) -> tuple[int | None, str | None]:
        """Return the status of /healthz, if it answered, and what is wrong, if it is not 200."""
        try:
            response = self._http.get("/healthz", timeout=timeout_s)
        except httpx.RequestError as e:
            return None, str(e) or type(e).__name__
        status = response.status_code
        return status, None if status == 200 else f"{status} {detail_of(response)}"

    def models(self) -> dict[str, dict[str, Any]]:
        """Return the state of each model, by its name, as `GET /readyz` gives it.

        Raises CallFailed if no model can be used, and if there is no answer.
        """
        try:
            return {str(name): dict(model) for name, model in self._described("readyz")["models"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            raise CallFailed("readyz: the answer does not list models") from e

    def limits(self) -> dict[str, Any]:
        """Return the limits and defaults in force, as `GET /limits` gives them.

        Raises CallFailed for a refusal, and if there is no answer.
        """
        return self._described("limits")

    def _described(self, name: str) -> dict[str, Any]:
        """Return what the service says about itself at a path."""
        try:
            response = self._http.get(f"/{name}", timeout=10)
        except httpx.RequestError as e:
            raise no_answer(name, self.url, e) from e
        if response.status_code != 200:
            raise refusal(name, response)
        try:
            return dict(response.json())
        except (TypeError, ValueError) as e:
            raise CallFailed(f"{name}: the answer is not a JSON object") from e

    def waiting_for(self, also: Collection[str] = ()) -> str | None:
        """Return what is not ready yet, the models or the service itself; None if all is ready.

        Models whose state is in ``also`` are not waited for.
        """
        try:
            response = self._http.get("/readyz", timeout=5)
        except httpx.RequestError:
            return "the service"
        if response.status_code != 200:
            return f"the service ({detail_of(response)})"
        states = {name: model["state"] for name, model in response.json()["models"].items()}
        return ", ".join(f"{name} ({state})" for name, state in states.items() if state not in ("ready", *also)) or None


class JobHandle:
    """A job of a client. ``record`` is what was known about it when the handle was made."""

    def __init__(self, client: Client, record: JobRecord) -> None:
        self._client = client
        self.record = record
        self.id = record.id

    def status(self) -> JobRecord:
        """Return the record as it is now; see ``Client.status``."""
        return self._client.status(self.id)

    def subscribe(self) -> Generator[JobRecord, None, None]:
        """Yield the record whenever it changes; see ``Client.subscribe``."""
        return self._client.subscribe(self.id)

    def result(self, *, wait: bool = True) -> Answer:
        """Return the result, once there is one; see ``Client.result``."""
        return self._client.result(self.id, wait=wait)

    def cancel(self) -> JobRecord:
        """Cancel the job; see ``Client.cancel``."""
        return self._client.cancel(self.id)
