"""The URLs to which webhooks may go, and the addresses that count as public."""

from collections.abc import Sequence

import httpx
import pytest

from serve.job_settings import WebhookSettings
from serve.jobs.webhooks.deliveries import check_url
from serve.jobs.webhooks.url import Refused, addresses_of, is_public

SETTINGS = WebhookSettings.model_validate(
    {
        "hosts": ["hooks.example.org", "*.example.com", "10.1.1.1", "8.8.8.8"],
        "private_hosts": ["inside", "10.0.0.5", "fd00::5"],
        "secret_file": "/keys",
    }
)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.org",
        "https://hooks.example.org:8443/a/b?c=d",
        "HTTPS://HOOKS.example.org/",
        "https://a.b.example.com/x",
        f"https://{'a' * 63}.example.com/",
        "https://bücher.example.com/",
        "https://xn--bcher-kva.example.com/",
        "https://8.8.8.8/x",
        "http://inside:9000/x",
        "https://inside/x",
        "http://10.0.0.5/x",
        "http://[fd00::5]:81/x",
    ],
)
def test_hosts_that_the_settings_name_are_allowed(url: str) -> None:
    check_url(url, SETTINGS)


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://hooks.example.org/", "must begin with `https://`"),
        ("https://example.com/", "jobs.webhooks.hosts"),
        ("https://evilexample.com/", "jobs.webhooks.hosts"),
        ("https://hooks.example.org.evil.net/", "jobs.webhooks.hosts"),
        ("https://hooks.example.org./", "jobs.webhooks.hosts"),
        ("https://evil.net#.example.com", "fragment"),
        ("https://evil.net\\@hooks.example.org/", "user or a password|must be a URL|jobs.webhooks.hosts"),
        ("https://hooks.example.org@evil.net/", "user or a password"),
        ("https://ann:pw@hooks.example.org/", "user or a password"),
        ("https://0x0a000005/", "jobs.webhooks.hosts"),
        ("https://10.1.1.1/", "not a public address"),
        ("https://127.0.0.1/", "jobs.webhooks.hosts"),
        ("https://[::ffff:10.0.0.5]/", "jobs.webhooks.hosts"),
        ("ftp://inside/", "must be a URL"),
        ("file:///etc/passwd", "must be a URL"),
        ("hooks.example.org/x", "must be a URL"),
        ("https://a..example.com/", "must be a URL"),
        (f"https://{'a' * 64}.example.com/", "must be a URL"),
        ("https://xn--0.example.com/", "must be a URL"),
        ("https://xn--.example.com/", "must be a URL"),
        ("https://xn--a.xn--zz.example.com/", "must be a URL"),
        ("https://", "must be a URL"),
        ("", "must be a URL"),
        ("https://hooks.example.org/\n", "must be a URL"),
        ("https://hooks.example.org/" + "x" * 2048, "at most 2048"),
    ],
)
def test_other_urls_are_refused_with_the_remedy(url: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        check_url(url, SETTINGS)


def test_by_default_there_are_no_webhooks() -> None:
    with pytest.raises(ValueError, match="this service sends no webhooks"):
        check_url("https://hooks.example.org/", WebhookSettings())


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%1", "fd00::1", "fc00::1",
        "ff02::1", "fec0::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "192.88.99.1", "3fff::1", "2606:4700::5efe:7f00:1", "2606:4700::200:5efe:a00:1",
    ],
)  # fmt: skip
def test_private_and_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::200:5efe:808:808"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


def resolver(*addresses: str):  # type: ignore[no-untyped-def]
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


async def test_one_private_address_among_public_ones_refuses_the_name() -> None:
    url = httpx.URL("https://hooks.example.org/")
    assert await addresses_of(url, SETTINGS, resolver("8.8.8.8", "8.8.4.4")) == ("8.8.8.8", "8.8.4.4")
    with pytest.raises(Refused, match="not public"):
        await addresses_of(url, SETTINGS, resolver("8.8.8.8", "127.0.0.1"))
    with pytest.raises(OSError, match="no address"):
        await addresses_of(url, SETTINGS, resolver())
    assert await addresses_of(httpx.URL("http://inside/"), SETTINGS, resolver("10.0.0.9")) == ("10.0.0.9",)
