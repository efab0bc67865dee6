"""Links that admit their holder to one path for a limited time, without the caller's key.

A page's EventSource and a download by an `<a>` element send no `Authorization` header. A link is
signed with a key that is derived from the hash of its caller's own key, so that no other secret is
needed, whoever removes the key also removes its links, and no caller can sign for another one.
"""

import hashlib
import hmac
import math
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

LIFETIME_S = 3600
"""Seconds for which a link is valid, at least."""
PATHS = "/jobs/"
"""What the paths begin with that a link can admit to."""
_STEP_S = 60
"""The expiry is rounded up to this many seconds, so that a record does not change all the time."""


def is_signed(query: QueryParams) -> bool:
    """Return whether the query of a request claims to be signed."""
    return "signature" in query


def key_id(digest: str) -> str:
    """Return the name by which links refer to a key, given the key's SHA-256 in hex."""
    return _derive(digest, b"id")[:8].hex()


def sign(path: str, *, digest: str, now: float) -> str:
    """Return the query that admits to ``path`` until about ``LIFETIME_S`` after ``now``."""
    expires = math.ceil((now + LIFETIME_S) / _STEP_S) * _STEP_S
    return urlencode({"key": key_id(digest), "expires": expires, "signature": _signature(path, expires, digest)})


def is_valid(path: str, query: QueryParams, *, digest: str, now: float) -> bool:
    """Return whether ``query`` admits to ``path`` now and was signed with this key."""
    expires, signature = query.get("expires", ""), query.get("signature", "")
    if not (expires.isascii() and expires.isdecimal() and len(expires) <= 12 and signature.isascii()):
        return False
    return now < int(expires) and hmac.compare_digest(signature, _signature(path, int(expires), digest))


def _signature(path: str, expires: int, digest: str) -> str:
    return hmac.digest(_derive(digest, b"signature"), f"{path}\n{expires}".encode(), hashlib.sha256).hex()


def _derive(digest: str, purpose: bytes) -> bytes:
    return hmac.digest(bytes.fromhex(digest), b"ryla link v1: " + purpose, hashlib.sha256)
