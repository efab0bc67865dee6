"""Limits on the parts of a request's head that are split into lists, before anything splits them.

The head as a whole has a limit of its own, which is that of the connection. Some of its parts cost
far more to read than to send: 60 KiB of `;` in a Content-Type take most of a second.
"""

from collections import Counter

from starlette.types import Scope

from serve.problems import Problem

MAX_LIST_BYTES = 4096
"""Size of the query of a request, and of all headers of one name that is in ``LISTS``."""
LISTS = frozenset(
    {
        b"accept",
        b"content-encoding",
        b"content-type",
        b"if-match",
        b"if-none-match",
        b"if-range",
        b"prefer",
        b"range",
    }
)
"""The headers that are split where they are read."""


def check_head(scope: Scope) -> None:
    """Raise a 431 problem if the query, or a header that is split, is too long."""
    if (size := len(scope.get("query_string", b""))) > MAX_LIST_BYTES:
        raise Problem(431, "head-too-large", f"the query has {size} bytes; send at most {MAX_LIST_BYTES}")
    sizes: Counter[bytes] = Counter()
    for name, value in scope["headers"]:
        if name in LISTS:
            sizes[name] += len(value) + 1
    for name, size in sizes.items():
        if size - 1 > MAX_LIST_BYTES:
            detail = f"`{name.decode().title()}` has {size - 1} bytes; send at most {MAX_LIST_BYTES}"
            raise Problem(431, "head-too-large", detail)
