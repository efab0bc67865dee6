"""Calls a service over HTTP."""

import time
from collections.abc import Collection
from typing import Any

import httpx

from serve.client.answers import Answer, CallFailed

CROWDED = "too many connections"
"""What the proxy's own refusal says while its connections are all in use. The proxy is alive."""


class Client:
    """A connection to one service.

    ``url`` may also be `host:port`. ``timeout_s`` is the limit for a whole call: a model that is
    asleep may need minutes to start. ``key`` is the caller's key, where the service requires one.
    Raises CallFailed for a URL or a key that no request can have.
    """

    def __init__(self, url: str, timeout_s: float = 1800, key: str | None = None) -> None:
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self.has_key = bool(key)
        if key and not (key.isascii() and key.isprintable()):
            raise CallFailed("the key has characters that no key has: only printable ASCII can be sent")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._http = httpx.Client(base_url=self.url, timeout=timeout_s, headers=headers)
            self._http.base_url.raw_host.decode("ascii").encode("idna")  # as a connection does later
        except (httpx.InvalidURL, UnicodeError) as e:
            raise CallFailed(f"{url} is not the URL of a service ({e}); it is http://HOST:PORT") from None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, endpoint: str, body: dict[str, Any], timeout_s: float | None = None, accept: str = "*/*") -> Answer:
        """POST ``body`` and return the answer, of the media type ``accept``.

        Raises CallFailed with the problem's detail unless the status is 200.
        """
        start = time.perf_counter()
        try:
            response = self._http.post(
                f"/{endpoint}", json=body, timeout=timeout_s or self._http.timeout, headers={"Accept": accept}
            )
        except httpx.TransportError as e:
            hint = "; is the service running?" if isinstance(e, httpx.ConnectError) else ""
            raise CallFailed(f"{endpoint}: no answer from {self.url} ({e}){hint}") from e
        if response.status_code != 200:
            raise CallFailed(f"{endpoint}: {response.status_code} {_detail(response)}", response.status_code)
        return Answer(response.content, response.headers, time.perf_counter() - start)

    def check_reachable(self) -> None:
        """Raise CallFailed if nothing answers at the URL."""
        try:
            self._http.get("/healthz", timeout=10)
        except httpx.TransportError as e:
            raise CallFailed(f"no answer from {self.url} ({e}); is the service running?") from e

    def wait(self, timeout_s: float) -> None:
        """Return when the service accepts requests; raise CallFailed after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                response = self._http.get("/readyz", timeout=5)
                text = f"{response.status_code} {_detail(response)}"
            except httpx.TransportError as e:
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
        alive = status is not None and (status < 500 or CROWDED in (reason or ""))
        return None if alive else reason

    def _healthz(self, timeout_s: float) -> tuple[int | None, str | None]:
        """Return the status of /healthz, if it answered, and what is wrong, if it is not 200."""
        try:
            response = self._http.get("/healthz", timeout=timeout_s)
        except httpx.TransportError as e:
            return None, str(e) or type(e).__name__
        status = response.status_code
        return status, None if status == 200 else f"{status} {_detail(response)}"

    def waiting_for(self, also: Collection[str] = ()) -> str | None:
        """Return what is not ready yet, the models or the service itself; None if all is ready.

        Models whose state is in ``also`` are not waited for.
        """
        try:
            response = self._http.get("/readyz", timeout=5)
        except httpx.TransportError:
            return "the service"
        if response.status_code != 200:
            return f"the service ({_detail(response)})"
        states = {name: model["state"] for name, model in response.json()["models"].items()}
        return ", ".join(f"{name} ({state})" for name, state in states.items() if state not in ("ready", *also)) or None


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
