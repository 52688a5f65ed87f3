"""`Turns`: a few places that many share, fairly.

Each owner has a line of its own, the lines take turns, and no owner has more than its share of the
places: however many of one wait, or never come back, the first of another is next, or soon after.
And what is wanted at one target takes a place only while more are free than it has: owners as many
as there may be, whose target never answers, leave half of the places to what others want.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable


class Turn:
    """One that wants a place, or has one."""

    __slots__ = ("begin", "has_come", "owner", "target")

    def __init__(self, owner: Hashable, target: Hashable, begin: Callable[[], object]) -> None:
        self.owner = owner
        self.target = target
        self.begin = begin
        self.has_come = False


class Turns:
    """The places and the lines."""

    __slots__ = ("_at", "_free", "_held", "_lines", "_share")

    def __init__(self, places: int, share: int) -> None:
        self._free = places
        self._share = share
        self._held: Counter[Hashable] = Counter()
        """Places, by owner."""
        self._at: Counter[Hashable] = Counter()
        """By target."""
        self._lines: dict[Hashable, dict[Hashable, dict[Turn, None]]] = {}
        """Those that wait, by target and owner; whose turn is next stands first."""

    def resize(self, places: int) -> None:
        """There are so many now. Preconditions: nobody has one, or waits."""
        self._free = places

    @property
    def waiting(self) -> int:
        """How many have no place yet."""
        return sum(len(line) for lines in self._lines.values() for line in lines.values())

    def ask(
        self, owner: Hashable, begin: Callable[[], object], target: Hashable = None
    ) -> Turn:
        """A place, or one in line: then `begin` is called when its turn has come."""
        turn = Turn(owner, target, begin)
        if self._has_room(target) and self._held[owner] < self._share:
            self._give(turn)
        else:
            self._lines.setdefault(target, {}).setdefault(owner, {})[turn] = None
        return turn

    def end(self, turn: Turn) -> None:
        """It does not need its place any more, or does not want one."""
        if not turn.has_come:
            self._leave(turn)
            return
        self._free += 1
        _less(self._held, turn.owner)
        _less(self._at, turn.target)
        while self._free and (waiting := self._next()) is not None:
            self._give(waiting)
            waiting.begin()

    def _has_room(self, target: Hashable) -> bool:
        return self._at[target] < self._free

    def _give(self, turn: Turn) -> None:
        turn.has_come = True
        self._free -= 1
        self._held[turn.owner] += 1
        self._at[turn.target] += 1

    def _leave(self, turn: Turn) -> None:
        lines = self._lines[turn.target]
        line = lines[turn.owner]
        del line[turn]
        if not line:
            del lines[turn.owner]
        if not lines:
            del self._lines[turn.target]

    def _next(self) -> Turn | None:
        """Out of its line, which goes behind the others, as its target does.

        Targets and owners that have their share are passed over: there is room for few.
        """
        for target, lines in self._lines.items():
            if not self._has_room(target):
                continue
            for owner, line in lines.items():
                if self._held[owner] < self._share:
                    turn = next(iter(line))
                    lines[owner] = lines.pop(owner)
                    self._lines[target] = self._lines.pop(target)
                    self._leave(turn)
                    return turn
        return None


def _less(held: Counter[Hashable], key: Hashable) -> None:
    held[key] -= 1
    if not held[key]:
        del held[key]
