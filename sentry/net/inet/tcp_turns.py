"""Connections that have more to send than has room on a link: they take turns."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

TURNS: Final = 16
"""That go on when there is room again."""


class Turns:
    """Those of one stack, by interface: engines (tcp_engine.py), which know where they wait."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[int, dict[Any, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def wait(self, one: Any) -> None:
        """Behind the others."""
        one.waits_at = one.index
        self._waiting.setdefault(one.index, {})[one] = None

    def stop(self, one: Any) -> None:
        """It does not wait any more, if it did."""
        if one.waits_at is not None:
            there = self._waiting[one.waits_at]
            there.pop(one, None)
            if not there:  # interfaces come and go
                del self._waiting[one.waits_at]
            one.waits_at = None

    def first(self, index: int) -> list[Any]:
        """Those that have waited longest, not too many."""
        return list(islice(self._waiting.get(index, ()), TURNS))
