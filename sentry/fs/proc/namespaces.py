"""/proc/PID/ns: links that name namespaces, and open as something setns(2) can take."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from sentry.fs.generated.nodes import S_IFLNK, Directory, MagicNode, Node
from sentry.fs.proc.owner import check_read, live_task, owner_of
from sentry.vfs.file import FileDescription
from sentry.vfs.interface import Inode, Owner

if TYPE_CHECKING:
    from sentry.fs.generated.table import TableFs
    from sentry.fs.proc.registry import Subject
    from sentry.vfs.dentry import Location
    from sentry.vfs.file import Caller

NSFS_MAGIC: Final = 0x6E736673
FIRST: Final = 4026531835
"""PROC_CGROUP_INIT_INO: Linux numbers its first namespaces from here."""


class NamespaceInode(Inode):
    """A namespace as a file: its kind (mnt, uts…), and its object or None for the only one."""

    __slots__ = ("kind_name", "namespace")

    opens_itself = True

    def __init__(self, kernel: Any, ino: int, kind: str, namespace: Any) -> None:
        super().__init__(kernel.vfs.anon_fs("nsfs", NSFS_MAGIC), ino, 0o100444, Owner(0, 0))
        self.kind_name = kind
        self.namespace = namespace

    async def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """For setns(2); nothing can be read."""
        return FileDescription(location, flags)


def _shared(_: Any) -> Any:
    return None


KINDS: Final[dict[str, tuple[int, Callable[[Any], Any]]]] = {
    "cgroup": (FIRST, _shared),
    "ipc": (FIRST + 4, _shared),
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
