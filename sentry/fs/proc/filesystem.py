"""`ProcFs`: an instance of the file system, and its root as long as nobody looks into it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.stat import PROC_SUPER_MAGIC
from sentry.auth.userns import NO_ID, UserNamespace, kernel_id
from sentry.errors import EINVAL, ENOENT
from sentry.fs.pseudo.nodes import Directory, Node
from sentry.fs.pseudo.table import TableFs
from sentry.vfs.interface import ABSENT, Absent, Inode

if TYPE_CHECKING:
    from sentry.fs.kernel import Kernel
    from sentry.fs.proc.contents import Contents
    from sentry.fs.proc.registry import Subject
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.location import Location

NO_ACCESS, INVISIBLE, NOT_PTRACEABLE = 1, 2, 4
HIDES: Final = {"off": 0, "noaccess": NO_ACCESS, "invisible": INVISIBLE,
                "ptraceable": NOT_PTRACEABLE}  # fmt: skip
"""hidepid=, by name; numbers are taken, too."""


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
        from sentry.fs.proc.owner import may_read  # noqa: PLC0415  it has been: of who looks

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


class RootDirectory(Directory):
    """/proc: what is in it is imported when somebody looks into it."""

    __slots__ = ("_contents",)

    fs: ProcFs

    def __init__(self, fs: ProcFs) -> None:
        super().__init__(fs, 0o555)
        self._contents: Contents | None = None

    @property
    def contents(self) -> Contents:
        """What is in it."""
        if self._contents is None:
            from sentry.fs.proc.contents import Contents  # noqa: PLC0415  not all programs look

            self._contents = Contents(self.fs)
        return self._contents

    def links(self) -> int:
        """One for each process."""
        return 2 + len(self.fs.pids.members())

    def names(self) -> Iterable[tuple[bytes, int]]:
        """Links, files, then the processes in order."""
        return self.contents.names()

    def stale(self, node: Node) -> bool:
        """A process that is gone, or what nobody serves any more."""
        return self.contents.stale(node)

    def make(self, name: bytes) -> Node | None:
        """A file, or a process, or a thread that is not the first of its process."""
        return self.contents.make(name)

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
        subject = self.contents.subject(name)
        return subject is None or self.fs.permits(caller, subject, INVISIBLE)

    def open(self, location: Location, flags: int, caller: Caller) -> FileDescription:
        """For getdents."""
        if self.fs.hides < INVISIBLE:
            return super().open(location, flags, caller)
        from sentry.fs.proc.contents import RootListing  # noqa: PLC0415  not all programs look

        return RootListing(location, flags)


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
