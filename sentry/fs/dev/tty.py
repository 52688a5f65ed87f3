"""/dev/tty and /dev/console: the terminal that was donated, under another name. tty(4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.stat import S_IFCHR
from sentry.errors import ENXIO
from sentry.fs.host.file import HostFile

if TYPE_CHECKING:
    from sentry.vfs.dentry import Location
    from sentry.vfs.file import Caller
    from sentry.vfs.vfs import Vfs

TTY: Final = 5 << 8
CONSOLE: Final = 5 << 8 | 1


async def open_tty(location: Location, flags: int, caller: Caller) -> HostFile:
    """Open the sandbox's terminal again. Raises: ENXIO when it has none."""
    vfs: Vfs = caller.kernel.vfs
    terminal = vfs.terminal
    if not isinstance(terminal, HostFile):
        raise ENXIO("no controlling terminal")
    return HostFile(location, terminal.fd, flags, terminal.host_queue)


def register(vfs: Vfs) -> None:
    """Make them known by their numbers."""
    vfs.devices[S_IFCHR, TTY] = open_tty
    vfs.devices[S_IFCHR, CONSOLE] = open_tty
