"""`Vfs`: what the file systems of one sandbox share: numbers, caches, and the registries by kind.

sentry.fs fills the registries (`openers`, `devices`, `types`), so that this room can open a FIFO or
a device, or serve mount(2), without knowing any of them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sentry.abi.mount import MS_STRICTATIME
from sentry.vfs.budget import Budget, DescriptorLimit, PipeLimits
from sentry.vfs.dentry import Dentry, DentryCache
from sentry.vfs.filesystem import AnonFs, FileSystem
from sentry.vfs.interface import Inode, Owner
from sentry.vfs.leftovers import Leftovers
from sentry.vfs.location import Location
from sentry.vfs.mount import Mount
from sentry.vfs.mounts import MountBudget

if TYPE_CHECKING:
    from sentry.platform.host_io import HostIO
    from sentry.vfs.file import Caller, FileDescription

Opener = Callable[["Location", int, "Caller"], "FileDescription"]
"""(location, flags, caller) → an open file."""
MountType = Callable[["Caller", bytes, int, bytes], FileSystem]
"""(caller, source, flags, data) of mount(2) → a file system."""



class AnonDentry(Dentry):
    """The label of a file without a name; counted while it is open."""

    __slots__ = ("_budget",)

    def __init__(self, budget: Budget, label: bytes, inode: Inode) -> None:
        super().__init__(None, label, inode)
        self._budget = budget
        budget.anonymous += 1

    def __del__(self) -> None:
        self._budget.anonymous -= 1


class FanotifyCounts:
    """What there is of fanotify(7), for its ceilings."""

    __slots__ = ("events", "groups", "groups_of", "marks", "marks_of")

    def __init__(self) -> None:
        self.events = self.groups = self.marks = 0
        self.groups_of: dict[int, int] = {}
        self.marks_of: dict[int, int] = {}
        """By user; without those of groups that may have any number."""


def dev_of(minor: int) -> int:
    """new_encode_dev(), with major number 0."""
    return minor & 0xFF | (minor & ~0xFF) << 12


class Vfs:
    """The file-system side of one sandbox."""

    def __init__(
        self,
        loop: Any = None,
        ram_file: Callable[[], Any] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        memory_pages: Callable[[], int] = lambda: 1 << 18,
    ) -> None:
        self.loop = loop
        self.host_io: HostIO | None = None
        """Who waits for the host's files; without, the kernel thread itself does."""
        self._memory_pages = memory_pages
        self.ram_file = ram_file
        """Makes an empty RamFile."""
        self.disk_file: Callable[[], Any] | None = None
        """The same, of which the bytes lie on a disk of the host, where there is one."""
        self.now_ns = now_ns
        self.dentries = DentryCache()
        self.budget = MountBudget(memory_pages(), loop, self.dentries)
        self.openers: dict[int, Opener] = {}
        """By type of the inode (S_IFIFO…)."""
        self.devices: dict[tuple[int, int], Opener] = {}
        """By (type, device number)."""
        self.types: dict[bytes, MountType] = {}
        """By name of the file-system type, for mount(2)."""
        self.subtypes: dict[bytes, Callable[[bytes], MountType]] = {}
        """Types that have some: a function of a subtype."""
        self.option_checks: dict[bytes, Callable[[str], object]] = {}
        """By name of the type: raises EINVAL for an option that it does not know."""
        self.option_joins: dict[bytes, Callable[[bytes, bytes | None], bytes]] = {}
        """By name of the type: how a key and value of fsconfig(2) are one of several mount options,
        where a value may have commas."""
        self.internal: dict[str, Mount] = {}
        """Mounts that no tree shows, by their purpose."""
        self.terminal: Any = None
        """The open file of the donated terminal, for /dev/tty."""
        self.descriptors = DescriptorLimit()
        self.leftovers = Leftovers(loop)
        self.tracked = 0
        """Files on a server that are mapped so that stores reach them: sentry.fs.page_cache."""
        self.until: Callable[[], Callable[[], None]] | None = None
        """The kernel's: whose call has caused what is done behind it goes on when the result is
        called (sentry.kernel.crowds)."""
        self.epoll_items = 0
        """Watched files of all epolls, for their ceiling."""
        self.polled = 0
        """Files in lists that poll(2) remembers, for theirs."""
        self.inotify_watches = 0
        self.inotify_instances = 0
        self.fanotify = FanotifyCounts()
        self.devpts: Any = None
        """The devpts that was mounted last: /dev/ptmx belongs to it."""
        self.fuse: Any = None
        """The file systems that programs serve: sentry.fs.fuse."""
        self.images: Any = None
        """What was unpacked of compressed images: sentry.fs.erofs.unpacked."""
        self.signal_group: Callable[[Any, int], None] | None = None
        """The kernel's: (process group, signal), for terminals."""
        self.signal_process: Callable[[Any, int], None] | None = None
        """The same to a single process."""
        self.send_io: Callable[[FileDescription, int, int, int], None] | None = None
        """The kernel's: (file, descriptor, POLL_* code, band), a signal for the file's owner."""
        self.send_urgent: Callable[[FileDescription], None] | None = None
        """The kernel's: SIGURG for the file's owner."""
        self.lease_break_s = 45
        """fs.lease-break-time."""
        self.ignores_signal: Callable[[Any, int], bool] | None = None
        """The kernel's: whether a task blocks or ignores a signal."""
        self.pipes = PipeLimits()
        self.waits_for: dict[object, object] = {}
        """Who sleeps for whose record lock, over all files (EDEADLK)."""
        self.protected_symlinks = True
        self.protected_hardlinks = True
        self.protected_regular = 1
        self.protected_fifos = 1
        self.devs = itertools.count(20)
        self._inos = itertools.count(1)
        self.donated_inos: dict[tuple[int, int], list[int]] = {}
        """Objects of the host that programs have: their numbers here, and by how many inodes."""
        self.donated: set[Any] = set()
        """What the host has given that leads to somebody: inodes, and open FIFOs."""
        self.mount_ids = itertools.count(21)
        self._cookies = itertools.count(1)
        self._anon: dict[str, Mount] = {}

    def type_of(self, name: bytes) -> MountType | None:
        """That of a name, or of its first part where a type has subtypes: get_fs_type()."""
        make = self.types.get(name)
        if make is None:
            base, dot, subtype = name.partition(b".")
            with_subtype = self.subtypes.get(base) if dot else None
            if with_subtype is not None:
                make = with_subtype(subtype)
        return make

    @property
    def task(self) -> Any:
        """The task for which something is done at this moment; None: for nobody."""
        step = self.loop.step if self.loop is not None else None
        task = getattr(step, "owner", None) or getattr(step, "name", None)
        return task if hasattr(task, "creds") else None

    @property
    def memory_pages(self) -> int:
        """The sandbox's memory limit, for sizes in per cent and statfs."""
        return self._memory_pages()

    def new_dev(self) -> int:
        """st_dev of a file system without a device: major 0."""
        return dev_of(next(self.devs))

    def new_ino(self) -> int:
        """An inode number for a file without a name."""
        return next(self._inos)

    def new_cookie(self) -> int:
        """What ties IN_MOVED_FROM to IN_MOVED_TO."""
        return next(self._cookies) & 0xFFFFFFFF

    def new_mount(self, fs: FileSystem, flags: int = 0, root: Dentry | None = None) -> Mount:
        """A mount that belongs to no namespace yet."""
        return Mount(next(self.mount_ids), fs, root or Dentry(None, b"/", fs.root), flags)

    def anon_fs(self, name: str = "anon_inodefs", magic: int = 0x09041934) -> AnonFs:
        """The internal file system `name`, made when first needed."""
        mount = self._anon.get(name)
        if mount is None:
            fs = AnonFs(self.new_dev(), self.now_ns)
            fs.name, fs.magic = name, magic
            fs.fixed_attributes = name in (AnonFs.name, "pidfs")
            root = Dentry(None, b"/", Inode(fs, 0, 0o040000, Owner(0, 0)))
            mount = self._anon[name] = Mount(next(self.mount_ids), fs, root, MS_STRICTATIME)
        fs_: Any = mount.fs
        return fs_  # type: ignore[no-any-return]

    def anon_location(self, inode: Inode, label: bytes) -> Location:
        """A place for a file without a name; `label` is what readlink of /proc/self/fd/N shows."""
        self.budget.check_files()
        return Location(self._anon[inode.fs.name], AnonDentry(self.budget, label, inode))
