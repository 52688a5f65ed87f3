"""`FuseFs`: one mounted file system of a server, and the options of mount(2). fs/fuse/inode.c."""

from __future__ import annotations

import time
from _weakref import ref
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.fuse import FUSE_ROOT_ID, FUSE_STATFS, FUSE_STATFS_OUT
from sentry.abi.stat import FUSE_SUPER_MAGIC, S_IFMT
from sentry.errors import EINVAL, EIO, ENOENT, ENOMEM, ENOSPC, ENOTBLK, ENOTCONN, ENXIO
from sentry.fs.fuse import init
from sentry.fs.fuse.connection import Connection
from sentry.fs.fuse.device import FuseDevice
from sentry.fs.fuse.directory import FuseDirectory
from sentry.fs.fuse.inode import FuseInode
from sentry.fs.fuse.mounted import MountedFs, Options
from sentry.fs.fuse.regular import FuseRegular
from sentry.fs.fuse.wire import KINDS, attributes_of, checked, entry_of, signed, until
from sentry.platform.constants import PAGE_SIZE
from sentry.vfs.interface import Attributes, StatFs

if TYPE_CHECKING:

    from sentry.vfs.file import Caller
    from sentry.vfs.vfs import Vfs

DEFAULT_BLOCK: Final = 4096
REQUIRED: Final = ("fd", "rootmode", "user_id", "group_id")
NUMBERS: Final = {"fd": 10, "rootmode": 8, "user_id": 10, "group_id": 10, "max_read": 10,
                  "blksize": 10}  # fmt: skip
"""Options that are numbers, and their base."""
FLAGS: Final = ("default_permissions", "allow_other")


class FuseFs(MountedFs):
    """The files of one server."""

    name = "fuse"
    magic = FUSE_SUPER_MAGIC
    xattr_user = True
    posix_acls = True
    """Its server keeps them; rights here are those of the mode: FUSE_POSIX_ACL is not asked for."""
    has_handles = False

    def __init__(self, vfs: Vfs, options: Options, connection: Connection, user: int) -> None:
        super().__init__(vfs, options, connection, user)
        self._nodes: dict[int, ref[FuseInode]] = {}
        now = 0
        attributes = Attributes(
            FUSE_ROOT_ID, options.root_mode, 1, 0, 0, 0, 0, 0, DEFAULT_BLOCK, now, now, now
        )
        self._root = self._new(FUSE_ROOT_ID, 0, attributes)
        self._root.nlookup = 0

    @property
    def root(self) -> FuseInode:
        return self._root

    # --- nodes

    def inode_of(
        self, directory: FuseDirectory, name: bytes, data: bytes, at: int = 0, kind: int = 0
    ) -> tuple[FuseInode, int]:
        """The node of a struct fuse_entry_out, known once more, and until when its name holds.

        `kind`: the S_IFMT bits it has to have. A directory that is somewhere else now is another
        inode: one in many places, or in itself, costs as much as many. Raises: EIO, ENOMEM; ENOENT
        for none.
        """
        entry, attr = entry_of(data, at)
        if not entry.nodeid:
            raise ENOENT("the server says that there is none")
        if entry.nodeid == FUSE_ROOT_ID:
            raise EIO("the root as something's child")
        try:
            checked(attr)
            if kind and attr.mode & S_IFMT != kind:
                raise EIO("a file of another type was made")
            inode = self._known(entry.nodeid)
            attributes = attributes_of(attr, self.connection.user_ns, DEFAULT_BLOCK)
            if inode is not None and inode.is_another(entry.generation, attributes):
                inode.make_bad()
                inode = None
            if isinstance(inode, FuseDirectory) and not inode.is_at(directory, name):
                inode = None
            if inode is None:
                inode = self._new(entry.nodeid, entry.generation, attributes)
                if isinstance(inode, FuseDirectory):
                    inode.put_at(directory, name)
            else:
                inode.nlookup += 1
        except (EIO, ENOMEM):
            self.connection.forget(entry.nodeid, 1)
            raise
        now_ns = time.monotonic_ns()
        inode.seen(attributes, until(now_ns, entry.attr_valid, entry.attr_valid_nsec))
        return inode, until(now_ns, entry.entry_valid, entry.entry_valid_nsec)

    def _known(self, nodeid: int) -> FuseInode | None:
        found = self._nodes.get(nodeid)
        return found() if found is not None else None

    def known(self, nodeid: int) -> FuseInode:
        """What a server's notice is about. Raises: ENOENT."""
        inode = self._known(nodeid)
        if inode is None:
            raise ENOENT(f"node {nodeid}")
        return inode

    def _new(self, nodeid: int, generation: int, attributes: Attributes) -> FuseInode:
        budget = self.vfs.budget
        try:
            budget.check_inode()
        except ENOSPC as error:
            raise ENOMEM(str(error)) from None
        kinds: dict[int, type[FuseInode]] = {0o040000: FuseDirectory, 0o100000: FuseRegular}
        made = kinds.get(attributes.mode & S_IFMT, FuseInode)
        inode = made(self, nodeid, generation, attributes)
        budget.inodes += 1
        self._nodes[nodeid] = ref(inode)
        return inode

    def gone(self, inode: FuseInode) -> None:
        """Nobody holds it any more."""
        self.vfs.budget.inodes -= 1
        found = self._nodes.get(inode.nodeid)
        if found is not None and found() in (None, inode):
            del self._nodes[inode.nodeid]
        if inode.nodeid != FUSE_ROOT_ID:
            self.connection.forget(inode.nodeid, inode.nlookup)

    def forget_names(self) -> None:
        """Ask for all of them again."""
        for found in list(self._nodes.values()):
            inode = found()
            if isinstance(inode, FuseDirectory):
                inode.names.clear()

    # --- the whole

    def statfs(self) -> StatFs:
        task = self.task
        if task is not None and not self.allows(task.creds):
            return StatFs(self.magic, 0, 0, 0, 0, 0, 0)
        size = FUSE_STATFS_OUT.size
        request = self.ask((self, FUSE_STATFS), FUSE_STATFS, FUSE_ROOT_ID, b"", size)
        out = request.once(FUSE_STATFS_OUT.unpack)
        return StatFs(
            self.magic, out.st_bsize, signed(out.st_blocks), signed(out.st_bfree),
            signed(out.st_files), signed(out.st_ffree), out.st_namelen,
        )  # fmt: skip

    def show_options(self) -> str:
        given = self.options
        text = f",user_id={given.user},group_id={given.group}"
        text += ",default_permissions" if given.default_permissions else ""
        text += ",allow_other" if given.allow_other else ""
        return text + (f",max_read={given.max_read}" if given.max_read else "")

    def reconfigure(self, options: bytes) -> None:
        """Options are ignored: fuse_parse_param()."""

    def begin_unmount(self) -> None:
        self.connection.aborted = True
        self.connection.abort()

    def shutdown(self) -> None:
        self.connection.abort()
        self.vfs.fuse.remove(self)
        del self._root


