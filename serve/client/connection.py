"""What the blocking and the asynchronous client have in common besides the calls about jobs."""

import ssl
import time
from functools import cache
from typing import Any

import httpx

from serve.client.answers import Answer, CallFailed, no_answer, refusal
from serve.client.flow import Flow, Send


def connection_options(url: str, *, timeout_s: float, key: str | None) -> dict[str, Any]:
    """Return the options of httpx's clients; raise CallFailed for what no request can have."""
    full_url = (url if "://" in url else f"http://{url}").rstrip("/")
    if key and not (key.isascii() and key.isprintable()):
        raise CallFailed("the key has characters that cannot be sent: use printable ASCII only")
    try:
        host = httpx.URL(full_url).raw_host
        host.decode("ascii").encode("idna")  # as a connection does later
    except (httpx.InvalidURL, UnicodeError) as e:
        raise CallFailed(f"{url} is not the URL of a service ({e}); it is http://HOST:PORT") from None
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return {"base_url": full_url, "timeout": timeout_s, "headers": headers, "verify": _tls()}


@cache
def _tls() -> ssl.SSLContext:
    """Return httpx's own context, once for all clients: it reads hundreds of certificates."""
    return httpx.create_ssl_context()


def plain_call(url: str, endpoint: str, body: dict[str, Any], *, timeout_s: float | None, accept: str) -> Flow[Answer]:
    """Send one request and wait for its result. It is never sent again."""
    start = time.perf_counter()
    options: dict[str, Any] = {"json": body, "headers": {"Accept": accept}}
    if timeout_s:
        options["timeout"] = timeout_s
    try:
        response: httpx.Response = yield Send(method="POST", path=f"/{endpoint}", options=options)
    except httpx.RequestError as e:
        raise no_answer(endpoint, url, e) from e
    if response.status_code != 200:
        raise refusal(endpoint, response)
    return Answer(response.content, response.headers, time.perf_counter() - start)
