"""`CgroupFs`: /sys/fs/cgroup of version 2, from the root of a cgroup namespace on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.inotify import IN_MODIFY
from sentry.abi.stat import CGROUP2_SUPER_MAGIC, S_IFDIR, S_IFREG
from sentry.abi.xattr import XATTR_CREATE, XATTR_REPLACE
from sentry.errors import EEXIST, EINVAL, ENODATA, ENODEV, ENOSPC, EPERM
from sentry.fs.cgroup.files import Cgroup, File, View, check_attach, files_of
from sentry.fs.pseudo.files import Store, Text
from sentry.fs.pseudo.nodes import Directory, Node, TextNode
from sentry.fs.pseudo.table import TableFs
from sentry.vfs.interface import Changes, Inode, Owner
from sentry.vfs.watches import tell_child, tell_self
from sentry.wait.steps import Steps

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.fs.kernel import Kernel
    from sentry.vfs.file import Caller

OPTIONS: Final = (
    "nsdelegate", "favordynmods", "memory_localevents", "memory_recursiveprot",
    "memory_hugetlb_accounting", "pids_localevents",
)  # fmt: skip
XATTR_TOTAL: Final = 64 << 10
"""Bytes of extended attributes that one file may hold: KERNFS_USER_XATTR_SIZE_LIMIT is half."""


class Look:
    """What can be set of a file or directory, and stays as long as the cgroup."""

    __slots__ = ("gid", "mode", "uid", "xattrs")

    def __init__(self, mode: int, owner: Owner) -> None:
        self.mode = mode
        self.uid, self.gid = owner
        self.xattrs: dict[bytes, bytes] = {}


def look_of(node: Node, cgroup: Cgroup, name: bytes) -> Look:
    """That of a file of this cgroup, or with an empty name of its directory."""
    known: Look | None = cgroup.look.get(name)
    if known is None:
        known = cgroup.look[name] = Look(node.mode, Owner(node.uid, node.gid))
    return known


class _Looked(Node):
    """What files and directories have in common: the attributes are those of the cgroup."""

    __slots__ = ()

    fs: CgroupFs
    look: Look
    cgroup: Cgroup

    def refresh(self) -> None:
        """Others may have changed it, through another mount."""
        look = self.look
        self.mode, self.uid, self.gid = look.mode, look.uid, look.gid

    def setattr(self, changes: Changes) -> None:
        """chmod(2), chown(2); a truncation does nothing."""
        look = self.look
        if changes.mode is not None:
            look.mode = look.mode & ~0o7777 | changes.mode
        look.uid = look.uid if changes.uid is None else changes.uid
        look.gid = look.gid if changes.gid is None else changes.gid
        self.refresh()

    def getxattr(self, name: bytes) -> bytes:
        """The value."""
        value = self.look.xattrs.get(name)
        if value is None:
            raise ENODATA(f"{name!r}")
        return value

    def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        """Set it."""
        if self.cgroup.dead:
            raise ENODEV("the cgroup is gone")
        held, budget = self.look.xattrs, self.fs.budget
        if flags & XATTR_CREATE and name in held:
            raise EEXIST(f"{name!r}")
        if flags & XATTR_REPLACE and name not in held:
            raise ENODATA(f"{name!r}")
        if sum(len(k) + len(v) for k, v in held.items()) + len(name) + len(value) > XATTR_TOTAL:
            raise ENOSPC("too many extended attributes")
        more = len(name) + len(value) - (len(name) + len(held[name]) if name in held else 0)
        budget.check_small(more)
        budget.small_bytes += more
        held[name] = value

    def listxattr(self) -> Sequence[bytes]:
        """All names."""
        return tuple(self.look.xattrs)

    def removexattr(self, name: bytes) -> None:
        """Remove it."""
        if name not in self.look.xattrs:
            raise ENODATA(f"{name!r}")
        self.fs.budget.small_bytes -= len(name) + len(self.look.xattrs.pop(name))


class CgroupFile(_Looked, TextNode):
    """A file of a cgroup."""

    __slots__ = ("_file", "cgroup", "look")

    def __init__(self, fs: CgroupFs, cgroup: Cgroup, name: bytes, file: File) -> None:
        TextNode.__init__(self, fs, file.mode, None, None, cgroup.owner)
        self._file = file
        self.cgroup = cgroup
        self.look = look_of(self, cgroup, name)
        self.refresh()

    def check_alive(self) -> None:
        """Raises: ENODEV."""
        if self.cgroup.dead:
            raise ENODEV("the cgroup is gone")

    def shown(self, caller: Caller) -> tuple[Callable[[Any], Text] | None, Any]:
        """Made when it is read."""
        file, view = self._file, View(self.cgroup, caller)
        changes = getattr(self.cgroup, file.changes) if file.changes else None

        def show(_: Any) -> Text:
            assert file.show is not None
            self.check_alive()
            return file.show(view)

        return (show if file.show is not None else None), changes

    def stored(self, opener: Caller) -> Store:
        """As declared; at the root of a namespace only what is delegated."""
        task: Any = opener
        creds = task.creds

        def store(writer: Caller, data: bytes) -> Steps[None] | None:
            self.check_alive()
            if self._file.store is None:
                raise EINVAL("not to be written")
            is_top = self.cgroup is task.ns.cgroup.root or self.cgroup.parent is None
            if is_top and not self._file.delegated:
                raise EPERM("the limits of a namespace are set from outside")
            text = data.decode(errors="replace").strip()
            return self._file.store(View(self.cgroup, opener, creds, writer), text)

        return store


class CgroupDirectory(_Looked, Directory):
    """A cgroup."""

    __slots__ = ("cgroup", "look")

    def __init__(self, fs: CgroupFs, cgroup: Cgroup, mode: int = 0o755) -> None:
        Directory.__init__(self, fs, mode, cgroup.owner)
        self.cgroup = cgroup
        self.look = look_of(self, cgroup, b"")
        self.refresh()
        cgroup.listeners.append(self)

    def __del__(self) -> None:
        super().__del__()
        if self in self.cgroup.listeners:
            self.cgroup.listeners.remove(self)

    def links(self) -> int:
        """Two, and one for each directory in it."""
        return 2 + len(self.cgroup.children)

    def names(self) -> Iterable[tuple[bytes, int]]:
        """Its files, and the cgroups below."""
        if self.cgroup.dead:
            return []
        files = [(name.encode(), S_IFREG) for name in files_of(self.cgroup)]
        return files + [(name, S_IFDIR) for name in self.cgroup.children]

    def make(self, name: bytes) -> Node | None:
        """One of them."""
        if self.cgroup.dead:
            return None
        child = self.cgroup.children.get(name)
        if child is not None:
            return CgroupDirectory(self.fs, child)
        file = files_of(self.cgroup).get(name.decode(errors="replace"))
        return CgroupFile(self.fs, self.cgroup, name, file) if file is not None else None

    def stale(self, node: Node) -> bool:
        """It was removed, and another one may have its name."""
        assert isinstance(node, _Looked)
        if node.cgroup.dead:
            return True
        node.refresh()
        return isinstance(node, CgroupFile) and node._name.decode() not in files_of(self.cgroup)

    def mkdir(self, name: bytes, mode: int, owner: Owner) -> Inode:
        """A new cgroup. Raises: EINVAL, EAGAIN, ENOSPC."""
        if b"\n" in name:
            raise EINVAL("a line break in the name")
        self.fs.budget.check_inode()
        made = self.cgroup.make(name)
        made.owner = owner
        made.look[b""] = Look(S_IFDIR | mode, owner)
        found = self.lookup_cached(name)
        assert isinstance(found, Inode)
        return found

    def rmdir(self, name: bytes, child: Inode) -> None:
        """Remove an empty one. Raises: EBUSY."""
        assert isinstance(child, CgroupDirectory)
        child.cgroup.remove()
        for look in child.cgroup.look.values():
            size = sum(len(k) + len(v) for k, v in look.xattrs.items())
            self.fs.budget.small_bytes -= size
            look.xattrs.clear()

    def changed(self, name: bytes) -> None:
        """A file has another content: its watches hear of it."""
        known = self._made.get(name)
        node = known() if known is not None else None
        if node is not None:
            tell_child(self, IN_MODIFY, name)
            tell_self(node, IN_MODIFY)
        elif self.watches is not None:
            tell_child(self, IN_MODIFY, name)

    def check_attach(self, creds: Credentials, root: Cgroup, old: Cgroup) -> None:
        """CLONE_INTO_CGROUP: as a write to cgroup.procs would be. Raises: EACCES, EBUSY."""
        check_attach(creds, root, old, self.cgroup)


class CgroupFs(TableFs):
    """The tree from one cgroup on: the same wherever it is mounted in a namespace."""

    name = "cgroup2"
    magic = CGROUP2_SUPER_MAGIC
    xattr_user = True
    keeps_names = False

    def __init__(self, kernel: Kernel, root: Cgroup) -> None:
        super().__init__(kernel.vfs.new_dev(), kernel.vfs.now_ns)
        self.budget = kernel.vfs.budget
        self._root = CgroupDirectory(self, root)
        self._root.ino = self.root_ino

    @property
    def root(self) -> Inode:
        """The cgroup that is the root of the namespace."""
        return self._root

    def show_options(self) -> str:
        """What a namespace holds cannot be changed from inside."""
        return ",nsdelegate"

    def reconfigure(self, options: bytes) -> None:
        """Raises: EINVAL."""
        check_options(options.decode(errors="replace"))


def check_options(text: str) -> None:
    """Raises: EINVAL."""
    for option in text.split(","):
        if option and option not in OPTIONS:
            raise EINVAL(option)


def mount_cgroup(caller: Any, source: bytes, flags: int, data: bytes) -> CgroupFs:
    """mount(2) of type cgroup2, and the bundle's mount of type cgroup: vfs.types."""
    check_options(data.decode(errors="replace"))
    root = caller.ns.cgroup.root
    if root.root_fs is None:
        root.root_fs = CgroupFs(caller.kernel, root)
        root.root_fs.source = source.decode(errors="replace") or "cgroup"
    found: CgroupFs = root.root_fs
    return found
