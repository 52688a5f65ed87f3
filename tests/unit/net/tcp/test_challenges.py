"""The budget of challenge ACKs. RFC 5961, 7."""

from __future__ import annotations

from sentry.net.tcp.challenges import UNLIMITED, Challenges
from tests.unit.net.tcp.pair import SECOND


def test_so_many_are_allowed_in_a_second() -> None:
    made = Challenges()

    assert sum(made.allowed(at, 3) for at in range(100)) == 3
    assert made.allowed(SECOND, 3)


def test_no_limit_is_none() -> None:
    assert all(Challenges().allowed(0, UNLIMITED) for _ in range(100))
