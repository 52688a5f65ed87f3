"""/proc/PID/ns: links that name namespaces, and open as something setns(2) can take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi import nsfs
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
from sentry.abi.stat import NSFS_MAGIC, S_IFLNK
from sentry.auth.userns import is_inside
from sentry.errors import EINVAL, ENOENT, EPERM, ESRCH
from sentry.fs.proc.owner import check_read, live_task, owner_of
from sentry.fs.pseudo.nodes import Directory, MagicNode, Node
from sentry.vfs.file import FileDescription
from sentry.vfs.interface import Inode, Owner
from sentry.vfs.requests import Requests

if TYPE_CHECKING:
    from sentry.fs.kernel import Kernel
    from sentry.fs.proc.registry import Subject
    from sentry.fs.pseudo.table import TableFs
    from sentry.vfs.file import Caller
    from sentry.vfs.location import Location

CLONE_FLAGS: Final = {
    "cgroup": CLONE_NEWCGROUP, "ipc": CLONE_NEWIPC, "mnt": CLONE_NEWNS, "net": CLONE_NEWNET,
    "pid": CLONE_NEWPID, "time": CLONE_NEWTIME, "user": CLONE_NEWUSER, "uts": CLONE_NEWUTS,
}  # fmt: skip
NAMESPACES: Final = Requests(names=(nsfs,))
FIRST: Final = 4026531835
"""PROC_CGROUP_INIT_INO: Linux numbers its first namespaces from here."""


class NamespaceInode(Inode):
    """A namespace as a file: its kind (mnt, uts…), and its object, None for the first one of users.

    Whoever holds it, an open file or a bind mount, keeps the namespace.
    """

    __slots__ = ("kind_name", "namespace")

    opens_itself = True
    bindable = True
    immutable = True

    def __init__(self, kernel: Kernel, kind: str, namespace: Any) -> None:
        number = number_of(kind, namespace)
        super().__init__(kernel.vfs.anon_fs("nsfs", NSFS_MAGIC), number, 0o100444, Owner(0, 0))
        self.kind_name = kind
        self.namespace = namespace  # type: ignore[misc]

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """For setns(2); nothing can be read."""
        return NamespaceFile(location, flags)


def place_of(kernel: Kernel, kind: str, namespace: Any) -> Location:
    """A namespace as a place outside of every tree."""
    inode = NamespaceInode(kernel, kind, namespace)
    place: Location = kernel.vfs.anon_location(inode, b"%s:[%d]" % (kind.encode(), inode.ino))
    return place


class NamespaceFile(FileDescription):
    """An open namespace: ioctl_nsfs(2)."""

    __slots__ = ()
    requests: ClassVar = NAMESPACES
    has_read = False
    has_write = False
    splice_read = False
    splice_write = False
    can_pread = True
    can_pwrite = True


def _of(file: NamespaceFile) -> tuple[str, Any]:
    inode = file.inode
    assert isinstance(inode, NamespaceInode)
    return inode.kind_name, inode.namespace


@NAMESPACES.handles("NS_GET_NSTYPE")
def _kind(file: NamespaceFile, caller: Caller, argument: int) -> int:
    return CLONE_FLAGS[_of(file)[0]]


@NAMESPACES.handles("NS_GET_PARENT")
def _parent(file: NamespaceFile, caller: Caller, argument: int) -> int:
    kind, namespace = _of(file)
    if kind not in ("user", "pid"):
        raise EINVAL("no hierarchy")
    return open_namespace(caller, kind, parent_of(caller, kind, namespace))


@NAMESPACES.handles("NS_GET_USERNS")
def _owner(file: NamespaceFile, caller: Caller, argument: int) -> int:
    kind, namespace = _of(file)
    if kind == "user":
        owner = parent_of(caller, kind, namespace)
    else:
        owner = namespace.owner
        if not is_inside(owner, caller.creds.user_ns):
            raise EPERM("outside")
    return open_namespace(caller, "user", owner)


@NAMESPACES.handles("NS_GET_OWNER_UID")
def _owner_uid(file: NamespaceFile, caller: Caller, argument: int) -> None:
    kind, namespace = _of(file)
    if kind != "user":
        raise EINVAL("not a user namespace")
    uid = namespace.owner if namespace is not None else 0
    caller.mm.write(argument, caller.creds.shown_uid(uid).to_bytes(4, "little"))


@NAMESPACES.handles("NS_GET_MNTNS_ID")
def _mounts_id(file: NamespaceFile, caller: Caller, argument: int) -> None:
    kind, namespace = _of(file)
    if kind != "mnt":
        raise EINVAL("not a mount namespace")
    caller.mm.write(argument, namespace.id.to_bytes(8, "little"))


@NAMESPACES.handles("NS_GET_PID_FROM_PIDNS", "NS_GET_TGID_FROM_PIDNS")
def _number_here(file: NamespaceFile, caller: Caller, argument: int) -> int:
    """A pid of that namespace as the caller has it."""
    return _number(caller.group.pids, _pids(file), argument)


@NAMESPACES.handles("NS_GET_PID_IN_PIDNS", "NS_GET_TGID_IN_PIDNS")
def _number_there(file: NamespaceFile, caller: Caller, argument: int) -> int:
    """The other way round."""
    return _number(_pids(file), caller.group.pids, argument)


def _pids(file: NamespaceFile) -> Any:
    kind, namespace = _of(file)
    if kind != "pid":
        raise EINVAL("not a PID namespace")
    return namespace


def _number(target: Any, source: Any, argument: int) -> int:
    number = argument & 0xFFFFFFFF
    found: int = target.of(source.known(number)) if source.task_or_zombie(number) else 0
    if not found:
        raise ESRCH(f"pid {number}")
    return found


def parent_of(caller: Caller, kind: str, namespace: Any) -> Any:
    """ns_get_owner(), pidns_get_parent(): not beyond the caller's own namespace. Raises: EPERM."""
    mine: Any = caller.creds.user_ns if kind == "user" else caller.group.pids
    at = namespace
    while at is not mine:
        if at is None:
            raise EPERM("outside")
        at = at.parent
        if at is mine:
            return namespace.parent
    raise EPERM("outside")


