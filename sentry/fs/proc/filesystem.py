"""`ProcFs`: the root directory of /proc and an instance of the file system."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.stat import PROC_SUPER_MAGIC, S_IFDIR, S_IFLNK, S_IFREG
from sentry.auth.userns import NO_ID, UserNamespace, kernel_id
from sentry.errors import EINVAL, ENOENT
from sentry.fs.proc import forks as _forks
from sentry.fs.proc import id_maps as _id_maps
from sentry.fs.proc import kernel_config as _config
from sentry.fs.proc import mounts as _mounts
from sentry.fs.proc import net as _net
from sentry.fs.proc import process_misc as _misc
from sentry.fs.proc import process_status as _status
from sentry.fs.proc import system as _system
from sentry.fs.proc.folders import SysFolder, has_left, maker_of, served_node
from sentry.fs.proc.owner import may_read
from sentry.fs.proc.process import PidDirectory, ProcessSubject, ThreadSubject
from sentry.fs.proc.registry import ROOT, Entry, Subject, View
from sentry.fs.pseudo.nodes import (
    Directory,
    GeneratedDirectoryFile,
    LinkNode,
    Node,
    TextNode,
    put,
)
from sentry.fs.pseudo.table import TableFs
from sentry.vfs.dirents import Dirents
from sentry.vfs.interface import ABSENT, Absent, Inode

if TYPE_CHECKING:
    from sentry.fs.kernel import Kernel
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location

DECLARATIONS: Final = (
    _config, _forks, _id_maps, _mounts, _net, _misc, _status, _system,
)  # fmt: skip
"""Modules that declare files when they are imported."""
NO_ACCESS, INVISIBLE, NOT_PTRACEABLE = 1, 2, 4
HIDES: Final = {"off": 0, "noaccess": NO_ACCESS, "invisible": INVISIBLE,
                "ptraceable": NOT_PTRACEABLE}  # fmt: skip
"""hidepid=, by name; numbers are taken, too."""


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


class ProcFs(TableFs):
    """One mounted /proc."""

    name = "proc"
    magic = PROC_SUPER_MAGIC
    block_size = 1024
    cannot_create = cannot_create_file = ENOENT
    keeps_names = False

    def __init__(self, kernel: Kernel, pids: Any = None, processes_only: bool = False) -> None:
        super().__init__(kernel.vfs.new_dev(), kernel.vfs.now_ns)
        self.kernel = kernel
        self.processes_only = processes_only
        """subset=pid: nothing but self, thread-self and the processes."""
        self.hides = 0
        """hidepid=: from whom processes are hidden that they may not look into."""
        self.gid = 0
        """gid=: whose members see all of them."""
        self.pids = pids if pids is not None else kernel.pids
        """The PID namespace whose processes it shows."""
        self._root = RootDirectory(self)

    @property
    def root(self) -> Inode:
        """The top."""
        return self._root

    def permits(self, caller: Any, subject: Subject, least: int) -> bool:
        """has_pid_permissions(): no hidepid= that is at least this much is in the caller's way."""
        if self.hides != NOT_PTRACEABLE and (
            self.hides < least or caller.creds.in_group(self.gid)
        ):
            return True
        return may_read(caller, subject)

    def set_options(self, user_ns: UserNamespace | None, options: str) -> None:
        """Those of a mount, whose ids are of this namespace. Raises: EINVAL."""
        hides, gid = self.hides, self.gid
        for option in filter(None, options.split(",")):
            check_proc_option(option)
            name, _, value = option.partition("=")
            if name == "hidepid":
                hides = hides_of(value)
            elif name == "gid" and (gid := kernel_id(user_ns, int(value), "gid")) == NO_ID:
                raise EINVAL(option)
        self.hides, self.gid = hides, gid

    def reconfigure(self, options: bytes) -> None:
        """Who sees what may become another. Raises: EINVAL."""
        self.set_options(self.owner, options.decode(errors="replace"))

    def show_options(self) -> str:
        """proc_show_options()."""
        shown = f",gid={self.gid}" if self.gid else ""
        if self.hides:
            shown += ",hidepid=" + next(n for n, value in HIDES.items() if value == self.hides)
        return shown + ",subset=pid" * self.processes_only


class RootListing(GeneratedDirectoryFile):
    """/proc, open, where not everybody sees all processes."""

    __slots__ = ()

    def _list(self, caller: Caller) -> Dirents:
        root = self.inode
        assert isinstance(root, RootDirectory)
        return Dirents(entry for entry in root.entries() if root.shows(caller, entry.name))


