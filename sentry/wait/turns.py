"""`Turns`: a few places that many share, fairly.

Each owner has a line of its own, the lines take turns, and no owner has more than its share of the
places: however many of one wait, or never come back, the first of another is next, or soon after.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable


class Turn:
    """One that wants a place, or has one."""

    __slots__ = ("begin", "has_come", "owner")

    def __init__(self, owner: Hashable, begin: Callable[[], object]) -> None:
        self.owner = owner
        self.begin = begin
        self.has_come = False


class Turns:
    """The places and the lines."""

    __slots__ = ("_free", "_held", "_lines", "_share")

    def __init__(self, places: int, share: int) -> None:
        self._free = places
        self._share = share
        self._held: dict[Hashable, int] = {}
        self._lines: dict[Hashable, dict[Turn, None]] = {}
        """Those that wait, by owner; whose turn is next stands first."""

    @property
    def waiting(self) -> int:
        """How many have no place yet."""
        return sum(map(len, self._lines.values()))

    def ask(self, owner: Hashable, begin: Callable[[], object]) -> Turn:
        """A place, or one in line: then `begin` is called when its turn has come."""
        turn = Turn(owner, begin)
        if self._free and self._held.get(owner, 0) < self._share:
            self._give(turn)
        else:
            self._lines.setdefault(owner, {})[turn] = None
        return turn

    def end(self, turn: Turn) -> None:
        """It does not need its place any more, or does not want one."""
        owner = turn.owner
        if not turn.has_come:
            line = self._lines[owner]
            del line[turn]
            if not line:
                del self._lines[owner]
            return
        self._free += 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        while self._free and (waiting := self._next()) is not None:
            self._give(waiting)
            waiting.begin()

    def _give(self, turn: Turn) -> None:
        turn.has_come = True
        self._free -= 1
        self._held[turn.owner] = self._held.get(turn.owner, 0) + 1

    def _next(self) -> Turn | None:
        """Out of its line. Those that have their share are passed over: there is room for few."""
        for owner in self._lines:
            if self._held.get(owner, 0) < self._share:
                break
        else:
            return None
        line = self._lines.pop(owner)
        turn = next(iter(line))
        del line[turn]
        if line:
            self._lines[owner] = line
        return turn
