"""The container's file systems: root, mounts, devices, masked and read-only paths, sysctls.

What runc's rootfs_linux.go does with a bundle, over the Sentry's own vfs. Nothing here touches the
host but through the Gofer. Places to mount on are made in the root: on the host where that is kept,
as runc does, else in the memory of an overlay.
"""

from __future__ import annotations

import socket
import stat
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from sentry.abi.fcntl import AT_FDCWD, O_CREAT, O_RDONLY, O_WRONLY, RESOLVE_NO_SYMLINKS
from sentry.abi.mount import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY
from sentry.auth.credentials import Credentials
from sentry.config import ContainerConfig, DeviceConfig, MountConfig, StartError
from sentry.errors import EACCES, EEXIST, ELOOP, ENOENT, ENOTDIR, EPERM, EROFS, Errno
from sentry.fs.gofer.changes import HostChanges
from sentry.fs.gofer.filesystem import GoferFileSystem, Options
from sentry.fs.gofer.handles import HandleCache, Lingering
from sentry.fs.gofer.session import Session
from sentry.fs.gofer.wire import Owners
from sentry.fs.host.file import donated
from sentry.fs.tmpfs.directory import TmpDirectory
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.kernel import namespaces
from sentry.mm.buffers import KernelSource
from sentry.suppress import suppress
from sentry.vfs.attributes import chown_location
from sentry.vfs.dentry import Dentry
from sentry.vfs.fd_table import FdTable
from sentry.vfs.filesystem import FileSystem
from sentry.vfs.fs_context import FsContext
from sentry.vfs.interface import Absent, Inode, Owner
from sentry.vfs.location import Location
from sentry.vfs.mount import MOUNT_FLAGS, Mount, stand, top
from sentry.vfs.mounts import MountNamespace
from sentry.vfs.names import mknod, symlink
from sentry.vfs.open import OpenHow, open_location, open_used
from sentry.vfs.walk import MAX_LINKS, child_of, resolve, walk
from sentry.wait.again import again

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.vfs.vfs import Vfs

DEVICES: Final = (
    (b"/dev/null", 1, 3),
    (b"/dev/zero", 1, 5),
    (b"/dev/full", 1, 7),
    (b"/dev/random", 1, 8),
    (b"/dev/urandom", 1, 9),
    (b"/dev/tty", 5, 0),
)
"""What every container has: runtime-spec 1.2, config-linux.md, "Default Devices"."""
LINKS: Final = (
    (b"/dev/fd", b"/proc/self/fd"),
    (b"/dev/stdin", b"/proc/self/fd/0"),
    (b"/dev/stdout", b"/proc/self/fd/1"),
    (b"/dev/stderr", b"/proc/self/fd/2"),
    (b"/dev/ptmx", b"pts/ptmx"),
)
EMPTY_TYPES: Final = frozenset(
    {"sysfs", "securityfs", "debugfs", "tracefs"}
)
"""Types of which a container sees an empty directory: docs/config-json.md."""


class Starter:
    """Who mounts: root, at the root directory, before there is any task (vfs.file.Caller)."""

    def __init__(self, kernel: Kernel, container: Container | None = None) -> None:
        self.kernel = kernel
        self.container = container if container is not None else kernel.container
        self.ns = self.container.ns
        self.pids = self.container.pids
        self.mounts = self.ns.mounts.mounts
        self.creds = Credentials.root()
        root = top(self.mounts.root.location)
        self.fs = FsContext(root, root, 0)
        self.files = FdTable()
        self.mm: Any = None
        self.group: Any = None
        self.judge: Any = None

    def rlimit(self, resource: int) -> int:
        """No limits."""
        return (1 << 64) - 1

    def send_signal(self, signo: int) -> None:
        """Nobody is there to get one."""