def open_namespace(caller: Caller, kind: str, namespace: Any) -> int:
    """A descriptor for it."""
    file = NamespaceFile(place_of(caller.kernel, kind, namespace), 0)
    return caller.files.install(file, caller.rlimit(RLIMIT_NOFILE), cloexec=True)


KINDS: Final[dict[str, tuple[int, Callable[[Any], Any]]]] = {
    "cgroup": (FIRST, lambda task: task.ns.cgroup),
    "ipc": (FIRST + 4, lambda task: task.ns.ipc),
    "mnt": (FIRST + 6, lambda task: task.ns.mounts),
    "net": (FIRST + 5, lambda task: task.ns.net),
    "pid": (FIRST + 1, lambda task: task.pids),
    "pid_for_children": (FIRST + 1, lambda task: task.ns.pids_for_children),
    "time": (FIRST - 1, lambda task: task.ns.time),
    "time_for_children": (FIRST - 1, lambda task: task.ns.time_for_children),
    "user": (FIRST + 2, lambda task: task.creds.user_ns),
    "uts": (FIRST + 3, lambda task: task.ns.uts),
}
"""Number of the first namespace of a kind, and which one a task is in."""
KEPT: Final = ("pid", "user")
"""Those that a process is still in when it has ended."""


def namespace_of(task: Any, name: str) -> tuple[str, Any]:
    """What a link of /proc/PID/ns is about: its kind, and the object."""
    return name.removesuffix("_for_children"), KINDS[name][1](task)


def number_of(kind: str, namespace: Any) -> int:
    """The inode number: the first namespace of a kind has Linux's, others count on."""
    if namespace is None or namespace.charge is None:
        return KINDS[kind][0]
    return FIRST + int(namespace.charge.number)


class NamespaceDirectory(Directory):
    """/proc/PID/ns."""

    __slots__ = ("_kernel", "_subject")

    def __init__(self, fs: TableFs, kernel: Kernel, subject: Subject) -> None:
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

        def find(caller: Any) -> Any:
            check_read(caller, subject)
            task = subject.task if kind in KEPT else live_task(subject)
            namespace = KINDS[kind][1](task)
            if kind == "pid_for_children" and namespace.init is None and not namespace.ended:
                raise ENOENT("it has no process yet")
            return namespace

        def text(caller: Any) -> bytes:
            return b"%s:[%d]" % (shown.encode(), number_of(shown, find(caller)))

        def target(caller: Any) -> Location:
            return place_of(kernel, shown, find(caller))

        return MagicNode(self.sb, text, target, 0o777, owner_of(subject))
