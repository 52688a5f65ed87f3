"""tmpfs: a file system in memory, with mount(2) options size, nr_blocks, nr_inodes, mode, uid, gid.

Its bytes are RAM frames of the sandbox, so they count against the sandbox's memory limit whatever
`size` says. The number of inodes has a ceiling, because each costs memory of the Sentry.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from sentry.abi.stat import TMPFS_MAGIC
from sentry.errors import EINVAL, ENOSPC
from sentry.fs.tmpfs.directory import TmpDirectory
from sentry.vfs.budget import Budget
from sentry.vfs.interface import FileSystem, Inode, Owner, StatFs
from sentry.vfs.vfs import Vfs

MAX_INODES: Final = 262_144
_SUFFIXES: Final = {"k": 10, "m": 20, "g": 30, "t": 40}


class Options(Struct):
    """What a mount asks for; sizes in pages, None is no limit."""

    max_pages: int | None = None
    max_inodes: int = MAX_INODES
    mode: int = 0o1777
    uid: int | None = None
    gid: int | None = None


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
            pages = memory_pages * int(value[:-1]) // 100
        elif key == "size":
            pages = (parse_size(value) + 4095) // 4096
        else:
            pages = parse_size(value)
        options.max_pages = pages or None
    elif key == "nr_inodes":
        options.max_inodes = min(parse_size(value) or MAX_INODES, MAX_INODES)
    elif key == "mode":
        options.mode = int(value, 8) & 0o7777
    elif key in ("uid", "gid"):
        number = int(value)
        if number < 0:
            raise ValueError(value)
        setattr(options, key, number)
    elif key not in ("huge", "mpol", "inode32", "inode64", "noswap", "nosymfollow"):
        raise ValueError(key)


def parse_size(text: str) -> int:
    """A number with k, m, g or t: memparse()."""
    shift = _SUFFIXES.get(text[-1:].lower(), 0)
    number = int(text[:-1] if shift else text, 0)
    if number < 0:
        raise ValueError(text)
    return number << shift


class TmpFs(FileSystem):
    """One tmpfs."""

    has_flags = True
    has_handles = True
    name = "tmpfs"
    magic = TMPFS_MAGIC
    xattr_user = True

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
        self._inos = itertools.count(1)
        self._root = TmpDirectory(
            self, self.options.mode, Owner(self.options.uid or 0, self.options.gid or 0)
        )

    @classmethod
    def make(cls, vfs: Vfs, data: str = "", **options: Any) -> TmpFs:
        """A tmpfs of a sandbox, with options as in mount(2) or by name."""
        parsed = parse_options(data, vfs.memory_pages)
        for key, value in options.items():
            setattr(parsed, key, value)
        assert vfs.ram_file is not None
        return cls(
            vfs.new_dev(), vfs.ram_file, vfs.now_ns, parsed, vfs.memory_pages, vfs.budget
        )

    async def reconfigure(self, options: bytes) -> None:
        """shmem_reconfigure(): size and number of inodes. Raises: EINVAL."""
        wanted = parse_options(options.decode(errors="replace"), self.memory_pages)
        if wanted.max_pages is not None:
            if self.max_pages is None or self.pages > wanted.max_pages:
                raise EINVAL("there was no limit, or more is used")
            self.max_pages = self.options.max_pages = wanted.max_pages
        if wanted.max_inodes != MAX_INODES:
            if self.inodes > wanted.max_inodes:
                raise EINVAL("more inodes are used")
            self.options.max_inodes = wanted.max_inodes

    @property
    def root(self) -> Inode:
        """The top."""
        return self._root

    def new_ino(self) -> int:
        """An inode number."""
        return next(self._inos)

    def check_inodes(self) -> None:
        """Raises: ENOSPC when one more inode is too many."""
        if self.inodes >= self.options.max_inodes:
            raise ENOSPC("too many inodes")
        self.budget.check_inode()

    async def statfs(self) -> StatFs:
        """statfs(2)."""
        blocks = self.max_pages if self.max_pages is not None else self.memory_pages
        free = max(0, blocks - self.pages)
        limit = self.options.max_inodes
        return StatFs(self.magic, 4096, blocks, free, limit, max(0, limit - self.inodes))

    def show_options(self) -> str:
        """What /proc/mounts adds: shmem_show_options()."""
        options = self.options
        shown = f",size={options.max_pages * 4}k" if options.max_pages is not None else ""
        if options.max_inodes != MAX_INODES:
            shown += f",nr_inodes={options.max_inodes}"
        if options.mode != 0o1777:
            shown += f",mode={options.mode:03o}"
        shown += f",uid={options.uid}" if options.uid else ""
        return shown + (f",gid={options.gid}" if options.gid else "")
