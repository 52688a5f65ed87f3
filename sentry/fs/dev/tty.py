"""/dev/tty: the controlling terminal; /dev/console: the donated one. tty(4), console(4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.stat import S_IFCHR
from sentry.errors import ENXIO
from sentry.fs.host.file import HostFile

if TYPE_CHECKING:
    from sentry.fs.devpts.terminal import Terminal
    from sentry.vfs.file import FileDescription
    from sentry.vfs.location import Location
    from sentry.vfs.vfs import Vfs

TTY: Final = 5 << 8
CONSOLE: Final = 5 << 8 | 1


def open_tty(location: Location, flags: int, caller: Any) -> FileDescription:
    """Open the controlling terminal again. Raises: ENXIO when the process has none, EBUSY."""
    group = caller.group
    if group.terminal is not None:
        return _slave(location, flags, group.terminal, caller)
    container = group.container
    session = group.process_group.session  # the donated terminal controls the first process's
    is_first = container.init is not None and session.sid == container.init.tgid
    if not is_first or container.console is not None:
        raise ENXIO("no controlling terminal")
    return open_console(location, flags, caller)


def open_console(location: Location, flags: int, caller: Any) -> FileDescription:
    """Open the donated terminal again. Raises: ENXIO when there is none, EBUSY."""
    vfs: Vfs = caller.kernel.vfs
    console = caller.group.container.console
    if console is not None:
        return _slave(location, flags, console.terminal, caller)
    terminal = vfs.terminal
    if not isinstance(terminal, HostFile):
        raise ENXIO("no terminal")
    return HostFile(location, terminal.fd, flags, terminal.host_queue, vfs.host_io)


def _slave(location: Location, flags: int, terminal: Terminal, caller: Any) -> FileDescription:
    from sentry.fs.devpts.files import PtySlave  # noqa: PLC0415  there is one, so it is imported

    terminal.check_open(caller)
    return PtySlave(location, flags, terminal)


def register(vfs: Vfs) -> None:
    """Make them known by their numbers."""
    vfs.devices[S_IFCHR, TTY] = open_tty
    vfs.devices[S_IFCHR, CONSOLE] = open_console
