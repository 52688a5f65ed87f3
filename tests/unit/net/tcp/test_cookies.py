"""SYN cookies hold what they were made of, for two minutes, for their flow."""

from __future__ import annotations

import pytest

from sentry.net.tcp import cookies
from sentry.net.tcp.keyed import Flow, Keyed
from sentry.net.tcp.request import Agreed
from sentry.net.tcp.settings import Settings
from tests.unit.net.tcp.pair import LEFT, RIGHT, SECOND

KEYED = Keyed(b"k" * 16)
FLOW = Flow(RIGHT, LEFT)
NOW = 10_000 * SECOND


@pytest.mark.parametrize(
    ("mss", "held"), [(0, 536), (536, 536), (1459, 1440), (1460, 1460), (65535, 8960)]
)
def test_mss_comes_back_no_larger(mss: int, held: int) -> None:
    made = cookies.make(KEYED, NOW, FLOW, 77, mss)

    assert cookies.check(KEYED, NOW + SECOND, FLOW, 77, made) == held


def test_old_one_is_none() -> None:
    made = cookies.make(KEYED, NOW, FLOW, 77, 1460)

    assert not cookies.check(KEYED, NOW + 2 * cookies.MINUTE_NS, FLOW, 77, made)


def test_other_flow_number_or_secret_makes_it_none() -> None:
    made = cookies.make(KEYED, NOW, FLOW, 77, 1460)

    assert not cookies.check(KEYED, NOW, Flow(LEFT, RIGHT), 77, made)
    assert not cookies.check(KEYED, NOW, FLOW, 78, made)
    assert not cookies.check(Keyed(b"x" * 16), NOW, FLOW, 77, made)


def test_few_of_all_numbers_are_cookies() -> None:
    made = cookies.make(KEYED, NOW, FLOW, 77, 1460)

    found = [cookies.check(KEYED, NOW, FLOW, 77, made + step) for step in range(9, 5000)]
    assert not any(found)


@pytest.mark.parametrize("agreed", [
    Agreed(0, 7, True, 5, True), Agreed(0, None, False, 5, False), Agreed(0, 14, False, 5, True),
])  # fmt: skip
def test_options_come_back_by_a_timestamp_that_is_not_late(agreed: Agreed) -> None:
    for offset in range(0, 200, 7):
        made = cookies.offset_with(NOW, offset, agreed)
        shown = (NOW // 1_000_000 + made) & 0xFFFFFFFF
        behind = (NOW // 1_000_000 + offset - shown) & 0xFFFFFFFF
        found = cookies.agreed_in(shown, Settings(), 1460, 5)

        assert behind < 64
        assert found is not None
        assert (found.snd_scale, found.has_sack, found.has_ecn) == (
            agreed.snd_scale, agreed.has_sack, agreed.has_ecn,
        )  # fmt: skip


def test_options_that_are_switched_off_meanwhile_are_not_believed() -> None:
    shown = 7 | cookies.HAS_SACK

    assert cookies.agreed_in(shown, Settings(tcp_sack=0), 1460, 5) is None
    assert cookies.agreed_in(shown, Settings(tcp_window_scaling=0), 1460, 5) is None
    assert cookies.agreed_in(shown, Settings(tcp_timestamps=0), 1460, 5) is None
