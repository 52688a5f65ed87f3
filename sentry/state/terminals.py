"""Pseudoterminals as records, and back: line disciplines, what is on its way, whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.ioctl import TERMIOS
from sentry.fs.devpts.console import Console
from sentry.fs.devpts.files import PtyMaster, PtySlave
from sentry.fs.devpts.filesystem import MAX_TERMINALS, DevPtsFs, SlaveInode
from sentry.fs.devpts.terminal import AHEAD, SCREEN, Terminal
from sentry.state import records
from sentry.state.loader import Loader, at
from sentry.state.pages import Damaged
from sentry.vfs.interface import Owner
from sentry.vfs.location import Location

if TYPE_CHECKING:
    from sentry.state.saver import Saver

KEPT: Final = (
    "index", "winsize", "locked", "exclusive", "master_exclusive", "master_open", "hangups",
    "slave_opened", "packet", "packet_events", "master_stopped",
)  # fmt: skip
KEPT_OF_LINE: Final = ("stopped", "held")
PRIVATE_OF_LINE: Final = ("literal", "erasing", "column", "line_column")
LINE: Final = 4096
"""Bytes that a line discipline has."""


def save(saver: Saver, terminal: Terminal) -> records.Terminal:
    """Raises: EOPNOTSUPP."""
    from sentry.state.saver import refused  # noqa: PLC0415  which knows this module

    mount = next(
        (n for n, each in enumerate(saver.mounts.all)
         if isinstance(each.fs, DevPtsFs) and _has(each.fs, terminal)),
        None,
    )  # fmt: skip
    if mount is None:
        refused("a pseudoterminal that is closed, or of a devpts that is at no place")
    fs: Any = saver.mounts.all[mount].fs
    inode = fs.names[b"%d" % terminal.index]
    line, console = terminal.discipline, saver.container.console
    return records.Terminal(
        mount=mount, uid=inode.uid, gid=inode.gid, mode=inode.mode & 0o7777,
        is_console=console is not None and console.terminal is terminal,
        ahead=bytes(terminal.ahead), screen=bytes(terminal.screen),
        termios=TERMIOS.pack(*line.termios), locks=TERMIOS.pack(*line.locked),
        ready=bytes(line._ready), eofs=list(line._eofs), edit=bytes(line._edit),
        **{name: getattr(terminal, name) for name in KEPT},
        **{name: getattr(line, name) for name in KEPT_OF_LINE},
        **{name: getattr(line, f"_{name}") for name in PRIVATE_OF_LINE},
    )  # fmt: skip


def _has(fs: DevPtsFs, terminal: Terminal) -> bool:
    inode = fs.names.get(b"%d" % terminal.index)
    return isinstance(inode, SlaveInode) and inode.terminal is terminal


def master(saver: Saver, file: PtyMaster, common: dict[str, Any]) -> records.OpenFile:
    """The side of an emulator."""
    return records.Master(
        terminal=saver.terminals(file.terminal), place=saver.place(file.location), **common
    )


def slave(saver: Saver, file: PtySlave, common: dict[str, Any]) -> records.OpenFile:
    """The side of programs."""
    return records.Slave(
        terminal=saver.terminals(file.terminal), place=saver.place(file.location),
        hangups=file._hangups, **common,
    )  # fmt: skip


class Terminals:
    """Those of a snapshot, by their places. `fd`: the host's terminal, for the console; or -1."""

    def __init__(self, loader: Loader, fd: int, owner: Owner) -> None:
        """Raises: Damaged, ENOSPC."""
        self._loader = loader
        self.console: Console | None = None
        found = loader.snapshot.terminals
        made: dict[int, Terminal] = {}
        order = sorted(range(len(found)), key=lambda place: not found[place].is_console)
        for place in order:
            made[place] = self._made(found[place], fd, owner)
        self.made = [made[place] for place in range(len(found))]

    def _made(self, record: records.Terminal, fd: int, owner: Owner) -> Terminal:
        vfs = self._loader.kernel.vfs
        fs = at(self._loader.mounts, record.mount, "mount").fs
        name = b"%d" % record.index
        if not isinstance(fs, DevPtsFs) or record.index >= MAX_TERMINALS or name in fs.names:
            raise Damaged(f"pseudoterminal {record.index}")
        if record.is_console:
            if fd < 0 or self.console is not None:
                raise Damaged("it has a terminal, and the container has none (process.terminal)")
            owner = Owner(owner.uid, fs.gid or 0)
            self.console = Console(self._loader.kernel.loop, fd, fs, owner, vfs.host_io)
            terminal = self.console.terminal
            if terminal.index != record.index:
                raise Damaged("a terminal with another number")
        else:
            terminal = Terminal(vfs, record.index)
            fs._taken.add(record.index)
            fs.names[name] = SlaveInode(fs, terminal, Owner(record.uid, record.gid))
        fs.names[name].mode = fs.names[name].kind | record.mode
        size = terminal.winsize
        for field in KEPT:
            setattr(terminal, field, getattr(record, field))
        if record.is_console:
            terminal.winsize = size
        _fill(terminal, record)
        return terminal

    def of(self, place: int) -> Terminal:
        """One of them."""
        return at(self.made, place, "pseudoterminal")

    def open_master(self, record: records.Master, location: Location) -> PtyMaster:
        """Its side of an emulator."""
        terminal = self.of(record.terminal)
        fs: Any = self._loader.mounts[self._loader.snapshot.terminals[record.terminal].mount].fs
        return PtyMaster(location, record.flags, fs, terminal)

    def open_slave(self, record: records.Slave, location: Location) -> PtySlave:
        """A side of programs."""
        file = PtySlave(location, record.flags, self.of(record.terminal))
        file._hangups = record.hangups
        return file


def _fill(terminal: Terminal, record: records.Terminal) -> None:
    if len(record.ahead) > AHEAD or len(record.screen) > 2 * SCREEN or len(record.winsize) != 8:
        raise Damaged("more in a pseudoterminal than fits")
    if max(len(record.ready), len(record.edit), len(record.eofs)) > LINE:
        raise Damaged("more in a line discipline than fits")
    if sorted(record.eofs) != record.eofs or max(record.eofs, default=0) > len(record.ready):
        raise Damaged("a line that ends where there is none")
    terminal.ahead, terminal.screen = bytearray(record.ahead), bytearray(record.screen)
    line = terminal.discipline
    line.termios, line.locked = TERMIOS.unpack(record.termios), TERMIOS.unpack(record.locks)
    line._ready, line._edit = bytearray(record.ready), bytearray(record.edit)
    line._eofs = list(record.eofs)
    for name in KEPT_OF_LINE:
        setattr(line, name, getattr(record, name))
    for name in PRIVATE_OF_LINE:
        setattr(line, f"_{name}", getattr(record, name))
    if terminal.ahead:
        terminal.take_soon()
