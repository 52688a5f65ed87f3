"""Flows keep their next hop, and take them as often as their weights say."""

from __future__ import annotations

from collections import Counter

from sentry.abi.socket import IPPROTO_TCP
from sentry.net.ip.multipath import LAYER_4, chosen
from sentry.net.routes import Hop
from sentry.net.rules import RouteKey
from tests.unit.net.wired import ip4

SEED = b"12345678"
HOPS = (Hop(2, ip4(1), 1), Hop(3, ip4(2), 3))


def taken(policy: int, keys: list[RouteKey], seed: bytes = SEED) -> Counter[int]:
    return Counter(chosen(HOPS, seed, ip4(9), key, policy).interface for key in keys)


def sources() -> list[RouteKey]:
    return [RouteKey(number.to_bytes(4), port=number) for number in range(4000)]


def test_weights_count() -> None:
    found = taken(0, sources())
    assert 800 < found[2] < 1200 and found[2] + found[3] == 4000


def test_ports_count_only_if_asked_for() -> None:
    keys = [RouteKey(ip4(2), protocol=IPPROTO_TCP, port=port) for port in range(4000)]
    assert len(taken(0, keys)) == 1
    found = taken(LAYER_4, keys)
    assert 800 < found[2] < 1200


def test_flow_keeps_its_way_and_nobody_knows_which_it_is() -> None:
    one, same = (
        [chosen(HOPS, SEED, ip4(9), key, 0) for key in sources()] for _ in range(2)
    )
    other = [chosen(HOPS, b"another!", ip4(9), key, 0) for key in sources()]
    assert one == same != other


def test_only_one_is_taken() -> None:
    assert chosen(HOPS[1:], SEED, ip4(9), RouteKey(), 0) == HOPS[1]
