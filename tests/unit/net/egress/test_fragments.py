"""Fragments that programs make follow the first one of their packet."""

from __future__ import annotations

from sentry.net.egress.flows import SECOND, TCP, UDP, Flow, Key
from sentry.net.egress.fragments import HELD_NS, MAX_KNOWN, Datagram, Fragments
from sentry.net.egress.policy import Verdict

A, B = b"a" * 16, b"b" * 16


def flow(protocol: int = UDP) -> Flow:
    made = Flow(Key(protocol, A, 1, B, 2), None, Verdict(True, 1, ""))
    made.open = True
    return made


def test_later_fragment_belongs_to_the_flow_of_the_first() -> None:
    fragments, made = Fragments(), flow()
    fragments.first(Datagram(UDP, A, B, 7), made, 0)

    assert fragments.later(Datagram(UDP, A, B, 7), 8, SECOND) is made
    assert fragments.later(Datagram(UDP, A, B, 8), 8, SECOND) is None
    assert fragments.later(Datagram(UDP, B, A, 7), 8, SECOND) is None


def test_fragment_over_the_header_of_the_first_goes_nowhere() -> None:
    fragments = Fragments()
    fragments.first(Datagram(TCP, A, B, 7), flow(TCP), 0)
    fragments.first(Datagram(UDP, A, B, 7), flow(), 0)

    assert fragments.later(Datagram(TCP, A, B, 7), 8, 0) is None
    assert fragments.later(Datagram(TCP, A, B, 7), 16, 0) is None
    assert fragments.later(Datagram(TCP, A, B, 7), 24, 0) is not None
    assert fragments.later(Datagram(UDP, A, B, 7), 0, 0) is None


def test_fragment_of_a_flow_that_has_ended_or_of_long_ago_goes_nowhere() -> None:
    fragments, made = Fragments(), flow()
    fragments.first(Datagram(UDP, A, B, 7), made, 0)
    fragments.first(Datagram(UDP, A, B, 8), made, 0)

    assert fragments.later(Datagram(UDP, A, B, 8), 8, HELD_NS + 1) is None
    made.open = False
    assert fragments.later(Datagram(UDP, A, B, 7), 8, 0) is None


def test_firsts_are_bounded_and_the_oldest_go() -> None:
    fragments, made = Fragments(), flow()
    for ident in range(MAX_KNOWN + 1):
        fragments.first(Datagram(UDP, A, B, ident), made, 0)

    assert fragments.later(Datagram(UDP, A, B, 0), 8, 0) is None
    assert fragments.later(Datagram(UDP, A, B, MAX_KNOWN), 8, 0) is made
