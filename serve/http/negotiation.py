"""Reads the headers by which a caller chooses how a request is answered.

They are Accept (RFC 9110), Prefer (RFC 7240), Idempotency-Key, Webhook-Url and Request-Timeout.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from serve.problems import Problem, invalid_header

MAX_URL_CHARS = 2048
"""Length up to which the URL of a webhook is accepted."""
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
_URL = re.compile(r"[!-~]+")


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """How a caller wants a request to be handled, apart from the format of its result."""

    strict: bool = False
    """Whether unknown fields are errors."""
    respond_async: bool = False
    wait_s: float | None = None
    """Seconds after which the caller wants the job's record if there is no result yet."""
    idempotency_key: str | None = None
    webhook_url: str | None = None

    @property
    def durable(self) -> bool:
        """Whether the request becomes a job that outlives the connection that sent it."""
        return self.detached or self.idempotency_key is not None or self.webhook_url is not None

    @property
    def detached(self) -> bool:
        """Whether the caller accepts the job's record instead of the result."""
        return self.respond_async or self.wait_s is not None

    @property
    def patience_s(self) -> float | None:
        """Seconds to wait for the result before the record is sent; None to wait for the result."""
        return None if not self.detached else self.wait_s or 0.0

    @property
    def applied(self) -> str:
        """The value of Preference-Applied for an answer with the job's record."""
        wait = [] if self.wait_s is None else [f"wait={self.wait_s:g}"]
        return ", ".join([*(["respond-async"] if self.respond_async else []), *wait])


def read_preferences(headers: Headers, *, max_wait_s: float) -> Preferences:
    """Return the preferences in the headers of a request; raise a 422 problem for a malformed one.

    A caller that prefers to wait for longer than ``max_wait_s`` waits for that long.
    """
    prefer = parse_preferences(headers.getlist("prefer"))
    return Preferences(
        strict=prefer.get("handling") == "strict",
        respond_async="respond-async" in prefer,
        wait_s=min(_parse_wait(prefer["wait"]), max_wait_s) if "wait" in prefer else None,
        idempotency_key=_idempotency_key(headers.getlist("idempotency-key")),
        webhook_url=_webhook_url(headers.getlist("webhook-url")),
    )


def _parse_wait(text: str) -> float:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise invalid_header("Prefer", f"`wait={text[:50]}` must be a whole number of seconds, such as `wait=30`")
    return float(text)


def _idempotency_key(values: list[str]) -> str | None:
    if not values:
        return None
    if values[1:] or _IDEMPOTENCY_KEY.fullmatch(values[0]) is None:
        raise invalid_header("Idempotency-Key", "send one key of 1 to 255 visible ASCII characters, such as a UUID")
    return values[0]


def _webhook_url(values: list[str]) -> str | None:
    """Return the URL to which the end of the job is reported; its host is checked later."""
    if not values:
        return None
    if values[1:] or len(values[0]) > MAX_URL_CHARS or not _is_web_url(values[0]):
        raise invalid_header("Webhook-Url", f"send one http or https URL of at most {MAX_URL_CHARS} characters")
    return values[0]


def _is_web_url(text: str) -> bool:
    if _URL.fullmatch(text) is None:
        return False
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError for a port that is not a number
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def choose_media_type(accept: str | None, offered: Sequence[str]) -> str:
    """Return the media type that ``best_media_type`` chooses; raise a 406 problem if it is None."""
    chosen = best_media_type(accept, offered)
    if chosen is None:
        raise Problem(406, "not-acceptable", f"Accept is `{(accept or '')[:100]}`; this path offers {', '.join(offered)}")
    return chosen


def best_media_type(accept: str | None, offered: Sequence[str]) -> str | None:
    """Return the first of the ``offered`` types with the highest quality in an Accept header.

    Return None if none of them is acceptable.
    """
    if not accept or not accept.strip():
        return offered[0]
    qualities = [_quality(accept, media_type) for media_type in offered]
    best = max(qualities)
    return offered[qualities.index(best)] if best > 0 else None


def _quality(accept: str, media_type: str) -> float:
    """Return the quality of the most specific range in ``accept`` that matches ``media_type``."""
    ranges = {media_type: 3, media_type.split("/")[0] + "/*": 2, "*/*": 1}
    specificity, quality = 0, 0.0
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if ranges.get(name, 0) > specificity:
            specificity, quality = ranges[name], 1.0
            for parameter in parameters:
                if match := re.fullmatch(r"q\s*=\s*([0-9.]+)", parameter):
                    quality = _parse_number(match.group(1)) or 0.0
    return quality


def parse_preferences(values: Sequence[str]) -> dict[str, str]:
    """Return the preferences of all Prefer headers, in lower case and without their parameters.

    Where a preference is given more than once, the first one counts.
    """
    preferences: dict[str, str] = {}
    for part in ",".join(values).split(","):
        name, _, value = part.split(";")[0].partition("=")
        if name.strip():
            preferences.setdefault(name.strip().lower(), value.strip().strip('"').lower())
    return preferences


def parse_request_timeout(value: str | None, limit_s: float) -> float:
    """Return the seconds that a request may take: Request-Timeout, at most ``limit_s``."""
    if value is None:
        return limit_s
    seconds = _parse_number(value)
    if seconds is None or not 0 < seconds < float("inf"):
        raise invalid_header("Request-Timeout", f"`{value[:50]}` must be a positive number of seconds")
    return min(seconds, limit_s)


def _parse_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
