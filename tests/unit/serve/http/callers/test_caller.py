import pytest

from serve.http.callers.caller import caller_of_scope, network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:0DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_a_client_is_known_by_its_ipv4_address_or_its_ipv6_network(address: str, network: str) -> None:
    assert caller_of_scope({"client": (address, 1), "state": {}}) == network_of(address) == network


def test_all_addresses_of_one_customer_are_one_caller_and_another_customer_is_not() -> None:
    assert len({network_of(f"2001:db8::{number:x}") for number in range(1000)}) == 1
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8:0:2::1")


def test_a_key_names_its_caller_wherever_it_calls_from() -> None:
    assert caller_of_scope({"client": ("192.0.2.7", 1), "state": {"caller": "anna"}}) == "anna"
    assert caller_of_scope({"client": None}) == ""
