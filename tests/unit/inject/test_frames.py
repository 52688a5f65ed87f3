"""Frames that are lost, late, or out of their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sentry.faults import InjectRule
from sentry.inject.choice import Choice
from sentry.inject.frames import ALONE_NS, MAX_KEPT, FrameFaults


class Link:
    def __init__(self) -> None:
        self.gone: list[bytes] = []
        self.come: list[bytes] = []
        self.lost = 0

    def go(self, frame: bytes) -> None:
        self.gone.append(frame)

    def came_late(self, now_ns: int, frame: bytes) -> None:
        self.come.append(frame)


class Loop:
    now = 0

    def __init__(self) -> None:
        self.calls: list[tuple[int, Callable[[], None]]] = []

    def now_ns(self) -> int:
        return self.now

    def call_at(self, at_ns: int, callback: Callable[[], None]) -> None:
        self.calls.append((at_ns, callback))

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.calls.append((self.now, callback))

    def advance(self, ns: int) -> None:
        self.now += ns
        due = sorted((c for c in self.calls if c[0] <= self.now), key=lambda call: call[0])
        self.calls = [call for call in self.calls if call[0] > self.now]
        for _, callback in due:
            callback()


def made(**rule: Any) -> tuple[Any, Any, FrameFaults]:
    link: Any = Link()
    loop: Any = Loop()
    choices = [Choice(InjectRule(("network",), **rule))]
    return link, loop, FrameFaults(link, loop, choices)


def test_lost_frames_never_come() -> None:
    link, loop, faults = made(drop=True, direction="in")
    assert not faults.comes(b"in")
    assert faults.goes(b"out")
    loop.advance(10**9)
    assert link.come == link.gone == []


def test_late_frames_come_in_time() -> None:
    link, loop, faults = made(delay_ns=5)
    assert not faults.goes(b"out")
    assert not faults.comes(b"in")
    loop.advance(4)
    assert link.come == link.gone == []
    loop.advance(1)
    assert (link.come, link.gone) == ([b"in"], [b"out"])


def test_frame_comes_after_the_next_one_or_alone() -> None:
    link, loop, faults = made(reorder=True, count=1)
    assert not faults.goes(b"first")
    assert faults.goes(b"second")
    loop.advance(0)
    assert link.gone == [b"first"]

    link, loop, faults = made(reorder=True)
    assert not faults.comes(b"alone")
    loop.advance(ALONE_NS)
    assert link.come == [b"alone"]


def test_what_waits_is_bounded() -> None:
    link, loop, faults = made(delay_ns=5)
    for _ in range(MAX_KEPT + 10):
        faults.goes(b"frame")
    assert link.lost == 10
    loop.advance(5)
    assert len(link.gone) == MAX_KEPT
    assert not faults.goes(b"there is room again")
    assert link.lost == 10
