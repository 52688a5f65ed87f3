"""/proc/PID and /proc/PID/task/TID: the directories of processes and threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sentry.abi.stat import S_IFDIR, S_IFLNK, S_IFREG
from sentry.auth.ptrace import may_attach
from sentry.errors import EINVAL, ENOENT, EPERM, ESRCH
from sentry.fs.proc.descriptors import FdDirectory, FdInfoDirectory, parse_fd
from sentry.fs.proc.owner import check_read, live_task, owner_of
from sentry.fs.proc.registry import Entry, Subject, View
from sentry.fs.pseudo.files import Text
from sentry.fs.pseudo.nodes import Directory, MagicNode, Node, TextNode
from sentry.vfs.interface import Absent, Inode
from sentry.vfs.paths import link_text

if TYPE_CHECKING:
    from sentry.fs.kernel import Kernel
    from sentry.fs.proc.filesystem import ProcFs
    from sentry.fs.pseudo.table import TableFs
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location


class ProcessSubject(Subject):
    """A process, spoken for by its leader."""

    __slots__ = ("_group", "_leader", "pids")

    def __init__(self, group: Any, pids: Any) -> None:
        self._group = group
        self._leader = group.leader
        self.pids = pids

    @property
    def group(self) -> Any:
        """The process."""
        return self._group

    @property
    def task(self) -> Any:
        """The leader, dead or not; who it was at last, once it has been waited for."""
        self._leader = self._group.leader or self._leader
        return self._leader

    @property
    def exists(self) -> bool:
        """Nobody has waited for it."""
        return self._group.kernel.pids.groups.get(self._group.tgid) is self._group

    @property
    def id(self) -> int:
        """Its pid."""
        pid: int = self.pids.of(self._group.tgid)
        return pid


class ThreadSubject(Subject):
    """A thread."""

    __slots__ = ("_task", "is_below_task", "pids")

    def __init__(self, task: Any, is_below_task: bool, pids: Any) -> None:
        self._task = task
        self.pids = pids
        self.is_below_task = is_below_task

    @property
    def group(self) -> Any:
        """Its process."""
        return self._task.group

    @property
    def task(self) -> Any:
        """Itself."""
        return self._task

    @property
    def exists(self) -> bool:
        """It runs; or it is the leader of a process that somebody will wait for."""
        group = self._task.group
        if self._task is group.leader and self._task.dead:
            return group.kernel.pids.groups.get(group.tgid) is group
        return not self._task.dead

    @property
    def is_thread(self) -> bool:
        """/proc/TID looks like a process."""
        return self.is_below_task

    @property
    def id(self) -> int:
        """Its tid."""
        tid: int = self.pids.of(self._task.tid)
        return tid


def _exe(subject: Subject) -> Location:
    live_task(subject)
    place: Location | None = subject.group.exe
    if place is None:
        raise ENOENT("no program")
    return place


def _cwd(subject: Subject) -> Location:
    place: Location = live_task(subject).fs.cwd
    return place


def _root(subject: Subject) -> Location:
    place: Location = live_task(subject).fs.root
    return place


LINKS: dict[bytes, Callable[[Subject], Location]] = {b"exe": _exe, b"cwd": _cwd, b"root": _root}


def _mem(fs: TableFs, subject: Subject) -> Node:
    from sentry.fs.proc.process_memory import MemNode  # noqa: PLC0415  few programs look

    return MemNode(fs, subject)


def _pagemap(fs: TableFs, subject: Subject) -> Node:
    from sentry.fs.proc.pagemap import PagemapNode  # noqa: PLC0415  few programs look

    return PagemapNode(fs, subject)


MEMORY: dict[bytes, Callable[[TableFs, Subject], Node]] = {b"mem": _mem, b"pagemap": _pagemap}
"""Files that are no text."""


def _files() -> dict[str, Entry]:
    """Text files by their path below /proc/PID."""
    from sentry.fs.proc.declared import PROCESS  # noqa: PLC0415  not all programs look for one

    return PROCESS


class PidTextNode(TextNode):
    """A text file of a process, checked at open and gone with the process."""

    __slots__ = ("_entry", "_kernel", "_subject")

    def __init__(self, fs: TableFs, entry: Entry, kernel: Kernel, subject: Subject) -> None:
        super().__init__(fs, entry.mode, None, None, owner_of(subject))
        self._subject = subject
        self._entry = entry
        self._kernel = kernel

    @property
    def from_start(self) -> bool:  # type: ignore[override]
        """As declared: those that are no seq_file."""
        return self._entry.from_start

    can_pwrite = from_start

    @property
    def pollable(self) -> bool:  # type: ignore[override]
        """Only those that tell of changes."""
        return self._entry.changes is not None

    def shown(self, caller: Caller) -> tuple[Callable[[Any], Text] | None, Any]:
        """As declared. What was pinned is shown although the process is gone."""
        entry, kernel, subject = self._entry, self._kernel, self._subject
        view = View(kernel, caller, subject, creds=caller.creds)
        if entry.pin is not None:
            view = View(kernel, caller, subject, entry.pin(view), caller.creds)

        def show(_: Any) -> Text:
            assert entry.show is not None
            if entry.pin is None:
                self.check_alive()
            return entry.show(view)

        changes = entry.changes(view) if entry.changes is not None else None
        return (show if entry.show is not None else None), changes

    def stored(self, opener: Caller) -> Callable[[Caller, bytes], None]:
        """As declared, as long as the process is there."""
        entry, creds, pinned = self._entry, opener.creds, None
        if entry.pin is not None and entry.store is not None:
            pinned = entry.pin(View(self._kernel, opener, self._subject, creds=creds))

        def store(writer: Caller, data: bytes) -> None:
            if entry.store is None:
                raise EINVAL("not to be written")
            self.check_alive()
            entry.store(View(self._kernel, opener, self._subject, pinned, creds, writer), data)

        return store

    def check_alive(self) -> None:
        """Raises: ESRCH."""
        if not self._subject.exists:
            raise ESRCH(f"process {self._subject.id}")

    def check_open(self, caller: Caller, flags: int) -> None:
        """Private files are for those who may look into the process."""
        self.check_alive()
        if self._entry.private:
            check_read(caller, self._subject)

    def check_reader(self, caller: Caller) -> None:
        """Who reads has to be one, as the process is now: do_io_accounting(), lock_trace().

        Raises: EACCES, EPERM.
        """
        entry, subject = self._entry, self._subject
        if not entry.private or entry.pin is not None or not subject.exists:
            return
        if entry.name == "io":
            check_read(caller, subject)
        elif not may_attach(caller, subject.task, real=False):
            raise EPERM(f"process {subject.id}")


class SubDirectory(Directory):
    """Files of a process in a directory of their own (net/, attr/)."""

    __slots__ = ("_below", "_kernel", "_prefix", "_subject")

    def __init__(
        self,
        fs: TableFs,
        kernel: Kernel,
        subject: Subject,
        prefix: str,
        below: dict[bytes, Callable[[], Node]] | None = None,
    ) -> None:
        """`below`: directories in it."""
        super().__init__(fs, 0o555, owner_of(subject))
        self._below = below or {}
        self._kernel = kernel
        self._subject = subject
        self._prefix = prefix

    def names(self) -> Iterable[tuple[bytes, int]]:
        """The declared files below the prefix."""
        files = [
            (path[len(self._prefix) :].encode(), S_IFREG)
            for path in _files()
            if path.startswith(self._prefix)
        ]
        return [*files, *((name, S_IFDIR) for name in self._below)]

    def make(self, name: bytes) -> Node | None:
        """One of them."""
        if name in self._below:
            return self._below[name]()
        entry = _files().get(self._prefix + name.decode(errors="replace"))
        return PidTextNode(self.sb, entry, self._kernel, self._subject) if entry else None


class PidDirectory(Directory):
    """/proc/PID, /proc/PID/task/TID."""

    __slots__ = ("kernel", "subject")
    fs: ProcFs

    def __init__(self, fs: TableFs, kernel: Kernel, subject: Subject) -> None:
        super().__init__(fs, 0o555, owner_of(subject))
        self.kernel = kernel
        self.subject = subject

    def links(self) -> int:
        """As Linux counts them."""
        return 7 if self.subject.is_thread else 9

    def _directories(self) -> dict[bytes, Callable[[], Node]]:
        fs, kernel, subject = self.sb, self.kernel, self.subject
        table: dict[bytes, Callable[[], Node]] = {
            b"fd": lambda: FdDirectory(fs, subject),
            b"fdinfo": lambda: FdInfoDirectory(fs, subject),
            b"ns": lambda: _namespaces(fs, kernel, subject),
            b"net": lambda: SubDirectory(
                fs, kernel, subject, "net/", {b"vlan": lambda: _vlan(fs, subject)}
            ),
            b"attr": lambda: SubDirectory(fs, kernel, subject, "attr/"),
        }
        if not subject.is_thread:
            table[b"map_files"] = lambda: _map_files(fs, subject)
            table[b"task"] = lambda: TaskDirectory(fs, kernel, subject)
        return table

    def _shows(self, entry: Entry) -> bool:
        wanted = "thread" if self.subject.is_thread else "process"
        return entry.where in ("both", wanted)

    def names(self) -> Iterable[tuple[bytes, int]]:
        """Everything, unless the process is gone."""
        if not self.subject.exists:
            raise ENOENT(f"process {self.subject.id}")
        files = [
            (path.encode(), S_IFREG)
            for path, entry in _files().items()
            if "/" not in path and self._shows(entry)
        ]
        return [
            *((name, S_IFDIR) for name in self._directories()),
            *((name, S_IFLNK) for name in LINKS),
            *((name, S_IFREG) for name in MEMORY),
            *files,
        ]

    def lookup_cached(self, name: bytes) -> Inode | Absent | None:  # type: ignore[override]
        """With hidepid= it depends on who looks."""
        return None if self.fs.hides else self._found(name)

    def lookup_for(self, caller: Caller, name: bytes, opens: bool = False) -> Inode | Absent:
        """For those from whom it is not hidden. Raises: EPERM, ENOENT, ESRCH."""
        self._check_shown(caller)
        return self._found(name)

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """Likewise."""
        self._check_shown(caller)
        return super().open(location, flags, caller)

    def _check_shown(self, caller: Caller) -> None:
        """proc_pid_permission()."""
        if not self.fs.permits(caller, self.subject, 1):
            raise (ENOENT if self.fs.hides == 2 else EPERM)(f"process {self.subject.id}")

    def _found(self, name: bytes) -> Inode | Absent:
        """Owners are those of now. Raises: ESRCH once the process is gone (proc_pid_permission)."""
        subject = self.subject
        if not subject.exists:
            raise ESRCH(f"process {subject.id}")
        node = super().lookup_cached(name)
        if isinstance(node, Node) and (name in LINKS or node.mode & 0o7777 != 0o555):
            node.uid, node.gid = owner_of(subject)
        return node

    def make(self, name: bytes) -> Node | None:
        """A file, a link or a directory of the process."""
        subject = self.subject
        if (find := LINKS.get(name)) is not None:
            return magic_link(self.sb, subject, find)
        if (memory := MEMORY.get(name)) is not None:
            return memory(self.sb, subject)
        maker = self._directories().get(name)
        if maker is not None:
            return maker()
        entry = _files().get(name.decode(errors="replace"))
        if entry is None or not self._shows(entry):
            return None
        return PidTextNode(self.sb, entry, self.kernel, subject)


def _namespaces(fs: TableFs, kernel: Kernel, subject: Subject) -> Node:
    from sentry.fs.proc.namespaces import NamespaceDirectory  # noqa: PLC0415  few programs look

    return NamespaceDirectory(fs, kernel, subject)


def _vlan(fs: TableFs, subject: Subject) -> Node:
    from sentry.fs.proc.vlan import VlanDirectory  # noqa: PLC0415  few programs look

    return VlanDirectory(fs, subject)


def _map_files(fs: TableFs, subject: Subject) -> Node:
    from sentry.fs.proc.map_files import MapFilesDirectory  # noqa: PLC0415  few programs look

    return MapFilesDirectory(fs, subject)


def magic_link(
    fs: TableFs, subject: Subject, find: Callable[[Subject], Location]
) -> MagicNode:
    """A link to a place that only those see who may look into the process."""

    def target(caller: Any) -> Location:
        check_read(caller, subject)
        return find(subject)

    def text(caller: Any) -> bytes:
        return link_text(target(caller), caller.fs.root)

    return MagicNode(fs, text, target, 0o777, owner_of(subject))


class TaskDirectory(Directory):
    """/proc/PID/task."""

    __slots__ = ("_kernel", "_subject")

    def __init__(self, fs: TableFs, kernel: Kernel, subject: Subject) -> None:
        super().__init__(fs, 0o555, owner_of(subject))
        self._kernel = kernel
        self._subject = subject

    def _tasks(self) -> list[Any]:
        group = self._subject.group
        tasks = [t for t in group.tasks if not t.dead]
        leader = group.leader
        if leader is not None and leader not in tasks and self._subject.exists:
            tasks.insert(0, leader)
        return tasks

    def links(self) -> int:
        """One for each thread, too."""
        return 2 + len(self._tasks())

    def names(self) -> Iterable[tuple[bytes, int]]:
        """The threads."""
        if not self._subject.exists:
            raise ENOENT(f"process {self._subject.id}")
        of = self._subject.pids.of
        return ((b"%d" % of(task.tid), S_IFDIR) for task in self._tasks())

    def stale(self, node: Node) -> bool:
        """The number belongs to another thread now."""
        return isinstance(node, PidDirectory) and not node.subject.exists

    def make(self, name: bytes) -> Node | None:
        """The directory of a thread."""
        number, pids = parse_fd(name), self._subject.pids
        task = pids.task_or_zombie(number) if number else None
        if task is None or task.group is not self._subject.group:
            return None
        return PidDirectory(self.sb, self._kernel, ThreadSubject(task, True, pids))
