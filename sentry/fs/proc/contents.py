"""What is in the root of /proc: links, files of the whole system, what is served, processes."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.stat import S_IFDIR, S_IFLNK, S_IFREG
from sentry.errors import ENOENT
from sentry.fs.proc.filesystem import RootDirectory
from sentry.fs.proc.folders import has_left, served_node
from sentry.fs.proc.process import PidDirectory, ProcessSubject, ThreadSubject
from sentry.fs.pseudo.nodes import GeneratedDirectoryFile, LinkNode, Node
from sentry.vfs.dirents import Dirents

if TYPE_CHECKING:
    from sentry.fs.proc.filesystem import ProcFs
    from sentry.fs.proc.registry import Subject
    from sentry.vfs.file import Caller

def group_of(caller: Any) -> Any:
    """The reader's process. Raises: ENOENT for one that is no task (the start of the sandbox)."""
    if caller.group is None:
        raise ENOENT("no process")
    return caller.group


def _self(pids: Any, caller: Any) -> bytes:
    number = pids.of(group_of(caller).tgid)
    if not number:
        raise ENOENT("not in the PID namespace of this mount")
    return b"%d" % number


def _thread_self(pids: Any, caller: Any) -> bytes:
    return b"%s/task/%d" % (_self(pids, caller), pids.of(caller.tid))


LINKS: Final[dict[bytes, Callable[[Any, Any], bytes]]] = {
    b"self": _self,
    b"thread-self": _thread_self,
    b"mounts": lambda *_: b"self/mounts",
    b"net": lambda *_: b"self/net",
}
"""What a link says, by the PID namespace of the mount and the reader."""


class Contents:
    """Of one root."""

    __slots__ = ("_fs", "_links", "_table")

    def __init__(self, fs: ProcFs) -> None:
        self._fs = fs
        self._table: dict[bytes, Callable[[], Node]] | None = None
        self._links = LINKS if not fs.processes_only else dict(list(LINKS.items())[:2])

    def names(self) -> Iterable[tuple[bytes, int]]:
        """Links, files, then the processes in order."""
        table, trees = self._files()
        files = [(name, S_IFREG if name not in trees else S_IFDIR) for name in table]
        links = [(name, S_IFLNK) for name in self._links]
        pids = self._fs.pids
        numbers = (pids.of(group.tgid) for group in pids.members())
        if not self._fs.processes_only:
            served = self._fs.kernel.services.proc_files.names()
            files += [each for each in served.items() if each[0] not in table]
        return chain(links, files, ((b"%d" % pid, S_IFDIR) for pid in numbers))

    def stale(self, node: Node) -> bool:
        """A process that is gone, or what nobody serves any more."""
        if isinstance(node, PidDirectory):
            return not node.subject.exists
        return has_left(node)

    def make(self, name: bytes) -> Node | None:
        """A file, or a process, or a thread that is not the first of its process."""
        fs = self._fs
        if (text := self._links.get(name)) is not None:
            say, pids = text, fs.pids
            return LinkNode(fs, lambda caller: say(pids, caller))
        if name.isdigit():
            subject = self.subject(name)
            return PidDirectory(fs, fs.kernel, subject) if subject is not None else None
        maker = self._files()[0].get(name)
        if maker is not None:
            return maker()
        return served_node(fs, name) if not fs.processes_only else None

    def _files(self) -> tuple[dict[bytes, Callable[[], Node]], Container[bytes]]:
        """Of the whole system, by name; which of them are directories."""
        if self._fs.processes_only:
            return {}, ()
        from sentry.fs.proc.declared import TREES, root_table  # noqa: PLC0415  not all look for one

        if self._table is None:
            self._table = root_table(self._fs)
        return self._table, TREES

    def subject(self, name: bytes) -> Subject | None:
        """The process or thread of this name."""
        if not name.isdigit() or name[:1] == b"0" or len(name) > 10:
            return None
        pids, number = self._fs.pids, int(name)
        group = pids.group(number)
        if group is not None and group.leader is not None:
            return ProcessSubject(group, pids)
        task = pids.task(number)
        return ThreadSubject(task, False, pids) if task is not None else None


class RootListing(GeneratedDirectoryFile):
    """/proc, open, where not everybody sees all processes."""

    __slots__ = ()

    def _list(self, caller: Caller) -> Dirents:
        root = self.inode
        assert isinstance(root, RootDirectory)
        return Dirents(entry for entry in root.entries() if root.shows(caller, entry.name))
