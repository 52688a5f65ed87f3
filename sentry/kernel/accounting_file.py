"""`Accounting`: the file that acct(2) named, and whether there is room in it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from sentry.mm.buffers import KernelSource
from sentry.wait.again import again

if TYPE_CHECKING:
    from sentry.vfs.file import FileDescription

SUSPEND_PERCENT, RESUME_PERCENT = 2, 4
CHECK_NS: Final = 30 * 10**9
"""How often the room is looked at."""
UNLIMITED: Final = (1 << 64) - 1
MAX_UNDERWAY: Final = 256
"""Records that the file system has not taken yet; further ones are lost."""


class Accounting:
    """The file of one PID namespace."""

    __slots__ = ("_active", "_checked_ns", "_underway", "creds", "file")

    def __init__(self, file: FileDescription) -> None:
        self.file = file.incref()
        self.creds = file.creds
        """Who turned it on: records are written with these rights."""
        self._active = True
        self._checked_ns = 0
        self._underway = 0

    def rlimit(self, resource: int) -> int:
        """No limit holds."""
        return UNLIMITED

    def send_signal(self, signo: int) -> None:
        """Nobody is there to get one."""

    async def look(self) -> None:
        """Whether there is room for records from now on: check_free_space()."""
        self._checked_ns = time.monotonic_ns()
        room = await again(self.file.inode.fs.statfs)
        free = room.blocks_free * 100
        if self._active:
            self._active = free > room.blocks * SUSPEND_PERCENT
        else:
            self._active = free >= room.blocks * RESUME_PERCENT

    async def write(self, record: bytes) -> None:
        """Append a record, if there was room. To look again may take long, so that comes after.

        On Linux the process that ends waits for it; here none may wait for a file system that never
        answers, and records that cannot be written are not kept in any number.
        """
        if self._underway >= MAX_UNDERWAY:
            return
        self._underway += 1
        try:
            await self._write(record)
        finally:
            self._underway -= 1

    async def _write(self, record: bytes) -> None:
        if self._active:
            caller: Any = self
            await again(self.file.write, caller, KernelSource(record))
        if time.monotonic_ns() - self._checked_ns >= CHECK_NS:
            await self.look()