def check_option(option: str) -> None:
    """One option of mount(2) or fsconfig(2). Raises: EINVAL."""
    name, given, value = option.partition("=")
    if name in NUMBERS:
        number(value, NUMBERS[name])
    elif name == "subtype":
        if not value:
            raise EINVAL(option)
    elif name not in FLAGS or given:
        raise EINVAL(option)


def number(text: str, base: int) -> int:
    """An option's number. Raises: EINVAL."""
    digits = text.removeprefix("0o") if base == 8 else text
    if not text or not text.isascii() or not text.isdigit() or digits != text:
        raise EINVAL(f"{text!r} is no number")
    try:
        found = int(text, base)
    except ValueError:
        raise EINVAL(f"{text!r} is no number") from None
    if found >= 1 << 32:
        raise EINVAL(f"{text} is too large")
    return found


def parse(text: str, subtype: str) -> Options:
    """The options of mount(2). Raises: EINVAL."""
    given: dict[str, str] = {}
    for option in text.split(","):
        if not option:
            continue
        check_option(option)
        name, _, value = option.partition("=")
        given[name] = value
    if any(name not in given for name in REQUIRED):
        raise EINVAL("fd, rootmode, user_id and group_id have to be given")
    if "blksize" in given:
        raise EINVAL("blksize is for block devices")
    numbers = {name: number(given[name], NUMBERS[name]) for name in given if name in NUMBERS}
    if numbers["rootmode"] & S_IFMT not in KINDS:
        raise EINVAL("rootmode")
    return Options(
        fd=numbers["fd"],
        root_mode=numbers["rootmode"],
        user=numbers["user_id"],
        group=numbers["group_id"],
        default_permissions="default_permissions" in given,
        allow_other="allow_other" in given,
        max_read=numbers.get("max_read", 0),
        subtype=given.get("subtype", subtype),
    )


def mount_fuse(
    caller: Caller, source: bytes, flags: int, data: bytes, subtype: str = ""
) -> FuseFs:
    """mount(2) of type fuse. Raises: EINVAL, EBADF."""
    options = parse(data.decode(errors="replace"), subtype)
    creds = caller.creds
    user, group = creds.kuid(options.user), creds.kgid(options.group)
    file = caller.files.get(options.fd)
    if not isinstance(file, FuseDevice):
        raise EINVAL("not a device of FUSE")
    if file.creds is None or file.creds.user_ns is not creds.user_ns:
        raise EINVAL("the device was opened in another user namespace")
    if file.fs is not None:
        served: FuseFs = file.fs
        if not served.mount_count:
            raise ENOTCONN("it was unmounted")
        return served
    vfs: Any = caller.kernel.vfs
    for_each = vfs.loop.call_for_each
    connection = Connection(0, creds.user_ns, caller.pids, vfs.fuse, for_each)
    if options.max_read:
        connection.max_read = min(connection.max_read, max(options.max_read, PAGE_SIZE))
    fs = FuseFs(vfs, options, connection, user)
    fs.group_id = group
    fs.source = source.decode(errors="replace") or "none"
    connection.number = fs.dev
    vfs.fuse.add(fs)
    file.serve(connection, fs)
    init.send(connection)
    return fs


def mount_fuseblk(caller: Caller, source: bytes, flags: int, data: bytes) -> FuseFs:
    """mount(2) of type fuseblk: there are no block devices. get_tree_bdev()."""
    from sentry.abi.fcntl import AT_FDCWD  # noqa: PLC0415
    from sentry.vfs.walk import resolve  # noqa: PLC0415

    place = resolve(caller, AT_FDCWD, source)
    if place.dentry.inode.kind != 0o060000:
        raise ENOTBLK(f"{source!r}")
    raise ENXIO("no block devices")
