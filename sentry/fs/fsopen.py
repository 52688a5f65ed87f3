"""A file system that is being set up through a descriptor: fsopen(2), fspick(2). fs/fsopen.c."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from sentry.abi.fcntl import O_RDWR
from sentry.abi.mount import MS_RDONLY
from sentry.errors import EBUSY, EINVAL, EMSGSIZE, ENODATA, Errno
from sentry.vfs import mounting
from sentry.vfs.file import Caller, Dest, FileDescription, Result
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.interface import Inode, Owner

if TYPE_CHECKING:
    from sentry.vfs.mounter import Mounter
    from sentry.vfs.vfs import MountType, Vfs

MAX_LOG = 8
MAX_OPTIONS = 1024
"""A ceiling of ours: an overlay may have 500 layers."""


class Phase(Enum):
    """Where a context stands: enum fs_context_phase."""

    CREATE_PARAMS = 1
    AWAITING_MOUNT = 2
    RECONF_PARAMS = 3
    FAILED = 4


class FsContextFile(FileDescription):
    """An open context: options come in one by one, messages go out by read(2)."""

    __slots__ = ("_log", "_make", "_options", "flags_asked", "fs", "phase", "source", "type")

    has_write = False
    read_flags = False
    splice_read = False
    splice_write = False

    def __init__(
        self, vfs: Vfs, kind: bytes, make: MountType | None, fs: FileSystem | None
    ) -> None:
        inode = Inode(vfs.anon_fs(), vfs.new_ino(), 0o600, Owner(0, 0))
        super().__init__(vfs.anon_location(inode, b"anon_inode:[fscontext]"), O_RDWR)
        self.type = kind
        self._make = make
        self.fs = fs
        self.phase = Phase.CREATE_PARAMS if fs is None else Phase.RECONF_PARAMS
        self.source: bytes | None = None
        self.flags_asked = 0
        if fs is not None:
            self.flags_asked = fs.sb_flags | (MS_RDONLY if fs.read_only else 0)
        self._options: list[bytes] = []
        self._log: deque[bytes] = deque(maxlen=MAX_LOG)

    def read(self, caller: Caller, dest: Dest, rwf: int = 0) -> Result:
        """The next message. Raises: ENODATA, EMSGSIZE for a buffer that is too small."""
        if not self._log:
            raise ENODATA("no messages")
        if len(self._log[0]) > dest.count:
            raise EMSGSIZE("the message is longer")
        return dest.put(self._log.popleft())

    def invalid(self, text: str) -> EINVAL:
        """invalf(): a message for the log, and the error."""
        self._log.append(f"e {self.type.decode(errors='replace')}: {text}\n".encode())
        return EINVAL(text)

    def set_option(self, vfs: Vfs, key: bytes, value: bytes | None) -> None:
        """One option; a value of None is a flag. Raises: EBUSY, EINVAL."""
        if self.phase not in (Phase.CREATE_PARAMS, Phase.RECONF_PARAMS):
            raise EBUSY("not the time for options")
        if value is None and key in mounting.SB_FLAGS:
            give, take = mounting.SB_FLAGS[key]
            self.flags_asked = self.flags_asked & ~take | give
            return
        if key == b"source":
            if value is None:
                raise self.invalid("Non-string source")
            if self.source is not None:
                raise self.invalid("Multiple sources")
            self.source = value
            return
        option = key if value is None else key + b"=" + value
        check = vfs.option_checks.get(self.type)
        shown = key.decode(errors="replace")
        if check is None:
            raise self.invalid(f"Unknown parameter '{shown}'")
        try:
            check(option.decode(errors="replace"))
        except EINVAL as error:
            raise self.invalid(f"Bad value for '{shown}'") from error
        if len(self._options) >= MAX_OPTIONS:
            raise self.invalid("Too many parameters")
        join = vfs.option_joins.get(self.type)
        self._options.append(option if join is None else join(key, value))

    def create(self, caller: Caller) -> None:
        """FSCONFIG_CMD_CREATE: vfs_cmd_create(). Raises: EBUSY, what the type raises, NotNow."""
        if self.phase is not Phase.CREATE_PARAMS:
            raise EBUSY("not to be created now")
        mounting.may_mount(caller)
        make = self._make
        assert make is not None
        what = (self.type, self.source or b"none", b",".join(self._options))
        try:
            self.fs = mounting.new_file_system(caller, what, self.flags_asked, make)
        except Errno:
            self.phase = Phase.FAILED
            raise
        self.phase = Phase.AWAITING_MOUNT

    def reconfigure(self, caller: Mounter) -> None:
        """FSCONFIG_CMD_RECONFIGURE. Raises: EBUSY, EINVAL."""
        if self.phase is not Phase.RECONF_PARAMS or self.fs is None:
            raise EBUSY("not to be changed now")
        mounting.may_mount(caller)
        mounting.reconfigure(caller, self.fs, b",".join(self._options), self.flags_asked)
        self._options.clear()

    def mounted(self) -> None:
        """fsmount(2) takes it; from now on it can only be changed. Raises: EBUSY."""
        if self.phase is not Phase.AWAITING_MOUNT:
            raise EBUSY("mounted already")
        self.phase = Phase.RECONF_PARAMS
        self._options.clear()
