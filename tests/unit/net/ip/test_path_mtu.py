"""What is learned of ways."""

from __future__ import annotations

from sentry.net.ip import path_mtu
from sentry.net.ip.path_mtu import Exceptions
from tests.unit.net.wired import SECOND_NS, ip4, ip6


def test_mtu_shrinks_and_is_forgotten_after_ten_minutes() -> None:
    made = Exceptions()
    assert made.learn_mtu(0, ip4(9), 1400, 1500) == 1400
    assert made.learn_mtu(0, ip4(9), 1450, 1400) == 1400
    found = made.get(599 * SECOND_NS, ip4(9))
    assert found is not None and (found.mtu, found.may_fragment) == (1400, False)
    assert made.get(600 * SECOND_NS, ip4(9)) is None and not len(made)


def test_mtu_is_not_less_than_each_link_carries() -> None:
    made = Exceptions()
    assert made.learn_mtu(0, ip6(9), 0, 1500) == 1280
    assert made.learn_mtu(0, ip4(9), 0, 1500) == 552
    found = made.get(0, ip4(9))
    assert found is not None and found.may_fragment
    assert made.learn_mtu(0, ip4(8), 68, 500) == 500


def test_gateway_outlives_the_mtu() -> None:
    made = Exceptions()
    made.learn_gateway(ip4(9), ip4(3))
    made.learn_mtu(0, ip4(9), 1400, 1500)
    found = made.get(601 * SECOND_NS, ip4(9))
    assert found is not None and (found.mtu, found.gateway) == (0, ip4(3))


def test_number_is_bounded_and_the_oldest_goes() -> None:
    made = Exceptions()
    for number in range(path_mtu.MAX_EXCEPTIONS + 1):
        made.learn_mtu(0, bytes([10, 1]) + number.to_bytes(2), 1400, 1500)
    assert len(made) == path_mtu.MAX_EXCEPTIONS
    assert made.get(0, bytes([10, 1, 0, 0])) is None
    made.clear()
    assert not len(made)
