"""devpts: a directory of the slaves of open pseudo-terminals, and `ptmx`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sentry.abi.stat import DEVPTS_SUPER_MAGIC, S_IFCHR
from sentry.auth.userns import NO_ID
from sentry.errors import EINVAL, EIO, ENOSPC
from sentry.vfs.directory import DirectoryFile
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.interface import ABSENT, Absent, Attributes, Changes, DirEntry, Inode, Owner
from sentry.vfs.location import Location

if TYPE_CHECKING:
    from sentry.fs.devpts.files import PtyMaster
    from sentry.fs.devpts.terminal import Terminal
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.vfs import Vfs

MAX_TERMINALS: Final = 1024
"""Ceiling of a sandbox; Linux's kernel.pty.max is 4096."""
LINUX_MAX: Final = 1 << 20
"""NR_UNIX98_PTY_MAX: what the option max may be, and is if it is not given."""
PTMX_INO: Final = 2
FIRST_INO: Final = 3


class PtsInode(Inode):
    """An inode of devpts: attributes that can be changed."""

    __slots__ = ("changed_ns",)

    def __init__(self, fs: DevPtsFs, ino: int, mode: int, owner: Owner) -> None:
        super().__init__(fs, ino, mode, owner)
        self.changed_ns = fs.now_ns()

    def stat(self) -> Attributes:
        """stat(2)."""
        at, links = self.changed_ns, 2 if self.is_dir else 1
        return Attributes(
            self.ino, self.mode, links, self.uid, self.gid, self.rdev, 0, 0, 1024, at, at, at
        )

    def setattr(self, changes: Changes) -> None:
        """chmod, chown: grantpt(3) and login programs do that."""
        if changes.mode is not None:
            self.mode = self.mode & ~0o7777 | changes.mode
        self.uid = self.uid if changes.uid is None else changes.uid
        self.gid = self.gid if changes.gid is None else changes.gid
        self.changed_ns = self.fs.now_ns()


class SlaveInode(PtsInode):
    """/dev/pts/N."""

    __slots__ = ("terminal",)
    opens_itself = True

    def __init__(self, fs: DevPtsFs, terminal: Terminal, owner: Owner) -> None:
        super().__init__(fs, FIRST_INO + terminal.index, S_IFCHR | fs.slave_mode, owner)
        self.rdev = terminal.rdev
        self.terminal = terminal

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """Open the slave. Raises: EBUSY; EIO while it is locked or once the master is closed."""
        from sentry.fs.devpts.files import PtySlave, become_controlling  # noqa: PLC0415

        self.terminal.check_open(caller)
        if self.terminal.locked or not self.terminal.master_open:
            raise EIO("locked")
        slave = PtySlave(location, flags, self.terminal)
        become_controlling(slave, caller, flags)
        return slave


class PtmxInode(PtsInode):
    """/dev/pts/ptmx."""

    __slots__ = ()
    opens_itself = True

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """A new pseudo-terminal."""
        assert isinstance(self.fs, DevPtsFs)
        return self.fs.new_terminal(location, flags, caller)


class DirectoryInode(PtsInode):
    """The directory."""

    __slots__ = ()

    def lookup_cached(self, name: bytes) -> Inode | Absent:
        """A number, or ptmx."""
        assert isinstance(self.fs, DevPtsFs)
        return self.fs.names.get(name, ABSENT)

    def entries(self) -> Sequence[DirEntry]:
        """All names."""
        assert isinstance(self.fs, DevPtsFs)
        return [DirEntry(name, each.ino, S_IFCHR) for name, each in self.fs.names.items()]

    def open(self, location: Location, flags: int, caller: Caller) -> DirectoryFile:
        """opendir(3)."""
        return DirectoryFile(location, flags)


