"""Reads the headers by which a caller chooses: Accept (RFC 9110), Prefer (RFC 7240), Request-Timeout."""

import re
from collections.abc import Sequence

from serve.errors import Problem, invalid


def choose_media_type(accept: str | None, offered: Sequence[str]) -> str:
    """The first of ``offered`` among those with the highest quality; raises Problem 406 if none is acceptable."""
    if not accept or not accept.strip():
        return offered[0]
    qualities = [_quality(accept, media_type) for media_type in offered]
    best = max(qualities)
    if best <= 0:
        raise Problem(406, "not-acceptable", f"Accept is `{accept[:100]}`; this path offers {', '.join(offered)}")
    return offered[qualities.index(best)]


def _quality(accept: str, media_type: str) -> float:
    """The quality of the most specific range that matches."""
    ranges = {media_type: 3, media_type.split("/")[0] + "/*": 2, "*/*": 1}
    specificity, quality = 0, 0.0
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if ranges.get(name, 0) > specificity:
            specificity, quality = ranges[name], 1.0
            for parameter in parameters:
                if match := re.fullmatch(r"q\s*=\s*([0-9.]+)", parameter):
                    quality = _number(match.group(1)) or 0.0
    return quality


def preferences(values: Sequence[str]) -> dict[str, str]:
    """The preferences of all Prefer headers, lower case, without their parameters; the first of a name counts."""
    found: dict[str, str] = {}
    for part in ",".join(values).split(","):
        name, _, value = part.split(";")[0].partition("=")
        if name.strip():
            found.setdefault(name.strip().lower(), value.strip().strip('"').lower())
    return found


def request_timeout(value: str | None, limit_s: float) -> float:
    """Seconds that a request may take: what it asks for, at most the limit."""
    if value is None:
        return limit_s
    seconds = _number(value)
    if seconds is None or not 0 < seconds < float("inf"):
        raise invalid("Request-Timeout", f"`{value[:50]}` is no positive number of seconds")
    return min(seconds, limit_s)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
