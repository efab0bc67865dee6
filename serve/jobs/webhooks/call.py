"""One attempt to deliver a webhook: one POST to an address that was checked."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from serve.job_settings import WebhookSettings
from serve.jobs.webhooks.url import Refused, Resolve, addresses_of, allowed_url

MAX_ANSWER_BYTES = 2**16
"""How much of an answer is read. Only its status matters."""
_CONNECT_S = 3.0
_READ_S = 1.0


@dataclass(frozen=True)
class Answer:
    """What became of an attempt.

    ``error`` is empty if the receiver took the webhook. ``final`` says that it must not be sent
    again, and ``retry_after_s`` when the receiver wants it again, if it says so.
    """

    error: str = ""
    final: bool = False
    retry_after_s: float = 0.0


class WebhookCaller:
    """Calls receivers of webhooks. A certificate is verified with the system's or httpx's roots.

    A name is resolved once for each attempt, and the connection goes to one of the addresses that
    were checked, so that a name cannot stand for another address a moment later. Redirects and the
    environment's proxies are not followed, because they would choose another address.
    """

    def __init__(self, settings: WebhookSettings, *, resolve: Resolve, tls: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._resolve = resolve
        self._tls = tls or httpx.create_ssl_context()

    async def call(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send ``body`` once. The status must arrive within ``timeout_s``."""
        timeout = httpx.Timeout(self._settings.timeout_s, connect=min(_CONNECT_S, self._settings.timeout_s))
        client = httpx.AsyncClient(verify=self._tls, timeout=timeout, trust_env=False, follow_redirects=False)
        try:
            async with client:
                async with asyncio.timeout(self._settings.timeout_s):
                    response = await self._send(client, url, headers=headers, body=body)
                await _read_some(response)
                await response.aclose()
        except Refused as e:
            return Answer(f"refused: {e}", final=True)
        except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout):
            return Answer(f"there was no answer within {self._settings.timeout_s:g} s")
        except httpx.HTTPError as e:
            return Answer(_reason(e))
        except OSError:
            return Answer("the host's name could not be resolved")
        return _judge(response)

    async def _send(self, client: httpx.AsyncClient, url: str, headers: Mapping[str, str], body: bytes) -> httpx.Response:
        """Return the answer of the first address that takes a connection, its body not yet read."""
        target = allowed_url(url, self._settings)
        *others, last = await addresses_of(target, self._settings, self._resolve)

        async def send(address: str) -> httpx.Response:
            request = client.build_request(
                "POST",
                target.copy_with(host=address),
                content=body,
                headers={**headers, "host": target.netloc.decode("ascii"), "user-agent": "ryla-webhooks"},
                # The certificate is checked against the name, not against the address.
                extensions={"sni_hostname": target.raw_host.decode("ascii")},
            )
            return await client.send(request, stream=True)

        for address in others:
            try:
                return await send(address)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await send(last)


async def _read_some(response: httpx.Response) -> None:
    """Read a little of the answer, so that an ordinary receiver can finish it."""
    size = 0
    try:
        async with asyncio.timeout(_READ_S):
            # The bytes are not decompressed, which could make many of a few.
            async for piece in response.aiter_raw():
                size += len(piece)
                if size >= MAX_ANSWER_BYTES:
                    return
    except (httpx.HTTPError, TimeoutError):
        return  # The status has arrived, and nothing else counts.


def _judge(response: httpx.Response) -> Answer:
    status = response.status_code
    if response.is_success:
        return Answer()
    if status == httpx.codes.GONE:
        return Answer("the receiver answered 410: it does not want this webhook", final=True)
    if response.is_redirect:
        return Answer(f"the receiver answered {status}, and redirects are not followed", final=True)
    text = response.headers.get("retry-after", "")
    wait_s = float(text) if text.isascii() and text.isdecimal() and len(text) < 7 else 0.0
    return Answer(f"the receiver answered {status}", retry_after_s=wait_s)


def _reason(error: httpx.HTTPError) -> str:
    """Return why there was no answer, without the address and without what the receiver sent."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the receiver's certificate is not valid: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "the receiver could not be reached"
    return f"the receiver broke off the call ({type(error).__name__})"
