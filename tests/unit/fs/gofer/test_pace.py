"""Writes in place as long as the disk keeps up."""

from __future__ import annotations

import pytest

from sentry.fs.gofer.pace import MAX_IN_PLACE, PROBATION, RESPITE, SLOW_NS, Pace


class Host:
    """A clock, and a count of waits."""

    def __init__(self) -> None:
        self.ns = 1_000_000_000
        self.waits = 0
        self.pace = Pace(lambda: self.ns, lambda: self.waits)

    def write(self, took_ns: int = 0, waited: bool = False) -> bool:
        """Whether a write was made in place."""
        began = self.pace.begin(4096)
        if began:
            self.ns += took_ns
            self.waits += waited
            self.pace.end(began)
        return bool(began)


SLOW = SLOW_NS + 1


@pytest.fixture
def host() -> Host:
    return Host()


def test_quick_writes_stay_in_place(host: Host) -> None:
    assert all(host.write(SLOW_NS) for _ in range(3))


def test_second_write_that_waits_is_followed_by_a_time_without(host: Host) -> None:
    assert host.write(SLOW, waited=True)
    assert host.write(SLOW, waited=True)

    host.ns += RESPITE * SLOW - 1
    assert not host.write()
    host.ns += 1
    assert host.write()


def test_writes_that_only_lost_the_processor_stay_in_place(host: Host) -> None:
    assert all(host.write(SLOW) for _ in range(5))


def test_after_quick_ones_a_slow_write_is_the_first_again(host: Host) -> None:
    host.write(SLOW, waited=True)
    for _ in range(PROBATION):
        host.write()
    host.write(SLOW, waited=True)

    assert host.write()


def test_large_write_is_not_made_in_place(host: Host) -> None:
    assert host.pace.begin(MAX_IN_PLACE)
    assert not host.pace.begin(MAX_IN_PLACE + 1)
