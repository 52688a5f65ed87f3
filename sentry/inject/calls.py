"""Faults of system calls: what stands before the handler."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry import errors
from sentry.abi.limits import PATH_MAX
from sentry.errors import Errno
from sentry.inject.choice import Choice
from sentry.kernel.identity import FAST
from sentry.syscalls.args import UserPath
from sentry.vfs.file import FileDescription
from sentry.vfs.paths import path_of, short_path
from sentry.wait.again import NotNow, kept, settled
from sentry.wait.fiber import Mode, TimedOut
from sentry.wait.sleep import instead, never, until

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.syscalls.registry import Declaration, Handler

NEVER: Final = frozenset({15, 60, 219, 231}) | FAST
"""rt_sigreturn, exit, restart_syscall, exit_group cannot fail; and what the entry code answers."""
FDS: Final = frozenset({"fd", "oldfd", "in_fd", "fd_in"})
DIRECTORIES: Final = frozenset({"dirfd", "dfd", "olddirfd", "olddfd"})


def error_of(name: str) -> type[Errno] | None:
    """The class of an errno."""
    found = getattr(errors, name, None)
    is_one = isinstance(found, type) and issubclass(found, Errno) and found is not Errno
    return found if is_one and name.startswith("E") else None


def length_at(declaration: Declaration) -> int | None:
    """Which argument says how much is read, written or moved, where one does."""
    names = [name for name, _ in declaration.args]
    if "count" in names and not {"buf", "out", "data", "in_fd"}.isdisjoint(names):
        return names.index("count")
    return None


def takes_vectors(declaration: Declaration) -> bool:
    """It reads or writes what a struct iovec array says."""
    names = {name for name, _ in declaration.args}
    return not (names.isdisjoint({"fd", "file"}) or names.isdisjoint({"vector", "message"}))


class Faulty:
    """The rules of one call: an `Around` of sentry.syscalls.interposing."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._choices = choices
        self._wants_path = any(each.paths is not None for each in choices)

    def around(self, declaration: Declaration, handler: Handler) -> Handler:
        """What is called instead."""
        self._names = [name for name, _ in declaration.args]
        self._length_at = length_at(declaration)
        self._takes_vectors = takes_vectors(declaration)
        return partial(self._call, handler)

    def _call(self, handler: Handler, task: Task, *values: Any) -> Any:
        chosen: Choice | bool | None = kept(self)
        if chosen is None:
            chosen = self._chosen(task, values) or False
        try:
            if isinstance(chosen, Choice):
                values = self._faulted(chosen, task, values)
                if self._takes_vectors:
                    task.mm.iov_most = chosen.rule.short
            return handler(task, *values)
        except NotNow as need:
            need.call.answers[self] = chosen
            raise
        finally:
            task.mm.iov_most = -1

    def _faulted(self, chosen: Choice, task: Task, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, later. Raises: NotNow, the errno."""
        rule = chosen.rule
        if rule.delay_ns:
            settled((self, "delay"), partial(_sleep, task, rule.delay_ns))
        error = error_of(rule.errno) if rule.errno else None
        if error is not None:
            raise error("injected")
        if rule.short >= 0 and self._length_at is not None:
            cut = list(values)
            cut[self._length_at] = min(cut[self._length_at], rule.short)
            return tuple(cut)
        return values

    def _chosen(self, task: Task, values: tuple[Any, ...]) -> Choice | None:
        path = self._path(task, values) if self._wants_path else b""
        if len(path) >= PATH_MAX:  # of a deep directory: a look would take too long
            path = b""
        program: bytes | None = None
        for choice in self._choices:
            if choice.paths is not None and (not path or not choice.paths.fullmatch(path)):
                continue
            if choice.programs is not None:
                program = _program(task) if program is None else program
                if not choice.programs.fullmatch(program):
                    continue
            if choice.takes():
                return choice
        return None

    def _path(self, task: Task, values: tuple[Any, ...]) -> bytes:
        """Of the first file that the call names; none: it names none, or cannot."""
        base = task.fs.cwd
        for name, value in zip(self._names, values, strict=False):
            if isinstance(value, FileDescription):
                return path_of(value.location, task.fs.root, PATH_MAX)
            if isinstance(value, UserPath):
                try:
                    value = value.read() if value.addr else b""  # noqa: PLW2901
                except Errno:
                    return b""
            if isinstance(value, bytes):
                above = path_of(base, task.fs.root, PATH_MAX)
                if len(above) >= PATH_MAX and not value.startswith(b"/"):
                    return b""
                return posixpath.normpath(posixpath.join(above, value))
            if isinstance(value, int) and name in FDS | DIRECTORIES:
                fd = (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
                try:
                    location = task.files.get_raw(fd).location
                except Errno:
                    continue
                if name in FDS:
                    return path_of(location, task.fs.root, PATH_MAX)
                base = location
        return b""


async def _sleep(task: Task, delay_ns: int) -> None:
    """By the host's time."""
    until_ns = task.kernel.loop.now_ns() + delay_ns
    await until(never, (), mode=Mode.KILLABLE, deadline_ns=until_ns).ended(instead(TimedOut, int))


def _program(task: Task) -> bytes:
    exe = task.group.exe
    return short_path(exe, task.fs.root) if exe is not None else b""
