"""When a request is sent again, and for how long."""

import math
import random
import time
from collections.abc import Collection
from dataclasses import dataclass

import httpx

from serve.client.answers import CallFailed, no_answer, refusal
from serve.client.flow import Flow, Pause, Send

AGAIN = frozenset({429, 502, 503, 504})
"""Statuses after which the same request may succeed."""
NO_APPLICATION = "no application runs at this path"
"""What Serve's proxy says while the service starts behind it: with a 503, or a 404 in 0.1.0."""


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How long a client waits for a service that does not answer or asks to be called later.

    ``patience_s`` bounds the time from the first failure; it begins again with every answer that
    brings a call forward. Pauses begin with ``first_s`` and double up to ``longest_s``, and are
    shortened at random by up to half, so that many clients do not come back at the same moment. A
    `Retry-After` of the service is honoured instead.
    """

    patience_s: float = 300.0
    first_s: float = 0.5
    longest_s: float = 10.0


RETRIES = Retries()
"""What a client does unless it is told otherwise."""


class Service:
    """What the calls of one client know about its service."""

    def __init__(self, url: str, retries: Retries) -> None:
        self.url = url
        self.retries = retries
        self.reached = False
        """Whether it has ever answered: a wrong address is reported at once, not after minutes."""


class Outage:
    """Failures of one call, one after the other."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._since: float | None = None
        self._failures = 0

    def over(self) -> None:
        """Forget the failures, because the call has come forward."""
        self._since = None
        self._failures = 0

    def pause(self, failure: CallFailed, after_s: float | None = None) -> Pause:
        """Return the wait before the next attempt; raise ``failure`` if it would be too long."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if after_s is None:
            limit = min(self._retries.first_s * 2 ** min(self._failures, 20), self._retries.longest_s)
            after_s = limit * random.uniform(0.5, 1)
        if now + after_s - self._since > self._retries.patience_s:
            raise failure
        self._failures += 1
        return Pause(after_s, str(failure))


def persist(
    request: Send, name: str, service: Service, outage: Outage, *, again: Collection[int] = AGAIN
) -> Flow[httpx.Response]:
    """Send a request until there is an answer that another attempt would not change.

    ``again`` has the statuses after which it is sent again; it always is while the service starts.
    Only for requests that may safely be sent twice. Errors name ``name``. Raises CallFailed when
    the patience is at its end.
    """
    while True:
        try:
            response: httpx.Response = yield request
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as e:
            raise no_answer(name, service.url, e) from e
        except httpx.RequestError as e:
            failure = no_answer(name, service.url, e)
            if not service.reached and isinstance(e, httpx.ConnectError | httpx.ConnectTimeout):
                raise failure from e
            yield outage.pause(failure)
            continue
        service.reached = True
        failed = response.is_error and refusal(name, response)
        if not failed:
            return response
        starting = response.status_code in (404, 503) and NO_APPLICATION in str(failed)
        if not starting and response.status_code not in again:
            return response
        yield outage.pause(failed, retry_after(response))


def retry_after(response: httpx.Response) -> float | None:
    """Return the seconds in `Retry-After`, or None; the service never sends a date there.

    A pause of no time counts as none, so that a gateway which sends it is not flooded.
    """
    try:
        seconds = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
