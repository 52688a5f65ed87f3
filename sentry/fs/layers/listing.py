"""What a merged directory holds: ovl_dir_read_merged() of fs/overlayfs/readdir.c.

A listing is made once, and shared by all who have the directory open, until its names change. What
it takes counts among the small bytes of the sandbox.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.fcntl import O_DIRECTORY, O_RDONLY
from sentry.abi.stat import S_IFCHR, S_IFDIR, S_IFREG
from sentry.auth.permissions import MAY_READ
from sentry.errors import ENOMEM, ENOSPC, Errno
from sentry.fs.layers.search import find, numbered
from sentry.fs.layers.stack import UPPER, is_whiteout
from sentry.vfs.dirents import Dirents, DirentSink, split
from sentry.vfs.interface import Absent, DirEntry, Inode
from sentry.vfs.walk import child_of
from sentry.wait.again import again
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sentry.fs.layers.stack import Lowers, Stack
    from sentry.vfs.budget import Budget
    from sentry.vfs.file import FileDescription

MAX_ENTRIES: Final = 1 << 20
"""Of a directory: what is merged is in memory as a whole."""
ROOM: Final = 1 << 15
"""Bytes of a layer's listing that are read in one go."""
COST: Final = 160
"""What a name costs besides its bytes."""


class Listing(Dirents):
    """The names of one moment, counted as long as somebody reads them. Raises: ENOMEM."""

    __slots__ = ("_budget", "_cost")

    def __init__(self, entries: Sequence[DirEntry], budget: Budget) -> None:
        self._budget, self._cost = budget, 0
        cost = sum(len(entry.name) + COST for entry in entries)
        try:
            budget.check_small(cost)
        except ENOSPC as error:
            raise ENOMEM("the ceiling of listings") from error
        super().__init__(entries)
        self._cost = cost
        budget.small_bytes += cost

    def __del__(self) -> None:
        self._budget.small_bytes -= self._cost


class Merged:
    """The names of a directory, collected from its layers."""

    __slots__ = (
        "_found", "_hidden", "_known", "_lowers", "_marked", "_most", "_pace", "_stack", "_upper",
    )  # fmt: skip

    def __init__(
        self, stack: Stack, upper: Inode | None, lowers: Lowers,
        known: Callable[[bytes], Inode | None],
    ) -> None:  # fmt: skip
        self._stack = stack
        self._upper = upper
        self._lowers = lowers
        self._known = known
        """What somebody holds of it already."""
        self._found: dict[bytes, DirEntry] = {}
        self._hidden: set[bytes] = set()
        self._pace = Pace()
        self._most = MAX_ENTRIES
        self._marked = False
        """Files of the layer that is read may be whiteouts, too."""

    async def is_empty(self) -> bool:
        """No name is seen. Raises: EACCES, as layers do."""
        self._most = 1
        return not await self.entries()

    async def entries(self) -> list[DirEntry]:
        """Those that are seen, the upper layer's first. Raises: EACCES, as layers do, ENOMEM."""
        upper = [(UPPER, self._upper)] if self._upper is not None else []
        for number, real in [*upper, *self._lowers]:
            await again(self._stack.check, real, MAY_READ)
            self._marked = number != UPPER and await again(self._stack.may_mark_names, real)
            await self._read(number, real)
        return list(self._found.values())

    async def _read(self, number: int, real: Inode) -> None:
        nobody: Any = None
        place = self._stack.place(number, real)
        file = await again(real.open, place, O_RDONLY | O_DIRECTORY, nobody)
        file.incref()
        try:
            while len(self._found) < self._most and (
                records := await again(partial(_records, file))
            ):
                for entry in split(records):
                    await self._add(number, real, DirEntry(*entry))
                    await self._pace.rest()
        finally:
            file.decref()

    async def _add(self, number: int, real: Inode, entry: DirEntry) -> None:
        name = entry.name
        if name in (b".", b"..") or name in self._found or name in self._hidden:
            return
        if len(self._found) + len(self._hidden) >= MAX_ENTRIES:
            raise ENOMEM("more names than fit")
        if await self._is_hidden(number, real, entry):
            self._hidden.add(name)
        else:
            self._found[name] = entry._replace(ino=await self._number(number, real, entry))

    async def _is_hidden(self, number: int, real: Inode, entry: DirEntry) -> bool:
        """A whiteout."""
        kinds = (0, S_IFCHR, S_IFREG) if self._marked else (0, S_IFCHR)
        if entry.kind not in kinds:
            return False
        there: Inode | Absent = await again(child_of, real, entry.name)
        if isinstance(there, Absent):
            return True
        if number == UPPER:
            return is_whiteout(there)
        return await again(self._stack.hides, real, there)

    async def _number(self, number: int, real: Inode, entry: DirEntry) -> int:
        """As stat(2) tells it: ovl_calc_d_ino()."""
        known = self._known(entry.name)
        if known is not None:
            return known.ino
        listed = self._stack.listed
        if number != UPPER or (entry.kind == S_IFDIR and not self._lowers):
            return listed(real.fs, entry.ino)
        try:
            found = await find(self._stack, self._upper, self._lowers, entry.name)
        except Errno:
            found = None
        return listed(real.fs, entry.ino) if found is None else listed(*numbered(found))


def _records(file: FileDescription) -> bytes:
    """The next struct linux_dirent64s; none at the end. Raises: NotNow."""
    nobody: Any = None
    sink = DirentSink(ROOM)
    file.entries(nobody, sink)
    return bytes(sink.data)
