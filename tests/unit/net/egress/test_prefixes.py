"""Ranges around an address, against the standard library's."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from sentry.net.egress.prefixes import MAPPED, Network, Prefixes, span

FEW = st.sampled_from([0, 1, 0x0A000000, 0x0A000001, 0x0A010000, 0x7F000001, 0xFFFFFFFF])


def network(version: int, address: int, length: int) -> Network:
    if version == 4:
        return ipaddress.IPv4Network((address & 0xFFFFFFFF, min(length, 32)), strict=False)
    return ipaddress.IPv6Network((address, length), strict=False)


ADDRESSES = FEW | FEW.map(lambda low: 0x20010DB8 << 96 | low) | st.integers(0, (1 << 128) - 1)
NETWORKS = st.builds(network, st.sampled_from([4, 6]), ADDRESSES, st.integers(0, 128))


@given(st.lists(NETWORKS, max_size=20), ADDRESSES | FEW.map(lambda low: MAPPED | low))
def test_ranges_of_an_address_are_those_that_have_it(ranges: list[Network], address: int) -> None:
    prefixes = Prefixes()
    for at, each in enumerate(ranges):
        prefixes.add(each, 1 << at)

    found = prefixes.around(address)

    expected: dict[int, int] = {}
    for at, each in enumerate(ranges):
        first, length = span(each)
        if first <= address < first + (1 << (128 - length)):
            expected[length] = expected.get(length, 0) | 1 << at
    assert found == sorted(expected.items(), reverse=True)


def test_ipv4_range_is_one_of_mapped_addresses() -> None:
    assert span(ipaddress.ip_network("10.0.0.0/8")) == (MAPPED | 0x0A000000, 104)
    assert span(ipaddress.ip_network("fe80::/10")) == (0xFE80 << 112, 10)
