"""The log of denials is bounded, in what it keeps and in how fast it grows."""

from __future__ import annotations

from sentry.net.egress.denials import MAX_KEPT, RATE, Denial, Denials
from sentry.net.egress.policy import Target

SECOND = 1_000_000_000


def denial(at_ns: int) -> Denial:
    return Denial(0, at_ns, ("a.org",), Target(6, bytes(16), 443), None, 1, "a rule")


def test_denials_are_numbered_and_read_from_a_number_on() -> None:
    log = Denials()
    for at in range(3):
        log.add(denial(at * SECOND))

    assert [each.number for each in log.since(0)] == [1, 2, 3]
    assert [each.at_ns for each in log.since(2)] == [2 * SECOND]


def test_too_many_at_once_are_counted_only() -> None:
    log = Denials()
    for _ in range(RATE + 50):
        log.add(denial(SECOND))

    assert len(log.since(0)) == RATE
    assert (log.count, log.untold) == (RATE + 50, 50)
    log.add(denial(3 * SECOND))
    assert log.since(RATE)[0].number == RATE + 1


def test_old_ones_go() -> None:
    log = Denials()
    for at in range(MAX_KEPT + 5):
        log.add(denial(at * SECOND))

    assert [log.since(0)[0].number, len(log.since(0))] == [6, MAX_KEPT]