async def mount_first(kernel: Kernel, config: ContainerConfig) -> None:
    """Everything that the first container's bundle asks for. Raises: StartError."""
    session = None
    if config.gofer_fd >= 0:
        session = Session(socket.socket(fileno=config.gofer_fd), kernel.loop)
        kernel.services.gofers.append(session)  # what is dropped open is printed, by a call more
        session.negotiate()
    exports = Exports(kernel, session)
    root = kernel.container.root = await make_root(kernel, config, exports)
    mount = kernel.vfs.new_mount(root)
    mounts = MountNamespace(mount, kernel.vfs.mount_ids, kernel.vfs.budget)
    kernel.first = namespaces.first(kernel, mounts)
    await mount_all(Starter(kernel), config, exports)


async def mount_all(starter: Starter, config: ContainerConfig, exports: Trees) -> None:
    """What lies below the root. Raises: StartError."""
    sealed = []
    for entry in config.mounts:
        try:
            mount = await make_mount(starter, entry, exports)
        except Errno as error:
            raise StartError(
                f"mount {entry.type} to {entry.destination.decode()}: {error.text()}"
            ) from error
        if entry.flags & MS_RDONLY:
            sealed.append(mount)
    with suppress(Errno):  # who starts there says what is wrong with it
        await mount_point(starter, config.process.cwd, False)
    await make_devices(starter, config)
    for name, value in config.sysctls:
        await set_sysctl(starter, name, value)
    for path in config.masked_paths:
        await mask(starter, path)
    for path in config.readonly_paths:
        await make_read_only(starter, path)
    if config.root.readonly:
        sealed.append(starter.mounts.root)
    for mount in sealed:
        mount.set_flags(mount.flags | MS_RDONLY)
    starter.container.first_mounts = {each.id: stand(each) for each in starter.mounts}


class Trees(Protocol):
    """Where the trees of the host come from."""

    async def root(self, read_only: bool, exclusive: bool) -> FileSystem: ...
    async def mounted(self, entry: MountConfig) -> FileSystem: ...


