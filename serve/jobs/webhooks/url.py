"""Where webhooks may go: the hosts that the settings name, at addresses that are public."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx

from serve.job_settings import WebhookSettings

MAX_CHARS = 2048
"""Length up to which a URL is accepted."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host, given a port too. Raises OSError."""

_NAT64 = IPv6Network("64:ff9b::/96")
_NOT_PUBLIC = (IPv4Network("192.88.99.0/24"), IPv6Network("3fff::/20"))
"""Networks of IANA's registries of special addresses that `ipaddress` takes for public."""
_ISATAP = (0x00005EFE, 0x02005EFE)
"""The middle of an IPv6 address that carries an IPv4 address (RFC 5214)."""


class Refused(ValueError):
    """The URL must not be called, now or later."""


def allowed_url(text: str, settings: WebhookSettings) -> httpx.URL:
    """Return the URL of a webhook. Raises Refused, with the remedy, if it is not allowed.

    No name is resolved here: what a name stands for may be another address by the time of sending.
    """
    if not settings.enabled:
        raise Refused("this service sends no webhooks: leave it out, and ask for the job's record instead")
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise Refused("must be a URL such as `https://hooks.example.org/path`") from None
    host = url.raw_host.decode("ascii")
    if len(text) > MAX_CHARS:
        raise Refused(f"has {len(text)} characters: send at most {MAX_CHARS}")
    if url.scheme not in ("http", "https") or not host or not _is_name(url):
        raise Refused("must be a URL such as `https://hooks.example.org/path`")
    if url.userinfo:
        raise Refused("must not contain a user or a password: webhooks are signed, and the receiver can verify them")
    if url.fragment:
        raise Refused("must not contain a fragment: leave out `#` and what follows")
    if host in settings.private_hosts:
        return url
    if not any(_matches(host, pattern) for pattern in settings.hosts):
        raise Refused(
            f"the host {host} gets no webhooks: the service's operator allows hosts in the setting jobs.webhooks.hosts"
        )
    if url.scheme != "https":
        raise Refused("must begin with `https://`")
    if _is_address(host) and not is_public(host):
        raise Refused(f"{host} is not a public address")
    return url


async def addresses_of(url: httpx.URL, settings: WebhookSettings, resolve: Resolve) -> Sequence[str]:
    """Return the addresses at which ``url`` may be called, in the resolver's order.

    Raises Refused if any of them is not public and the host is not one of the private hosts, and
    OSError if the name cannot be resolved.
    """
    host = url.raw_host.decode("ascii")
    addresses = await resolve(host, port_of(url))
    if not addresses:
        raise OSError(f"{host} has no address")
    if host not in settings.private_hosts:
        for address in addresses:
            if not is_public(address):
                raise Refused(f"{host} has an address that is not public")
    return addresses


def port_of(url: httpx.URL) -> int:
    """Return the port of ``url``, or the usual one of its scheme."""
    return url.port or (443 if url.scheme == "https" else 80)


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of ``host`` as the system resolves them. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(text: str) -> bool:
    """Return whether an address is one of the public internet.

    An IPv6 address through which an IPv4 address is reached is judged by that.
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return _is_public(inner)
    return _is_public(address)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    special = address.is_multicast or address.is_reserved or address.is_unspecified
    local = isinstance(address, IPv6Address) and address.is_site_local
    unknown = any(address in network for network in _NOT_PUBLIC)
    return address.is_global and not special and not local and not unknown


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64 or int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_name(url: httpx.URL) -> bool:
    """Return whether the host's name can be resolved and shown.

    Its parts have 1 to 63 characters, and those that begin with `xn--` can be decoded.
    """
    try:
        url.raw_host.decode("ascii").encode("idna")
        return bool(url.host)
    except UnicodeError:  # of Python's codec and of the package idna
        return False


def _matches(host: str, pattern: str) -> bool:
    return host.endswith(pattern[1:]) and host != pattern[1:] if pattern.startswith("*.") else host == pattern
