"""What is denied without a rule, and the addresses that are inside of others."""

from __future__ import annotations

import ipaddress

import pytest

from sentry.net.egress.ranges import OWN, Denied, forms


def number(address: str) -> int:
    parsed = ipaddress.ip_address(address)
    return int(parsed) if parsed.version == 6 else 0xFFFF << 32 | int(parsed)


@pytest.mark.parametrize(("address", "inside"), [
    ("::ffff:10.0.0.1", []),  # is the IPv4 address
    ("::10.0.0.1", ["10.0.0.1"]),
    ("::ffff:0:10.0.0.1", ["10.0.0.1"]),
    ("64:ff9b::10.0.0.1", ["10.0.0.1"]),
    ("64:ff9b:1::10.0.0.1", ["10.0.0.1"]),
    ("2002:a00:1::5", ["10.0.0.1"]),
    ("2001:0:808:808:0:0:f5ff:fffe", ["8.8.8.8", "10.0.0.1"]),
    ("2001:db8::5efe:10.0.0.1", ["10.0.0.1"]),
    ("2001:db8::200:5efe:10.0.0.1", ["10.0.0.1"]),
    ("2001:db8::a00:1", []),
    ("64:ff9b:2::10.0.0.1", []),
    ("::", []),
    ("::1", []),
])  # fmt: skip
def test_ipv4_address_inside_is_found(address: str, inside: list[str]) -> None:
    assert forms(number(address)) == (number(address), *map(number, inside))


@pytest.mark.parametrize(("address", "length", "reason"), [
    ("169.254.169.254", 128, "the metadata of a cloud"),
    ("169.254.1.1", 112, "link-local"),
    ("10.255.255.255", 104, "a private range"),
    ("172.31.0.1", 108, "a private range"),
    ("192.168.1.1", 112, "a private range"),
    ("100.64.0.1", 106, "a private range"),
    ("127.8.8.8", 104, "the host itself"),
    ("0.0.0.0", 104, "the host itself"),
    ("::1", 128, "the host itself"),
    ("::", 128, "the host itself"),
    ("fe80::1", 10, "link-local"),
    ("fd00::1", 7, "a private range"),
    ("fd00:ec2::254", 128, "the metadata of a cloud"),
    ("239.1.1.1", 100, "multicast"),
    ("ff02::1", 8, "multicast"),
    ("255.255.255.255", 100, "no address of the outside"),
    ("64:ff9b:1::1", 48, "a local translator"),
    ("203.0.113.9", 128, OWN),
    ("2001:db8::9", 128, OWN),
    ("203.0.113.8", 0, ""),
    ("8.8.8.8", 0, ""),
    ("172.32.0.1", 0, ""),
    ("2600::1", 0, ""),
])  # fmt: skip
def test_narrowest_denied_range_is_found(address: str, length: int, reason: str) -> None:
    denied = Denied(["203.0.113.9", "2001:db8::9"])

    assert denied.narrowest(number(address)) == (length, reason)