class Exports:
    """The Gofer's attachments as file systems, while nothing runs yet."""

    def __init__(self, kernel: Kernel, session: Session | None) -> None:
        self._kernel = kernel
        self._session = session
        budget = kernel.vfs.budget
        most = budget.max_host_descriptors
        handles = HandleCache(min(8192, most), budget, most // 4)
        kernel.services.handles = handles
        kernel.services.lingering = Lingering(handles, kernel.loop)
        self._apart: Session | None = None
        """For mounts, if they have one of their own."""
        self._changes: HostChanges | None = None
        self._asked = False

    async def root(self, read_only: bool, exclusive: bool) -> FileSystem:
        """The root, which is mostly nobody else's."""
        return self.open(0, read_only, exclusive=exclusive)

    async def mounted(self, entry: MountConfig) -> FileSystem:
        """A bind mount: others may change it under us, and have it too."""
        assert entry.attachment is not None
        fs = self.open(entry.attachment, entry.reads_only, entry.follows, entry.exclusive)
        return self._kernel.services.trees.keep(entry.place, entry.reads_only, fs)

    def open(
        self, index: int, read_only: bool, follows: bool = False, exclusive: bool = False
    ) -> GoferFileSystem:
        """Attachment `index`. Raises: StartError."""
        session, vfs = self._session_of(index), self._kernel.vfs
        if not exclusive and not self._asked:
            self._asked = True
            self._changes = HostChanges.of(session)
        changes = None if follows else self._changes
        options = options_of(self._kernel, index, exclusive, read_only, changes)
        if follows:
            options = msgspec.structs.replace(options, follows=self._kernel.loop)
        return GoferFileSystem(vfs.new_dev(), session, b"%d" % index, options, vfs.now_ns)

    def _session_of(self, index: int) -> Session:
        """Where the root has a journal, which every message of its session has done before it is
        answered, mounts have a session of their own. Raises: StartError."""
        if self._session is None:
            raise StartError("there is no Gofer")
        if not index or self._session.recorder is None:
            return self._session
        if self._apart is None:
            with suppress(Errno):
                self._apart = self._session.copy_on(self._session.duplicate())
                self._kernel.services.gofers.append(self._apart)
        return self._apart or self._session


def options_of(
    kernel: Kernel, index: int, exclusive: bool, read_only: bool, changes: HostChanges | None
) -> Options:
    """How an attachment is mounted; `exclusive`: it is nobody else's, as a root mostly is. What is
    written behind is in the order of one file system, the root."""
    services, ids = kernel.services, kernel.services.host_ids
    return Options(
        exclusive=exclusive,
        changes=changes,
        lingering=services.lingering,
        read_only=read_only,
        windows=kernel.platform.ram.windows,
        handles=services.handles,
        owners=Owners(ids["uid"], ids["gid"]) if ids.get("uid") else None,
        io=kernel.vfs.host_io,
        writes_behind=kernel.loop if exclusive and not (read_only or index) else None,
        is_volume=index > 0,
    )


async def make_root(kernel: Kernel, config: ContainerConfig, exports: Trees) -> FileSystem:
    """The root file system: an overlay over the host's tree, or over an image, or these."""
    is_image, exclusive = config.root.is_image, not config.root.is_shared
    if config.root.overlay == "none" and not is_image:
        return await exports.root(config.root.readonly, exclusive)
    if config.root.image_fd >= 0:
        lower = await image_in(kernel, config.root.image_fd)
    else:
        lower = await exports.root(True, exclusive)
        if is_image:
            lower = await image_in(kernel, lower)
    if config.root.overlay == "none":
        return lower
    return _under(kernel.vfs, lower, config.root.overlay, config.root.overlay_size)


def _under(vfs: Vfs, lower: FileSystem, overlay: str, size: int) -> FileSystem:
    from sentry.fs.overlay.filesystem import OverlayFs  # noqa: PLC0415  most roots are kept

    return OverlayFs.over(vfs, lower, overlay, size)


async def image_in(kernel: Kernel, files: FileSystem | int) -> FileSystem:
    """The image that an attachment is, or a donated descriptor. Raises: StartError."""
    from sentry.fs.erofs.filesystem import image_at, image_of  # noqa: PLC0415  few roots are one

    vfs = kernel.vfs
    try:
        if isinstance(files, int):
            return await image_of(vfs, donated(vfs, files, O_RDONLY, closes=True))
        return await image_at(vfs, vfs.new_mount(files).location)
    except Errno as error:
        raise StartError(f"the root file system is no image of EROFS: {error.why()}") from error


async def make_mount(starter: Starter, entry: MountConfig, exports: Trees) -> Mount:
    """One entry of `mounts`; a tmpfs can be written until all is made: finalizeRootfs() of runc."""
    vfs = starter.kernel.vfs
    if entry.attachment is not None:
        place = await mount_point(starter, entry.destination, entry.is_file)
        fs = await exports.mounted(entry)  # which others may replace where it is mounted
        if entry.overlay:
            fs = _under(vfs, fs, entry.overlay, entry.overlay_size)
    else:
        if entry.type == "tmpfs":
            entry = await with_mode(starter, entry)
            entry = msgspec.structs.replace(entry, flags=entry.flags & ~MS_RDONLY)
        fs = await make_file_system(starter, entry)
        place = await mount_point(starter, entry.destination, entry.is_file)
    if entry.copy_up and isinstance(root := fs.root, TmpDirectory):
        from sentry.boot.tmpcopyup import copy_tree  # noqa: PLC0415  few mounts ask for it

        await copy_tree(place.mount, place.dentry.inode, root)
    mount = vfs.new_mount(fs, entry.flags & MOUNT_FLAGS)
    starter.mounts.attach(mount, place)
    return mount


async def with_mode(starter: Starter, entry: MountConfig) -> MountConfig:
    """A tmpfs over a directory that is there gets its mode, unless the options name one."""
    place = await find(starter, entry.destination)
    if place is None:
        return entry
    mode = f"mode={place.dentry.inode.mode & 0o7777:04o}"
    data = f"{mode},{entry.data}" if entry.data else mode
    return msgspec.structs.replace(entry, data=data)


async def make_file_system(starter: Starter, entry: MountConfig) -> FileSystem:
    """A file system of our own, by its type. Raises: StartError, EINVAL."""
    vfs = starter.kernel.vfs
    kind = "cgroup2" if entry.type == "cgroup" else entry.type  # whatever the host has
    make = vfs.types.get(kind.encode())
    if make is None and entry.type in EMPTY_TYPES:
        return TmpFs.make(vfs, "mode=0755")
    if make is None:
        raise StartError(
            f"mount {entry.type} to {entry.destination.decode()}: no such device"
        )
    source, data = entry.source.encode(), entry.data.encode()
    return await again(make, starter, source, entry.flags, data)


async def mount_point(starter: Starter, path: bytes, is_file: bool) -> Location:
    """The place to mount on, made (with its parents) where it does not exist.

    As with runc also where a symbolic link leads that leads to nothing yet: in the root, as all.
    """
    try:
        return await again(resolve, starter, AT_FDCWD, path)
    except ENOENT:
        pass
    ahead = _backwards(path)
    at, links = b"", 0
    while ahead:
        part = ahead.pop()
        if part in (b".", b".."):
            at = at if part == b"." else at.rpartition(b"/")[0]
            continue
        parent = (await again(resolve, starter, AT_FDCWD, at or b"/")).dentry.inode
        child: Inode | Absent = await again(child_of, parent, part)
        if not isinstance(child, Absent) and child.is_symlink:
            links += 1
            if links > MAX_LINKS:
                raise ELOOP
            target = await again(child.readlink)
            at = b"" if target.startswith(b"/") else at
            ahead += _backwards(target)
            continue
        at += b"/" + part
        if not isinstance(child, Absent):
            continue
        if is_file and not ahead:
            how = OpenHow.strict(O_CREAT | O_WRONLY, 0o755, 0)
            (await again(open_used, starter, AT_FDCWD, at, how)).decref()
        else:  # also below a read-only mount of ours
            await again(parent.mkdir, part, 0o755, Owner(0, 0))
    return await again(resolve, starter, AT_FDCWD, at)


def _backwards(path: bytes) -> list[bytes]:
    """Its names, the last one first."""
    return [part for part in reversed(path.split(b"/")) if part]


# --- devices


async def make_devices(starter: Starter, config: ContainerConfig) -> None:
    """Links, the devices that the bundle lists, and of the default ones those that it does not
    list. As with runc a folder of the host that is mounted on /dev stays as it is, and without a
    mount there they are in the root. Raises: StartError."""
    there = [entry for entry in config.mounts if entry.destination.rstrip(b"/") == b"/dev"]
    if there and there[-1].attachment is not None:
        return
    mode = stat.S_IFCHR | 0o666
    defaults = [DeviceConfig(path, mode, major, minor) for path, major, minor in DEVICES]
    try:
        await mount_point(starter, b"/dev", False)
        for path, target in LINKS:
            with suppress(EEXIST):
                await again(symlink, starter, target, AT_FDCWD, path)
        for device in (*config.devices, *defaults):
            await make_node(starter, device)
    except Errno as error:
        if not there and isinstance(error, EACCES | EROFS):
            return  # the caller may not write to the root
        raise StartError(f"devices of the container: {error.text()}") from error


async def make_node(starter: Starter, device: DeviceConfig) -> None:
    """One device node; one that is there already stays. Raises: Errno."""
    rdev = device.minor & 0xFF | device.major << 8 | (device.minor & ~0xFF) << 12
    parent = device.path.rsplit(b"/", 1)[0]
    if parent:
        await mount_point(starter, parent, False)
    try:
        location = await again(mknod, starter, AT_FDCWD, device.path, device.mode, rdev)
    except EEXIST:
        place = await again(resolve, starter, AT_FDCWD, device.path, follow=False)
        is_mounted = place.dentry is place.mount.root  # what the bundle wants there
        if place.dentry.inode.is_regular and not is_mounted:
            mount_node(starter, device, rdev, place)
        return
    except EPERM:  # a folder of the host: the Gofer makes none
        mount_node(starter, device, rdev, await mount_point(starter, device.path, True))
        return
    if device.uid or device.gid:
        await again(chown_location, starter, location, device.uid, device.gid)


def mount_node(starter: Starter, device: DeviceConfig, rdev: int, place: Location) -> None:
    """A node of our own on a file, as runc does where it may make none."""
    vfs, name = starter.kernel.vfs, device.path.rpartition(b"/")[2]
    fs = TmpFs.make(vfs)
    node = fs.root.mknod(name, device.mode, rdev, Owner(device.uid, device.gid))
    dentry = Dentry(None, b"/", fs.root).child(name, node, vfs.dentries)
    starter.mounts.attach(starter.mounts.new_mount(fs, dentry, 0), place)


# --- paths and sysctls


async def find(starter: Starter, path: bytes) -> Location | None:
    """A path that may not exist."""
    try:
        return await again(resolve, starter, AT_FDCWD, path)
    except (ENOENT, ENOTDIR):
        return None


def is_null_device(inode: Inode) -> bool:
    """A file of the image that stands in its place could be what is to be masked."""
    return stat.S_ISCHR(inode.mode) and inode.rdev == 1 << 8 | 3


async def mask(starter: Starter, path: bytes) -> None:
    """maskedPaths: an empty read-only directory, or /dev/null, over it.

    Raises: StartError. Where a link is on the way, an image says what is masked in its place.
    """
    try:
        mount, dentry, _ = await again(
            walk, starter, AT_FDCWD, path, resolve=RESOLVE_NO_SYMLINKS
        )
    except (ENOENT, ENOTDIR):
        return
    except ELOOP:
        raise StartError(
            f"cannot mask {path.decode()}: a symbolic link is on the way"
        ) from None
    place = Location(mount, dentry)
    vfs = starter.kernel.vfs
    if place.dentry.inode.is_dir:
        mount = vfs.new_mount(TmpFs.make(vfs, "mode=0755"), MS_RDONLY)
    else:
        null = await find(starter, b"/dev/null")
        if null is None or not is_null_device(null.dentry.inode):
            raise StartError(f"cannot mask {path.decode()}: /dev/null is not that device")
        mount = bind(starter, null, 0)
    starter.mounts.attach(mount, place)


async def make_read_only(starter: Starter, path: bytes) -> None:
    """readonlyPaths: a read-only mount of the path over itself."""
    place = await find(starter, path)
    if place is not None:
        flags = MS_RDONLY | place.mount.flags & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
        starter.mounts.attach(bind(starter, place, flags), place)


def bind(starter: Starter, place: Location, flags: int) -> Any:
    """A mount of what is at a place."""
    dentry: Dentry = place.dentry
    return starter.mounts.new_mount(place.mount.fs, dentry, flags)


async def set_sysctl(starter: Starter, name: str, value: str) -> None:
    """Write to /proc/sys. Raises: StartError."""
    path = b"/proc/sys/" + name.replace(".", "/").encode()
    try:
        await write_value(starter, await again(resolve, starter, AT_FDCWD, path), value)
    except Errno as error:
        raise StartError(f"sysctl {name}: {error.text()}") from error


async def write_value(starter: Starter, place: Location, value: str) -> None:
    """Write a text to a file. Raises: Errno."""
    file = (await again(open_location, starter, place, OpenHow.strict(O_WRONLY, 0, 0))).incref()
    try:
        await again(file.write, starter, KernelSource(value.encode()))
    finally:
        file.decref()
