"""fusectl: /sys/fs/fuse/connections, a directory for each connection. fs/fuse/control.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.stat import S_IFDIR
from sentry.errors import EINVAL
from sentry.fs.pseudo.nodes import Directory, Node, TableDirectory, TextNode
from sentry.fs.pseudo.table import TableFs
from sentry.vfs.interface import Inode, Owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sentry.fs.fuse.mounted import MountedFs
    from sentry.fs.fuse.served import Served
    from sentry.vfs.file import Caller

FUSE_CTL_SUPER_MAGIC: Final = 0x65735543
"""fs/fuse/control.c: no header of the kernel's interface has it."""
MAX_USER_BACKGROUND: Final = 2048
"""What those without CAP_SYS_ADMIN may set: sanitize_global_limit()."""
MAX_LIMIT: Final = 65535


class ControlFs(TableFs):
    """One mounted fusectl."""

    name = "fusectl"
    magic = FUSE_CTL_SUPER_MAGIC
    keeps_names = False

    def __init__(self, vfs: Any) -> None:
        super().__init__(vfs.new_dev(), vfs.now_ns)
        self._root = Connections(self, vfs.fuse)

    @property
    def root(self) -> Inode:
        return self._root


class Connections(Directory):
    """The top: a directory for each."""

    __slots__ = ("_mounted",)

    def __init__(self, fs: TableFs, mounted: Served) -> None:
        super().__init__(fs)
        self._mounted = mounted

    def names(self) -> Iterable[tuple[bytes, int]]:
        return [(b"%d" % fs.connection.number, S_IFDIR) for fs in self._mounted]

    def make(self, name: bytes) -> Node | None:
        found = self._mounted.find(name)
        return None if found is None else _directory(self.sb, found)

    def stale(self, node: Node) -> bool:
        if not isinstance(node, ConnectionDirectory):
            return False
        served = node.served
        return self._mounted.find(b"%d" % served.connection.number) is not served

    def links(self) -> int:
        return 2 + sum(1 for _ in self._mounted)


class ConnectionDirectory(TableDirectory):
    """That of one connection."""

    __slots__ = ("served",)

    def __init__(
        self, fs: TableFs, served: MountedFs, table: dict[bytes, Callable[[], Node]]
    ) -> None:
        super().__init__(fs, table, 0o500)
        self.served = served
        self.uid, self.gid = served.user_id, served.group_id


def _directory(fs: TableFs, served: MountedFs) -> ConnectionDirectory:
    connection, owner = served.connection, Owner(served.user_id, served.group_id)

    def node(
        mode: int,
        show: Callable[[Any], str] | None,
        store: Callable[[Any, bytes], None] | None = None,
    ) -> Callable[[], Node]:
        return lambda: TextNode(fs, mode, show, store, owner)

    def abort(caller: Caller, data: bytes) -> None:
        served.begin_unmount()

    def background(caller: Caller, data: bytes) -> None:
        connection.max_background = _limit(caller, data)

    def threshold(caller: Caller, data: bytes) -> None:
        connection.threshold = _limit(caller, data)

    return ConnectionDirectory(
        fs,
        served,
        {
            b"waiting": node(0o400, lambda _: f"{connection.waiting}\n"),
            b"abort": node(0o200, None, abort),
            b"max_background": node(0o600, lambda _: f"{connection.max_background}\n", background),
            b"congestion_threshold": node(0o600, lambda _: f"{connection.threshold}\n", threshold),
        },
    )


def _limit(caller: Caller, data: bytes) -> int:
    """fuse_conn_limit_write(). Raises: EINVAL."""
    text = data.strip(b"\n")
    if not text.isdigit() or len(text) > 10:
        raise EINVAL(f"{data!r}")
    most = MAX_LIMIT if caller.creds.has(CAP_SYS_ADMIN) else MAX_USER_BACKGROUND
    if int(text) > most:
        raise EINVAL(f"{data!r}")
    return int(text)


def mount_control(caller: Caller, source: bytes, flags: int, data: bytes) -> ControlFs:
    """mount(2) of type fusectl: the same files wherever it is mounted."""
    if data:
        raise EINVAL(f"{data!r}")
    fs = ControlFs(caller.kernel.vfs)
    fs.source = source.decode(errors="replace") or "none"
    return fs
