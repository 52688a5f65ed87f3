"""Who is told of an event, and in which order."""

from __future__ import annotations

from collections.abc import Callable

from sentry.wait.queue import WaitQueue

READ, WRITE = 1, 2


class Told:
    """What callbacks heard."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def by(self, name: str, gives: object = None) -> Callable[[int], object]:
        def callback(_events: int) -> object:
            self.names.append(name)
            return gives

        return callback

    def take(self) -> str:
        taken, self.names = " ".join(self.names), []
        return taken


def test_all_plain_ones_hear_and_the_first_exclusive_one() -> None:
    queue, told = WaitQueue(), Told()
    queue.add(told.by("a", True), exclusive=True)
    queue.add(told.by("b"))
    queue.add(told.by("c", True), exclusive=True)
    queue.add(told.by("d"))
    assert queue.notify() == 3
    assert told.take() == "b d a"
    assert queue.notify() == 3
    assert told.take() == "b d c"  # who was woken stands behind the others
    assert len(queue) == 4


def test_one_that_wakes_nobody_does_not_count() -> None:
    queue, told = WaitQueue(), Told()
    queue.add(told.by("a", False), exclusive=True)
    queue.add(told.by("b", False), exclusive=True)
    last = queue.add(told.by("c"), exclusive=True)
    queue.add(told.by("d"), exclusive=True)
    assert queue.notify() == 1
    assert told.take() == "a b c"
    assert queue.notify() == 1
    assert told.take() == "a b c"  # what is no sleeper keeps its place
    queue.remove(last)
    queue.remove(last)
    queue.notify()
    assert told.take() == "a b d"


def test_only_those_hear_whose_events_they_are() -> None:
    queue, told = WaitQueue(), Told()
    for name, mask in (("r1", READ), ("w1", WRITE), ("r2", READ)):
        queue.add(told.by(name, True), mask, exclusive=True)
    assert queue.notify(WRITE) == 1
    assert told.take() == "w1"
    assert queue.notify(READ) == 1
    assert told.take() == "r1"
    assert queue.notify(4) == 0


def test_the_end_is_for_all_and_not_for_who_left_meanwhile() -> None:
    queue, told = WaitQueue(), Told()
    queue.add(told.by("a", True), READ, exclusive=True)
    gone = queue.add(told.by("b", True), READ, exclusive=True)
    queue.add(told.by("c"), WRITE)
    queue.add(told.by("d"), READ)

    def later(entries: object, act: Callable[..., object]) -> None:
        queue.remove(gone)
        for entry in entries:  # type: ignore[attr-defined]
            act(entry)

    queue.notify_all(READ, later)
    assert told.take() == "d a"
