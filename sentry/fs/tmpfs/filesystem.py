"""tmpfs: a file system in memory, with mount(2) options size, nr_blocks, nr_inodes, mode, uid, gid.

Its bytes are RAM frames of the sandbox, so they count against the sandbox's memory limit whatever
`size` says. The number of inodes has a ceiling, because each costs memory of the Sentry.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, Final, Self

from msgspec import Struct

from sentry.abi.stat import RAMFS_MAGIC, TMPFS_MAGIC
from sentry.auth.userns import NO_ID
from sentry.errors import EINVAL, ENOSPC
from sentry.fs.tmpfs.directory import TmpDirectory
from sentry.fs.tmpfs.inode import SHORT_LINK
from sentry.platform.disk import MAX_PAGES
from sentry.vfs.budget import Budget
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.interface import Inode, Owner, StatFs
from sentry.vfs.vfs import Vfs

MAX_INODES: Final = 262_144
HUGE: Final = ("never", "always", "within_size", "advise")
POLICIES: Final = (
    "default", "prefer", "bind", "interleave", "local", "prefer (many)", "weighted interleave"
)  # fmt: skip
LARGEST: Final = (1 << 63) - 1
"""LONG_MAX."""
_SUFFIXES: Final = {"k": 10, "m": 20, "g": 30, "t": 40}


class Options(Struct):
    """What a mount asks for; sizes in pages, None is no limit."""

    max_pages: int | None = None
    max_inodes: int = MAX_INODES
    mode: int = 0o1777
    uid: int | None = None
    gid: int | None = None
    mpol: str = ""
    noswap: bool = False
    any_size: bool = False
    any_inodes: bool = False
    """No limit was asked for, which is shown as 0."""


def parse_options(data: str, memory_pages: int) -> Options:
    """The data of mount(2), as tmpfs(5) has it. Raises: EINVAL for one that is not known."""
    options = Options()
    for item in filter(None, data.split(",")):
        key, _, value = item.partition("=")
        try:
            _take(options, key, value, memory_pages)
        except ValueError as error:
            raise EINVAL(f"tmpfs: {item}") from error
    return options


def _take(options: Options, key: str, value: str, memory_pages: int) -> None:
    if key in ("size", "nr_blocks"):
        if value.endswith("%"):
            pages = min(memory_pages * parse_size(value[:-1]) // 100, LARGEST)
        elif key == "size":
            pages = (parse_size(value) + 4095) // 4096
        elif (pages := parse_size(value)) > LARGEST:
            raise ValueError(value)
        options.max_pages, options.any_size = pages or None, not pages
    elif key == "nr_inodes":
        number = parse_size(value)
        options.max_inodes, options.any_inodes = min(number or MAX_INODES, MAX_INODES), not number
    elif key == "mode":
        options.mode = int(value, 8) & 0o7777
    elif key in ("uid", "gid"):
        setattr(options, key, parse_id(value))
    elif key == "mpol" and is_policy(value):
        options.mpol = value if value != "default" else ""
    elif key == "noswap":
        options.noswap = True
    elif (key != "huge" or value not in HUGE) and key not in ("inode32", "inode64"):
        raise ValueError(key)


def is_policy(text: str) -> bool:
    """A name, and what else belongs to it: mpol_parse_str()."""
    name = text.partition("=")[0].partition(":")[0]
    return name in POLICIES and "\n" not in text


def parse_size(text: str) -> int:
    """A number of 64 bits with k, m, g or t: memparse(). Raises: ValueError."""
    shift = _SUFFIXES.get(text[-1:].lower(), 0)
    number = int(text[:-1] if shift else text, 0)
    if number < 0:
        raise ValueError(text)
    return number << shift & (1 << 64) - 1


def parse_id(text: str) -> int:
    """A user or a group: fs_param_is_uid(). Raises: ValueError."""
    number = int(text)
    if not 0 <= number < NO_ID:
        raise ValueError(text)
    return number


class TmpFs(FileSystem):
    """One tmpfs."""

    has_flags: ClassVar = True
    has_handles: ClassVar = True
    name = "tmpfs"
    magic = TMPFS_MAGIC
    xattr_user = True
    posix_acls = True

    @cached_property
    def uuid(self) -> bytes:  # type: ignore[override]
        """Of version 4."""
        found = bytearray(os.urandom(16))
        found[6] = found[6] & 0x0F | 0x40
        found[8] = found[8] & 0x3F | 0x80
        return bytes(found)

    def __init__(
        self,
        dev: int,
        ram_file: Callable[[], Any],
        now_ns: Callable[[], int],
        options: Options | None = None,
        memory_pages: int = 1 << 18,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(dev, now_ns)
        self.budget = budget if budget is not None else Budget()
        self.options = options if options is not None else Options()
        self.ram_file = ram_file
        self.memory_pages = memory_pages
        self.max_pages = self.options.max_pages
        self.pages = 0
        """Frames in use."""
        self.inodes = 0
        self.more_names = 0
        """Hard links beside the first name of each file: they count as inodes."""
        self.let_go: Callable[..., None] | None = None
        """`Leftovers.begin`: to free many files takes long."""
        self.in_memory = True
        """Its bytes are; they are else on a disk of the host."""
        self.mounted_once = False
        """Made for one mount(2): without mounts nobody comes to it any more."""
        self._inos = itertools.count(1)
        self._root = TmpDirectory(
            self, self.options.mode, Owner(self.options.uid or 0, self.options.gid or 0)
        )

    @classmethod
    def make(cls, vfs: Vfs, data: str = "", **options: Any) -> Self:
        """A tmpfs of a sandbox, with options as in mount(2) or by name."""
        parsed = parse_options(data, vfs.memory_pages)
        for key, value in options.items():
            setattr(parsed, key, value)
        assert vfs.ram_file is not None
        fs = cls(vfs.new_dev(), vfs.ram_file, vfs.now_ns, parsed, vfs.memory_pages, vfs.budget)
        fs.let_go = vfs.leftovers.begin
        return fs

    def lie_on(self, disk_file: Callable[[], Any]) -> None:
        """Have the bytes of files on a disk. Preconditions: there are none yet."""
        self.ram_file = disk_file
        self.in_memory = False
        self.memory_pages = MAX_PAGES

    def reconfigure(self, options: bytes) -> None:
        """shmem_reconfigure(): size and number of inodes. Raises: EINVAL."""
        wanted = parse_options(options.decode(errors="replace"), self.memory_pages)
        own = self.options
        if wanted.max_pages is not None:
            if own.any_size or self.pages > wanted.max_pages:
                raise EINVAL("there was no limit, or more is used")
            self.max_pages = own.max_pages = wanted.max_pages
        if wanted.max_inodes != MAX_INODES:
            if own.any_inodes or self.inodes_used > wanted.max_inodes:
                raise EINVAL("there was no limit, or more inodes are used")
            own.max_inodes = wanted.max_inodes

    @property
    def root(self) -> Inode:
        """The top."""
        return self._root

    def shutdown(self) -> None:
        """What is not open any more goes."""
        if self.mounted_once:
            del self._root

    def new_ino(self) -> int:
        """An inode number."""
        return next(self._inos)

    @property
    def inodes_used(self) -> int:
        """What counts against nr_inodes."""
        return self.inodes + self.more_names

    def check_inodes(self) -> None:
        """Raises: ENOSPC when one more inode is too many."""
        if self.inodes_used >= self.options.max_inodes:
            raise ENOSPC("too many inodes")
        self.budget.check_inode()

    def check_link(self, target: bytes) -> None:
        """A long symbolic link takes a page. Raises: ENOSPC."""
        full = self.max_pages is not None and self.pages >= self.max_pages
        if full and len(target) >= SHORT_LINK:
            raise ENOSPC("the file system is full")

    def statfs(self) -> StatFs:
        """statfs(2)."""
        blocks = self.max_pages if self.max_pages is not None else self.memory_pages
        free = max(0, blocks - self.pages)
        limit = self.options.max_inodes
        return StatFs(self.magic, 4096, blocks, free, limit, max(0, limit - self.inodes_used))

    def show_options(self) -> str:
        """What /proc/mounts adds: shmem_show_options()."""
        options = self.options
        shown = ",size=0k" if options.any_size else ""
        if options.max_pages is not None:
            shown = f",size={options.max_pages * 4}k"
        if options.max_inodes != MAX_INODES or options.any_inodes:
            shown += f",nr_inodes={0 if options.any_inodes else options.max_inodes}"
        if options.mode != 0o1777:
            shown += f",mode={options.mode:03o}"
        shown += f",uid={options.uid}" if options.uid else ""
        shown += f",gid={options.gid}" if options.gid else ""
        shown += f",mpol={options.mpol}" if options.mpol else ""
        return shown + (",noswap" if options.noswap else "")


class RamFs(TmpFs):
    """ramfs: the same without limits, and without what tmpfs has besides names and bytes."""

    name = "ramfs"
    magic = RAMFS_MAGIC
    has_flags: ClassVar = False
    has_handles: ClassVar = False
    xattr_user = False
    posix_acls = False
    uuid = b""

    def reconfigure(self, options: bytes) -> None:
        """Nothing can be changed."""

    def statfs(self) -> StatFs:
        """simple_statfs(): no room is counted."""
        return StatFs(self.magic, 4096, 0, 0, 0, 0)

    def show_options(self) -> str:
        """ramfs_show_options()."""
        mode = self.options.mode
        return f",mode={mode:o}" if mode != 0o755 else ""
