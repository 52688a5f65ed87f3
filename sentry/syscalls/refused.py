"""What programs asked for and did not get: counted for `--debug`, told at the end.

System calls, ioctl(2) requests and socket options that are not there or refused, and names below
/proc, /sys and /dev that cannot be used. Errors that tell of a program's own doing (a name that
does not exist elsewhere, a bad pointer) are none of it. Nothing here changes what a call does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from sentry.abi import socket
from sentry.errors import (
    EACCES,
    EINVAL,
    ENODEV,
    ENOENT,
    ENOPROTOOPT,
    ENOSYS,
    ENOTTY,
    ENXIO,
    EOPNOTSUPP,
    EPERM,
    EROFS,
    by_number,
)
from sentry.kernel.task import Observer
from sentry.syscalls import compat_rows
from sentry.syscalls.compat_rows import Support
from sentry.syscalls.registry import ABSENT, NUMBERS, TABLE, TABLE_SIZE
from sentry.syscalls.show import peek_string, quote, show_path

if TYPE_CHECKING:
    from sentry.kernel.task import Task

MAX_KINDS: Final = 1000
"""A program can make up any number of names and numbers: what comes later counts as one."""
NAME_LIMIT: Final = 256
SYSTEM_DIRECTORIES: Final = (b"/proc/", b"/sys/", b"/dev/")
_PROCESSES: Final = re.compile(rb"(?<=^/proc/)\d+|(?<=/task/)\d+|(?<=/fd/)\d+|(?<=/fdinfo/)\d+")
REFUSALS: Final = frozenset(e.number for e in (ENOSYS, EPERM, EOPNOTSUPP))
"""Of any call."""
UNKNOWN: Final = frozenset(e.number for e in (ENOTTY, EINVAL))
"""Of an ioctl(2) that nobody here knows."""
OPTION_REFUSALS: Final = REFUSALS | {ENOPROTOOPT.number}
NAME_REFUSALS: Final = frozenset(
    e.number for e in (ENOENT, EACCES, EPERM, EROFS, ENXIO, ENODEV, EOPNOTSUPP)
)


class Refused(Observer):
    """An observer of every task (`Kernel.start_observers`)."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._open: dict[Task, tuple[int, tuple[int, ...]]] = {}
        self._counts: Counter[tuple[str, int]] = Counter()
        """(what, errno) → how often."""
        self._ioctls = {row.number: row for row in compat_rows.rows(compat_rows.IOCTLS)}
        self._options = {
            (getattr(socket, group.title, -1), row.number): row.name
            for group in compat_rows.SOCKOPTS
            for row in compat_rows.rows([group])
        }

    def entered(self, task: Task, number: int, values: tuple[int, ...]) -> None:
        """A call begins."""
        self._open[task] = number, values

    def left(self, task: Task, result: Any) -> None:
        """A call ends."""
        number, values = self._open.pop(task, (-1, ()))
        if not isinstance(result, int) or result >= 0 or number < 0:
            return
        what = self._what(task, number, values, -result)
        if what:
            key = what, -result
            if len(self._counts) >= MAX_KINDS and key not in self._counts:
                key = "others", 0
            self._counts[key] += 1

    def exited(self, task: Task, status: int) -> None:
        """A thread is gone."""
        self._open.pop(task, None)

    def flush(self) -> None:
        """The sandbox is over: tell."""
        self._write("".join(f"{line}\n" for line in self.lines()))

    def lines(self) -> Iterator[str]:
        """A line for each, the most frequent first."""
        if not self._counts:
            yield "debug: nothing that the program asked for was absent or refused"
            return
        yield "debug: absent or refused, with how often and the error that the program got:"
        for (what, errno), count in self._counts.most_common():
            error = by_number(errno)
            yield f"debug: {count:7}  {what}  {error.__name__ if error else ''}".rstrip()

    def _what(self, task: Task, number: int, values: tuple[int, ...], errno: int) -> str:
        """How it is called in the report; "" if it is none of it."""
        name = NUMBERS.get(number, f"syscall_{number:#x}")
        if name == "ioctl":
            return self._request(values[1] & 0xFFFFFFFF, errno)
        if name in ("getsockopt", "setsockopt") and errno in OPTION_REFUSALS:
            level, option = values[1] & 0xFFFFFFFF, values[2] & 0xFFFFFFFF
            return f"{name} {self._options.get((level, option), f'level {level}, {option}')}"
        path = _system_path(task, number, values) if errno in NAME_REFUSALS else b""
        if path:
            return f"{name} {quote(path, NAME_LIMIT)}"
        if errno not in REFUSALS:
            return ""
        why = ABSENT.get(number) if errno == ENOSYS.number else None
        return f"{name} ({why})" if why else name

    def _request(self, request: int, errno: int) -> str:
        """ENOTTY for a request that other files know is Linux's answer, too."""
        row = self._ioctls.get(request)
        here = row is not None and row.support is not Support.ABSENT
        if errno not in REFUSALS and (here or errno not in UNKNOWN):
            return ""
        return f"ioctl {row.name if row is not None else f'{request:#x}'}"


def _system_path(task: Task, number: int, values: tuple[int, ...]) -> bytes:
    """The name below /proc, /sys or /dev that the call was about, with the numbers of processes
    left out."""
    declaration = TABLE[number] if number < TABLE_SIZE else None
    if declaration is None:
        return b""
    for index, (_, mark) in enumerate(declaration.args):
        if mark.show is show_path:
            path = peek_string(task, values[index], NAME_LIMIT) or b""
            return _PROCESSES.sub(b"N", path) if path.startswith(SYSTEM_DIRECTORIES) else b""
    return b""
