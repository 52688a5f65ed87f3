"""How far something is that takes longer than a second, shown to a person at a terminal.

The line is click's, on standard error. Nothing is written where that is no terminal, or one that
cannot go back in a line (TERM=dumb).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final

Tell = Callable[[str, int, int], None]
"""What is done, how many of its bytes are, and of how many (0: nobody knows)."""
PATIENCE_S: Final = 1.0
"""What is over before is not shown."""
LABEL: Final = 30
BAR: Final = 20
"""Columns: with the figures behind them a line has less than 80."""


def silent(what: str, done: int, total: int) -> None:
    """For nobody."""


def of_reads(pid: int, what: str, total: int, tell: Tell) -> Callable[[bool], None]:
    """What tells how much of `total` bytes a process has read since it began (proc_pid_io(5)), or
    that it is over. Where that may not be asked, as of another user's process, nobody is told.
    """

    def look(is_over: bool) -> None:
        try:
            with open(f"/proc/{pid}/io", encoding="ascii") as file:
                done = int(file.readline().partition(":")[2])
        except OSError:
            return
        tell(what, total if is_over else min(done, total - 1), total)

    return look


@contextmanager
def shown() -> Iterator[Tell]:
    """Who is told shows it. When this is left the line is whole, and what follows begins below."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield silent
        return
    line = _Line()
    try:
        yield line.tell
    finally:
        line.end()


class _Line:
    def __init__(self) -> None:
        self._since = monotonic()
        self._what, self._is_over = "", False
        self._bar: Any = None
        self._bytes = 0, 0

    def tell(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self.end()
            self._what, self._is_over = what, False
        if self._is_over:
            return
        before, self._bytes = self._bytes[0], (done, total)
        if self._bar is not None:
            self._bar.update(done - before)
        elif monotonic() - self._since >= PATIENCE_S:
            self._bar = self._begin(what, total)
            self._bar.update(done)
        if done >= total > 0:
            self._is_over = True
            self.end()

    def _begin(self, what: str, total: int) -> Any:
        from click import progressbar  # noqa: PLC0415  not for what is quick

        label = what if len(what) <= LABEL else f"{what[: LABEL - 1]}…"
        known: dict[str, Any] = {"length": total} if total else {"iterable": (_ for _ in ())}
        return progressbar(
            label=label, width=BAR, file=sys.stderr, show_eta=bool(total),
            item_show_func=lambda _: self._amount(), **known,
        )  # fmt: skip

    def _amount(self) -> str:
        done, total = (count >> 20 for count in self._bytes)
        return f"{done} of {total} MiB" if total else f"{done} MiB"

    def end(self) -> None:
        """The cursor is there again, and below what was shown."""
        if self._bar is not None:
            self._bar.render_finish()
        self._bar = None
