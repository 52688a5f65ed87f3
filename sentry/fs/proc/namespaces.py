"""/proc/PID/ns: links that name namespaces, and open as something setns(2) can take."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.sched import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from sentry.errors import EINVAL, ENOTTY, EPERM
from sentry.fs.generated.nodes import S_IFLNK, Directory, MagicNode, Node
from sentry.fs.proc.owner import check_read, live_task, owner_of
from sentry.vfs.file import FileDescription, Result
from sentry.vfs.interface import Inode, Owner

if TYPE_CHECKING:
    from sentry.fs.generated.table import TableFs
    from sentry.fs.proc.registry import Subject
    from sentry.vfs.dentry import Location
    from sentry.vfs.file import Caller

NSFS_MAGIC: Final = 0x6E736673
NS_GET_USERNS: Final = 0xB701
NS_GET_PARENT: Final = 0xB702
NS_GET_NSTYPE: Final = 0xB703
NS_GET_OWNER_UID: Final = 0xB704
CLONE_FLAGS: Final = {
    "cgroup": CLONE_NEWCGROUP, "ipc": CLONE_NEWIPC, "mnt": CLONE_NEWNS, "net": CLONE_NEWNET,
    "pid": CLONE_NEWPID, "time": CLONE_NEWTIME, "user": CLONE_NEWUSER, "uts": CLONE_NEWUTS,
}  # fmt: skip
FIRST: Final = 4026531835
"""PROC_CGROUP_INIT_INO: Linux numbers its first namespaces from here."""


class NamespaceInode(Inode):
    """A namespace as a file: its kind (mnt, uts…), and its object or None for the only one."""

    __slots__ = ("kind_name", "namespace")

    opens_itself = True
    bindable = True

    def __init__(self, kernel: Any, ino: int, kind: str, namespace: Any) -> None:
        super().__init__(kernel.vfs.anon_fs("nsfs", NSFS_MAGIC), ino, 0o100444, Owner(0, 0))
        self.kind_name = kind
        self.namespace = namespace

    async def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """For setns(2); nothing can be read."""
        return NamespaceFile(location, flags)


class NamespaceFile(FileDescription):
    """An open namespace: ioctl_nsfs(2)."""

    __slots__ = ()

    def ioctl(self, caller: Caller, request: int, argument: int) -> Result:
        """Its kind, its owner. Raises: EPERM for a parent, which nobody inside may see."""
        inode = self.inode
        assert isinstance(inode, NamespaceInode)
        if request == NS_GET_NSTYPE:
            return CLONE_FLAGS[inode.kind_name]
        if request == NS_GET_PARENT:
            raise EPERM("outside") if inode.kind_name in ("user", "pid") else EINVAL("no hierarchy")
        if request == NS_GET_OWNER_UID:
            if inode.kind_name != "user":
                raise EINVAL("not a user namespace")
            caller.mm.write(argument, bytes(4))
            return 0
        if request == NS_GET_USERNS:
            if inode.kind_name == "user":
                raise EPERM("outside")
            kernel = caller.kernel
            number = number_of(kernel, "user", None)
            owner = NamespaceInode(kernel, number, "user", None)
            place = kernel.vfs.anon_location(owner, b"user:[%d]" % number)
            limit = caller.rlimit(RLIMIT_NOFILE)
            return caller.files.install(NamespaceFile(place, 0), limit, cloexec=True)
        raise ENOTTY(f"{request:#x}")


def _shared(_: Any) -> Any:
    return None


KINDS: Final[dict[str, tuple[int, Callable[[Any], Any]]]] = {
    "cgroup": (FIRST, _shared),
    "ipc": (FIRST + 4, lambda task: getattr(task, "ipc", None)),
    "mnt": (FIRST + 6, lambda task: task.mounts),
    "net": (FIRST + 5, _shared),
    "pid": (FIRST + 1, _shared),
    "pid_for_children": (FIRST + 1, _shared),
    "time": (FIRST - 1, _shared),
    "time_for_children": (FIRST - 1, _shared),
    "user": (FIRST + 2, _shared),
    "uts": (FIRST + 3, lambda task: getattr(task, "uts", None)),
}
"""Number of the first namespace of a kind, and which one a task is in."""


def number_of(kernel: Any, kind: str, namespace: Any) -> int:
    """The inode number: the first namespace of a kind has Linux's, others count on."""
    first = KINDS[kind][0]
    if namespace is None:
        return first
    table: WeakKeyDictionary[Any, int] = kernel.services.setdefault(
        f"ns:{kind}", WeakKeyDictionary()
    )
    found = table.get(namespace)
    if found is None:
        counter = kernel.services.setdefault("ns:next", itertools.count(FIRST + 1000))
        known_first = kernel.services.setdefault(f"ns:{kind}:first", [])
        found = next(counter) if known_first else first
        known_first[:] = [True]
        table[namespace] = found
    return found


class NamespaceDirectory(Directory):
    """/proc/PID/ns."""

    __slots__ = ("_kernel", "_subject")

    def __init__(self, fs: TableFs, kernel: Any, subject: Subject) -> None:
        super().__init__(fs, 0o511, owner_of(subject))
        self._kernel = kernel
        self._subject = subject

    def names(self) -> Iterable[tuple[bytes, int]]:
        """The kinds."""
        return [(kind.encode(), S_IFLNK) for kind in KINDS]

    def make(self, name: bytes) -> Node | None:
        """The link of a kind."""
        kind = name.decode(errors="replace")
        if kind not in KINDS:
            return None
        kernel, subject = self._kernel, self._subject
        shown = kind.removesuffix("_for_children")

        def find(caller: Any) -> tuple[int, Any]:
            check_read(caller, subject)
            namespace = KINDS[kind][1](live_task(subject))
            return number_of(kernel, kind, namespace), namespace

        def text(caller: Any) -> bytes:
            return b"%s:[%d]" % (shown.encode(), find(caller)[0])

        def target(caller: Any) -> Location:
            number, namespace = find(caller)
            inode = NamespaceInode(kernel, number, shown, namespace)
            place: Location = kernel.vfs.anon_location(
                inode, b"%s:[%d]" % (shown.encode(), number)
            )
            return place

        return MagicNode(self.fs, text, target, 0o777, owner_of(subject))
