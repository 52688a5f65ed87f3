"""From which address: the examples of RFC 6724, 10.1, and inet_select_addr()."""

from __future__ import annotations

import socket

import pytest

from sentry.abi.netlink import (
    ARPHRD_ETHER,
    IFA_F_DEPRECATED,
    IFA_F_SECONDARY,
    IFA_F_TEMPORARY,
    IFA_F_TENTATIVE,
    IFF_UP,
)
from sentry.abi.socket import AF_INET, AF_INET6
from sentry.net.interfaces import GLOBAL, LINK, SITE, Address, Interface, scope6
from sentry.net.ip.source import common_prefix, label, select4, select6


def packed(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def interface(index: int, *addresses: str, flags: int = 0, prefix: int = 64) -> Interface:
    made = Interface(index, f"eth{index}", ARPHRD_ETHER, IFF_UP)
    for text in addresses:
        family = AF_INET6 if ":" in text else AF_INET
        size = prefix if family == AF_INET6 else 24
        made.addresses.append(Address(family, packed(text), size, 0, flags=flags))
    return made


@pytest.mark.parametrize(("target", "own", "best"), [
    ("2001:db8:1::1", ["2001:db8:3::1", "fe80::1"], "2001:db8:3::1"),
    ("ff05::1", ["2001:db8:3::1", "fe80::1"], "2001:db8:3::1"),
    ("fe80::2", ["2001:db8:3::1", "fe80::1"], "fe80::1"),
    ("2001:db8:1::1", ["2001:db8:1::1", "2001:db8:2::1"], "2001:db8:1::1"),
    ("2001:db8:1::5", ["2001:db8:2::9", "2001:db8:1::9"], "2001:db8:1::9"),
    ("2002:c633:6401::1", ["2001:db8:1::2", "2002:c633:6401::d5e3"], "2002:c633:6401::d5e3"),
    ("fd00:1::1", ["2001:db8::1", "fd00:2::1"], "fd00:2::1"),
])  # fmt: skip
def test_best_address_by_the_rules(target: str, own: list[str], best: str) -> None:
    for order in (own, own[::-1]):
        out = interface(2, *order)
        assert select6(out, [out], packed(target)) == packed(best)


def test_deprecated_temporary_and_tentative_addresses_come_last_or_never() -> None:
    out = interface(2, "2001:db8::1")
    for flags, text in ((IFA_F_DEPRECATED, "2001:db8::2"), (IFA_F_TEMPORARY, "2001:db8::3")):
        out.addresses.insert(0, Address(AF_INET6, packed(text), 64, 0, flags=flags))
    out.addresses.insert(0, Address(AF_INET6, packed("2001:db8::9"), 64, 0, flags=IFA_F_TENTATIVE))
    assert select6(out, [out], packed("2001:db8::9")) == packed("2001:db8::1")
    del out.addresses[-1]
    assert select6(out, [out], packed("2001:db8::8")) == packed("2001:db8::3")


def test_outgoing_interface_comes_before_a_longer_prefix() -> None:
    out, other = interface(2, "2001:db8:9::1"), interface(3, "2001:db8:1::1")
    assert select6(out, [other, out], packed("2001:db8:1::2")) == packed("2001:db8:9::1")
    none = interface(4)
    assert select6(none, [other, none], packed("2001:db8:1::2")) == packed("2001:db8:1::1")
    assert select6(none, [other, none], packed("fe80::1")) == b""


def test_of_equal_addresses_the_one_that_was_added_last_is_taken() -> None:
    out = interface(2, "10.0.0.1")
    for text in ("fe80::1", "2001:db8::1", "2001:db8::2", "fe80::2"):
        out.add(Address(AF_INET6, packed(text), 64, 0))
    assert [own.ip for own in out.of_family(AF_INET6)] == [
        packed(text) for text in ("2001:db8::2", "2001:db8::1", "fe80::2", "fe80::1")
    ]
    assert select6(out, [out], packed("2001:db8::8")) == packed("2001:db8::2")
    assert select6(out, [out], packed("fe80::8")) == packed("fe80::2")


def test_ipv4_prefers_the_network_of_the_target_and_primary_addresses() -> None:
    out = interface(2, "10.0.0.1", "10.0.1.1")
    assert select4(out, packed("10.0.1.9")) == packed("10.0.1.1")
    assert select4(out, packed("8.8.8.8")) == packed("10.0.0.1")
    out.addresses[0].flags |= IFA_F_SECONDARY
    assert select4(out, packed("8.8.8.8")) == packed("10.0.1.1")
    assert select4(interface(3), packed("8.8.8.8")) == b""


def test_scopes_labels_and_prefixes() -> None:
    assert [scope6(packed(t)) for t in ("fe80::1", "::1", "ff05::1", "2001::1", "fec0::1")] == [
        LINK, LINK, 5, GLOBAL, SITE,
    ]  # fmt: skip
    assert [label(packed(t)) for t in ("::1", "2002::1", "2001::1", "fd00::1", "2a00::1")] == [
        0, 2, 5, 6, 1,
    ]  # fmt: skip
    assert common_prefix(packed("fd00::"), packed("fd00::1")) == 127
    assert common_prefix(bytes(16), bytes(16)) == 128
