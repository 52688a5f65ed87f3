"""The table against a look at all routes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.abi.netlink import RT_TABLE_LOCAL, RTN_BROADCAST, RTN_LOCAL
from sentry.abi.socket import AF_INET
from sentry.net.interfaces import masked
from sentry.net.ip.routing import MAX_FOUND, Fib
from sentry.net.routes import Hop, Route
from sentry.net.rules import Rule
from sentry.wait.steps import at_once
from tests.unit.net.wired import Host, ip4, ip6

ROUTES = st.lists(
    st.builds(
        lambda ip, length, index, metric: Route(
            AF_INET, masked(ip, length), length, index, metric=metric
        ),
        st.binary(min_size=4, max_size=4).map(lambda b: bytes(each & 3 for each in b)),
        st.integers(0, 32),
        st.integers(2, 4),
        st.integers(0, 3),
    ),
    max_size=8,
)


def made(routes: list[Route]) -> Fib:
    fib = Fib()
    at_once(fib.rebuild(routes))
    return fib


@given(ROUTES, st.binary(min_size=4, max_size=4).map(lambda b: bytes(e & 3 for e in b)))
def test_longest_prefix_wins_then_the_lowest_metric(routes: list[Route], ip: bytes) -> None:
    fib = made(routes)
    for index in (0, 2, 3):
        fitting = [r for r in routes if r.matches(ip) and index in (0, r.index)]
        best = min(fitting, key=lambda r: (-r.length, r.metric), default=None)
        assert fib.lookup(ip, index) == best


@given(st.lists(ROUTES, min_size=2, max_size=3))
def test_what_was_found_before_counts_no_more_with_other_routes(each: list[list[Route]]) -> None:
    fib = Fib()
    for routes in each:
        at_once(fib.rebuild(routes))
        for _ in range(2):
            for number in range(4):
                ip = bytes((number & 1, number >> 1, 2, 3))
                assert fib.lookup(ip) == made(routes).lookup(ip)
                assert fib.local(ip) == made(routes).local(ip)


def test_what_was_found_is_kept_within_bounds() -> None:
    fib = made([Route(AF_INET, bytes(4), 0, 2), Route(AF_INET, ip4(0), 24, 2, RT_TABLE_LOCAL)])
    for number in range(3 * MAX_FOUND):
        assert fib.lookup(number.to_bytes(4), 2) and not fib.local(number.to_bytes(4))
        assert len(fib._found) <= MAX_FOUND and len(fib._found_local) <= MAX_FOUND


def test_addresses_are_local_and_networks_have_a_broadcast_address() -> None:
    host = Host(1)
    kinds = [route.kind if (route := host.layer.fib.local(ip)) else None for ip in (
        ip4(1), ip4(255), ip4(2), ip6(1), b"\x7f\1\2\3", bytes(15) + b"\x01",
    )]  # fmt: skip
    assert kinds == [RTN_LOCAL, RTN_BROADCAST, None, RTN_LOCAL, RTN_LOCAL, RTN_LOCAL]
    assert host.layer.fib.lookup(ip4(1)) != host.layer.fib.local(ip4(1))


def test_old_routes_count_until_all_new_ones_are_there() -> None:
    first = Route(AF_INET, ip4(0), 24, 2)
    fib = made([first])
    steps = fib.rebuild([Route(AF_INET, ip4(n), 32, 3, RT_TABLE_LOCAL) for n in range(100)])
    next(steps)
    assert fib.lookup(ip4(1)) == first
    at_once(steps)
    assert fib.lookup(ip4(1)) is None and fib.local(ip4(1)) is not None


def test_packets_are_told_apart_only_where_a_route_or_rule_does() -> None:
    plain = Route(AF_INET, ip4(0), 24, 2)
    several = Route(AF_INET, ip4(0), 24, 2, hops=(Hop(2), Hop(3)))
    assert not made([plain]).asks and made([plain, several]).asks
    fib = made([plain])
    fib.rules.add(Rule(AF_INET, 5, 100, mark=1, mask=1))
    fib.outdate([plain])
    assert fib.asks


def test_a_table_is_asked_once_however_many_rules_lead_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fib = made([])
    for number in range(200):
        fib.rules.add(Rule(AF_INET, number, 100 + number % 2))
    asked: list[int] = []
    monkeypatch.setattr(fib, "_of_table", lambda table, ip, key: asked.append(table))
    assert fib.lookup(ip4(1)) is None
    assert asked.count(100) == asked.count(101) == 1
