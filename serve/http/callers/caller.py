"""Who sends a request: whose jobs it sees, and whose quotas and budgets it uses."""

import ipaddress
from functools import lru_cache

from starlette.requests import Request
from starlette.types import Scope

_NETWORK_BITS = 64
"""The length of the prefix that one customer of a network has, at least."""


def caller_of(request: Request) -> str:
    """Return the name of the caller's key, or of its network if no keys are configured."""
    return caller_of_scope(request.scope)


def caller_of_scope(scope: Scope) -> str:
    """Return the name of the caller of a request; see ``caller_of``."""
    return key_name_of(scope) or network_of((scope.get("client") or ("",))[0])


def key_name_of(scope: Scope) -> str:
    """Return the name of the key with which a request came, or nothing if it came without one."""
    name: str | None = scope.get("state", {}).get("caller")
    return name or ""


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return the name of a client without a key: its IPv4 address, or the /64 of its IPv6 address.

    Whoever has an IPv6 address has 2^64 of them, and an ordinary machine changes its own from time
    to time, so neither budgets nor jobs can go by the whole of it.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), _NETWORK_BITS), strict=False))