class DevPtsFs(FileSystem):
    """One devpts: each mount has its own numbers."""

    name = "devpts"
    magic = DEVPTS_SUPER_MAGIC

    def __init__(self, vfs: Vfs, data: str = "") -> None:
        super().__init__(vfs.new_dev(), vfs.now_ns)
        self.vfs = vfs
        self.slave_mode = 0o600
        self.gid: int | None = None
        self.uid: int | None = None
        self.ptmx_mode = 0
        self.max: int | None = None
        for item in filter(None, data.split(",")):
            key, _, value = item.partition("=")
            try:
                if key == "mode":
                    self.slave_mode = int(value, 8) & 0o777
                elif key == "ptmxmode":
                    self.ptmx_mode = int(value, 8) & 0o777
                elif key in ("gid", "uid") and 0 <= int(value) < NO_ID:
                    setattr(self, key, int(value))
                elif key == "max" and 0 <= int(value) <= LINUX_MAX:
                    self.max = int(value)
                elif key != "newinstance":
                    raise EINVAL(f"devpts: {item}")
            except ValueError as error:
                raise EINVAL(f"devpts: {item}") from error
        root = Owner(0, 0)
        self._root = DirectoryInode(self, 1, 0o040755, root)
        ptmx = PtmxInode(self, PTMX_INO, S_IFCHR | self.ptmx_mode, root)
        ptmx.rdev = 5 << 8 | 2
        self.names: dict[bytes, PtsInode] = {b"ptmx": ptmx}
        self._taken: set[int] = set()

    @property
    def root(self) -> Inode:
        """The directory."""
        return self._root

    def show_options(self) -> str:
        """devpts_show_options()."""
        shown = f",uid={self.uid}" if self.uid is not None else ""
        shown += f",gid={self.gid}" if self.gid is not None else ""
        shown += f",mode={self.slave_mode:03o},ptmxmode={self.ptmx_mode:03o}"
        return shown + (f",max={self.max}" if self.max not in (None, LINUX_MAX) else "")

    def new_terminal(self, location: Location, flags: int, caller: Caller) -> PtyMaster:
        """Open a master. Raises: ENOSPC."""
        from sentry.fs.devpts.files import PtyMaster  # noqa: PLC0415  few programs open one

        creds = caller.creds
        owner = Owner(
            creds.fsuid if self.uid is None else self.uid,
            creds.fsgid if self.gid is None else self.gid,
        )
        terminal = self._make(owner)
        return PtyMaster(location, flags, self, terminal)

    def new_console(self, owner: Owner) -> Terminal:
        """A terminal whose master is the host's. Raises: ENOSPC."""
        terminal = self._make(owner)
        terminal.locked = False
        return terminal

    def _make(self, owner: Owner) -> Terminal:
        from sentry.fs.devpts.terminal import Terminal  # noqa: PLC0415  few programs want one

        ceiling = MAX_TERMINALS if self.max is None else min(self.max, MAX_TERMINALS)
        index = next((i for i in range(ceiling) if i not in self._taken), None)
        if index is None:
            raise ENOSPC("too many pseudo-terminals")
        self._taken.add(index)
        terminal = Terminal(self.vfs, index)
        self.names[b"%d" % index] = SlaveInode(self, terminal, owner)
        return terminal

    def location_of(self, terminal: Terminal, master: Location, caller: Caller) -> Location:
        """Where the slave is, for TIOCGPTPEER: devpts_mntget().

        On the mount that the master was opened on; for a /dev/ptmx that lies elsewhere, on the
        first one of this file system that the caller has.
        """
        name = b"%d" % terminal.index
        mount = master.mount
        if mount.fs is not self:
            mounts = (m for m in caller.mounts if m.fs is self)
            mount = next(mounts, None) or self.vfs.new_mount(self)
        return Location(mount, mount.root.child(name, self.names[name], self.vfs.dentries))

    def remove(self, terminal: Terminal) -> None:
        """The master is closed: the name goes."""
        self.names.pop(b"%d" % terminal.index, None)
        self._taken.discard(terminal.index)


def mount_devpts(caller: Caller, source: bytes, flags: int, data: bytes) -> DevPtsFs:
    """mount(2) of type devpts: users are those of the caller's user namespace. /dev/ptmx of others
    is not for who has made one for himself."""
    vfs, creds = caller.kernel.vfs, caller.creds
    fs = DevPtsFs(vfs, data.decode(errors="replace"))
    fs.uid = creds.kuid(fs.uid) if fs.uid is not None else None
    fs.gid = creds.kgid(fs.gid) if fs.gid is not None else None
    if creds.user_ns is None:
        vfs.devpts = fs
    fs.source = source.decode(errors="replace") or "devpts"
    return fs
