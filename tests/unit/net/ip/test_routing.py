"""The table against a look at all routes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sentry.abi.netlink import RT_TABLE_LOCAL, RTN_BROADCAST, RTN_LOCAL
from sentry.abi.socket import AF_INET
from sentry.net.interfaces import masked
from sentry.net.ip.routing import Fib
from sentry.net.routes import Route
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
