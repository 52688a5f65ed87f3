"""Names of addresses: how long they hold, and how many there are."""

from __future__ import annotations

import pytest

from sentry.net.names import given as module
from sentry.net.names.given import GRACE_NS, MAX_NAMES, Given

A, B = b"a" * 16, b"b" * 16
NS = 1_000_000_000


def test_name_holds_for_its_ttl_and_a_minute() -> None:
    given = Given()
    given.remember(A, "a.org", 5 * NS, 0)

    assert given.names_of(A, 5 * NS + GRACE_NS - 1) == ("a.org",)
    assert given.names_of(B, 0) == ()
    assert given.names_of(A, 5 * NS + GRACE_NS) == ()
    assert len(given) == 0


def test_shorter_ttl_takes_nothing_away() -> None:
    given = Given()
    given.remember(A, "a.org", 100 * NS, 0)
    given.remember(A, "a.org", 0, NS)

    assert given.names_of(A, 100 * NS) == ("a.org",)
    assert len(given) == 1


def test_address_has_several_names() -> None:
    given = Given()
    given.remember(A, "a.org", 0, 0)
    given.remember(A, "b.org", 10 * NS, 0)

    assert given.names_of(A, 0) == ("a.org", "b.org")
    assert given.names_of(A, GRACE_NS) == ("b.org",)


def test_name_that_was_given_last_stands_at_the_end() -> None:
    given = Given()
    for name in ("a.org", "b.org", "a.org"):
        given.remember(A, name, 0, 0)

    assert given.names_of(A, 0) == ("b.org", "a.org")
    assert len(given) == 2


def test_names_of_an_address_are_bounded_and_the_first_to_end_goes() -> None:
    given = Given()
    for number in range(MAX_NAMES + 1):
        given.remember(A, f"{number}.org", (100 - number) * NS, 0)

    assert given.names_of(A, 0) == tuple(f"{number}.org" for number in range(MAX_NAMES))
    assert len(given) == MAX_NAMES


def test_names_in_all_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GIVEN", 10)
    given = Given()
    for number in range(100):
        given.remember(number.to_bytes(16), "a.org", 0, 0)
        given.remember(number.to_bytes(16), "b.org", 0, 0)

    assert len(given) == 10
    assert given.names_of((99).to_bytes(16), 0) == ("a.org", "b.org")
    assert given.names_of((94).to_bytes(16), 0) == ()


def test_what_is_past_goes_as_others_come() -> None:
    given = Given()
    for number in range(100):
        given.remember(number.to_bytes(16), "a.org", 0, 0)
    for number in range(100, 150):
        given.remember(number.to_bytes(16), "a.org", 0, GRACE_NS)

    assert len(given) == 50
