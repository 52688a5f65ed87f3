"""Numbers that are nobody's to guess. RFC 6528, 7323."""

from __future__ import annotations

import pytest

from sentry.net.inet.address import MAPPED, Endpoint
from sentry.net.tcp.keyed import Flow, Keyed
from tests.unit.net.tcp.pair import LEFT, RIGHT, SECOND

ONE, OTHER = Keyed(b"1" * 16), Keyed(b"2" * 16)
FLOW = Flow(LEFT, RIGHT)
NEXT = Flow(Endpoint(LEFT.ip, LEFT.port + 1), RIGHT)


def test_sequence_numbers_of_a_flow_go_up_with_time() -> None:
    first = ONE.initial_sequence(0, FLOW)

    assert (ONE.initial_sequence(SECOND, FLOW) - first) & 0xFFFFFFFF == SECOND >> 6


def test_sequence_numbers_of_flows_have_nothing_in_common() -> None:
    apart = {
        (ONE.initial_sequence(0, Flow(Endpoint(LEFT.ip, port + 1), RIGHT))
         - ONE.initial_sequence(0, Flow(Endpoint(LEFT.ip, port), RIGHT))) & 0xFFFFFFFF
        for port in range(100)
    }  # fmt: skip

    assert len(apart) == 100


def test_other_secret_makes_other_numbers() -> None:
    assert ONE.initial_sequence(0, FLOW) != OTHER.initial_sequence(0, FLOW)
    assert ONE.timestamp_offset(FLOW) != OTHER.timestamp_offset(FLOW)
    assert ONE.cookie(FLOW, 5, 1) != OTHER.cookie(FLOW, 5, 1)


def test_timestamps_of_two_hosts_go_on_over_ports() -> None:
    elsewhere = Flow(LEFT, Endpoint(MAPPED + b"\x0a\0\0\x03", 80))

    assert ONE.timestamp_offset(FLOW) == ONE.timestamp_offset(NEXT)
    assert ONE.timestamp_offset(FLOW) != ONE.timestamp_offset(elsewhere)


def test_cookie_of_another_minute_is_another_one() -> None:
    assert ONE.cookie(FLOW, 5, 1) != ONE.cookie(FLOW, 5, 2)


def test_short_secret_is_none() -> None:
    with pytest.raises(ValueError, match="short"):
        Keyed(b"short")
