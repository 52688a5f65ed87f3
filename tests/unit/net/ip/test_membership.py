"""What is announced of groups, and when."""

from __future__ import annotations

from typing import Any

import pytest

from sentry.abi.socket import MLD2_CHANGE_TO_EXCLUDE as JOINED
from sentry.abi.socket import MLD2_CHANGE_TO_INCLUDE as LEFT
from sentry.abi.socket import MLD2_MODE_IS_EXCLUDE as MEMBER
from sentry.net.ip.membership import AT_ONCE, GENERAL, MOST_GROUPS, OLDER_NS, SECOND_NS, Membership

ONE, OTHER = b"\xe1\0\0\x01", b"\xe1\0\0\x02"


class World:
    def __init__(self, *standing: bytes) -> None:
        self.said: list[tuple[int, bool, list[tuple[int, bytes]]]] = []
        self.of = Membership(lambda size: b"\x80" + bytes(size - 1), self._said, lambda: standing)

    def _said(self, now_ns: int, is_older: bool, records: list[Any]) -> None:
        self.said.append((now_ns * 10 // SECOND_NS, is_older, [tuple(each) for each in records]))

    def wait(self, until_s: int) -> list[Any]:
        """In tenths of a second: what is said until then."""
        while (at := self.of.timer()) is not None and at <= until_s * SECOND_NS:
            self.of.timeout(at)
        found, self.said = self.said, []
        return found


@pytest.fixture
def world() -> World:
    return World()


def test_change_is_told_twice(world: World) -> None:
    world.of.joined(0, ONE)
    assert world.wait(9) == [(0, False, [(JOINED, ONE)]), (5, False, [(JOINED, ONE)])]
    world.of.left(10 * SECOND_NS, ONE)
    assert world.wait(19) == [(100, False, [(LEFT, ONE)]), (105, False, [(LEFT, ONE)])]
    world.of.left(20 * SECOND_NS, ONE)
    assert world.wait(29) == []


def test_change_that_is_taken_back_is_not_told_again(world: World) -> None:
    world.of.joined(0, ONE)
    world.of.left(SECOND_NS // 10, ONE)
    assert [row[2] for row in world.wait(9)] == [[(JOINED, ONE)], [(LEFT, ONE)], [(LEFT, ONE)]]


def test_query_is_answered_within_its_time_for_all_or_for_one() -> None:
    world = World(OTHER)
    world.of.joined(0, ONE)
    world.wait(1)
    world.of.asked(10 * SECOND_NS, GENERAL, 10 * SECOND_NS, is_older=False)
    world.of.asked(10 * SECOND_NS, GENERAL, 10 * SECOND_NS, is_older=False)
    assert world.wait(30) == [(150, False, [(MEMBER, ONE), (MEMBER, OTHER)])]
    for group in (OTHER, b"\xe1\0\0\x03"):
        world.of.asked(40 * SECOND_NS, group, SECOND_NS, is_older=False)
    assert world.wait(50) == [(405, False, [(MEMBER, OTHER)])]


def test_older_querier_counts_for_a_while(world: World) -> None:
    world.of.asked(0, GENERAL, SECOND_NS, is_older=True)
    world.wait(1)
    world.of.joined(SECOND_NS, ONE)
    assert [row[1] for row in world.wait(5)] == [True, True]
    world.of.left(6 * SECOND_NS, ONE)
    assert world.wait(10) == [(60, True, [(LEFT, ONE)])]
    world.of.joined(OLDER_NS, ONE)
    assert not world.wait(OLDER_NS // SECOND_NS)[0][1]


def test_what_is_kept_and_what_a_step_says_is_bounded(world: World) -> None:
    groups = [b"\xe1" + number.to_bytes(3) for number in range(3 * MOST_GROUPS)]
    for group in groups:
        world.of.joined(0, group)
    assert len(world.said) == MOST_GROUPS
    for _ in range(3):
        for group in groups:
            world.of.left(0, group)
            world.of.joined(0, group)
    world.said.clear()
    world.of.timeout(SECOND_NS)
    assert len(world.said[0][2]) == AT_ONCE
    world.wait(2)
    assert world.of.timer() is None and not world.of._records