class RootDirectory(Directory):
    """/proc."""

    __slots__ = ("_links", "_table")

    fs: ProcFs

    def __init__(self, fs: ProcFs) -> None:
        super().__init__(fs, 0o555)
        self._table = {} if fs.processes_only else root_table(fs)
        self._links = LINKS if not fs.processes_only else dict(list(LINKS.items())[:2])

    def links(self) -> int:
        """One for each process."""
        return 2 + len(self.fs.pids.members())

    def names(self) -> Iterable[tuple[bytes, int]]:
        """Links, files, then the processes in order."""
        files = [(name, S_IFREG if name not in _TREES else S_IFDIR) for name in self._table]
        links = [(name, S_IFLNK) for name in self._links]
        pids = self.fs.pids
        numbers = (pids.of(group.tgid) for group in pids.members())
        if not self.fs.processes_only:
            served = self.fs.kernel.services.proc_files.names()
            files += [each for each in served.items() if each[0] not in self._table]
        return chain(links, files, ((b"%d" % pid, S_IFDIR) for pid in numbers))

    def stale(self, node: Node) -> bool:
        """A process that is gone, or what nobody serves any more."""
        if isinstance(node, PidDirectory):
            return not node.subject.exists
        return has_left(node)

    def make(self, name: bytes) -> Node | None:
        """A file, or a process, or a thread that is not the first of its process."""
        if (text := self._links.get(name)) is not None:
            say, pids = text, self.fs.pids
            return LinkNode(self.fs, lambda caller: say(pids, caller))
        maker = self._table.get(name)
        if maker is not None:
            return maker()
        if not self.fs.processes_only and (served := served_node(self.fs, name)) is not None:
            return served
        subject = self._subject(name)
        return PidDirectory(self.fs, self.fs.kernel, subject) if subject is not None else None

    def lookup_cached(self, name: bytes) -> Inode | Absent | None:  # type: ignore[override]
        """Where processes are hidden it depends on who looks."""
        if self.fs.hides >= INVISIBLE and name.isdigit():
            return None
        return super().lookup_cached(name)

    def lookup_for(self, caller: Caller, name: bytes, opens: bool = False) -> Inode | Absent:
        """pid_getattr(), proc_pid_lookup()."""
        return super().lookup_cached(name) if self.shows(caller, name) else ABSENT

    def shows(self, caller: Caller, name: bytes) -> bool:
        """It is no process that is hidden from the caller."""
        subject = self._subject(name)
        return subject is None or self.fs.permits(caller, subject, INVISIBLE)

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """For getdents."""
        if self.fs.hides >= INVISIBLE:
            return RootListing(location, flags)
        return super().open(location, flags, caller)

    def _subject(self, name: bytes) -> Subject | None:
        if not name.isdigit() or name[:1] == b"0" or len(name) > 10:
            return None
        pids, number = self.fs.pids, int(name)
        group = pids.group(number)
        if group is not None and group.leader is not None:
            return ProcessSubject(group, pids)
        task = pids.task(number)
        return ThreadSubject(task, False, pids) if task is not None else None


_TREES: Final = frozenset(
    [path.split("/", 1)[0].encode() for path in ROOT if "/" in path] + [b"sys", b"fs"]
)


def root_table(fs: ProcFs) -> dict[bytes, Callable[[], Node]]:
    """What does not belong to a process, by name."""
    tree = _tree(len(ROOT))
    return {name.encode(): maker_of(fs, name.encode(), item) for name, item in tree.items()}


@lru_cache(1)
def _tree(_files: int) -> dict[str, Any]:
    """The same for every file system: dictionaries by name, whose leaves are of `maker_of`. Others
    may be declared later."""
    tree: dict[str, Any] = {"fs": {}, "sys": lambda fs: partial(SysFolder, fs)}
    for path, entry in ROOT.items():
        put(tree, path, partial(text_maker, entry))
    return tree


def text_maker(entry: Entry, fs: ProcFs) -> Callable[[], Node]:
    """A file of the whole system."""
    show, store, kernel = entry.show, entry.store, fs.kernel
    assert show is not None

    def make() -> Node:
        return TextNode(
            fs,
            entry.mode,
            lambda caller: show(View(kernel, caller)),
            (lambda caller, data: store(View(kernel, caller), data)) if store else None,
        )

    return make


def check_proc_option(option: str) -> None:
    """Raises: EINVAL."""
    name, _, value = option.partition("=")
    if name == "hidepid":
        hides_of(value)
    elif name == "gid" and value.isdecimal() and int(value) < NO_ID:
        return
    elif option != "subset=pid":
        raise EINVAL(f"proc: {option}")


def hides_of(text: str) -> int:
    """proc_parse_hidepid_param(). Raises: EINVAL."""
    for name, value in HIDES.items():
        if text in (name, str(value)):
            return value
    raise EINVAL(f"hidepid={text}")


def mount_proc(caller: Any, source: bytes, flags: int, data: bytes) -> ProcFs:
    """mount(2) of type proc: vfs.types[b"proc"]. Every mount is an instance of its own."""
    only = b"subset=pid" in data.split(b",")
    fs = ProcFs(caller.kernel, caller.pids, only)
    fs.set_options(caller.creds.user_ns, data.decode(errors="replace"))
    fs.source = source.decode(errors="replace") or fs.name
    return fs
