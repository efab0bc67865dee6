"""Reads the headers by which a caller chooses how a request is answered.

They are Accept (RFC 9110), Prefer (RFC 7240) and Request-Timeout.
"""

import re
from collections.abc import Sequence

from serve.problems import Problem, invalid_header


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
