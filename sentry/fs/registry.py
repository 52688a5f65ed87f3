"""What this room has, made known to a sandbox's Vfs: devices, FIFOs, types for mount(2)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from sentry.abi.stat import S_IFCHR, S_IFIFO
from sentry.errors import EINVAL, EIO
from sentry.fs.dev import memory, tty
from sentry.fs.fuse.served import Served
from sentry.fs.proc import mount_proc
from sentry.fs.proc.filesystem import check_proc_option
from sentry.fs.tmpfs.filesystem import RamFs, TmpFs, parse_options

if TYPE_CHECKING:
    from sentry.vfs.file import Caller, FileDescription
    from sentry.vfs.filesystem import FileSystem
    from sentry.vfs.location import Location
    from sentry.vfs.vfs import MountType, Vfs


PTMX: Final = 5 << 8 | 2
"""/dev/ptmx, which belongs to the devpts mounted last."""
FUSE_DEVICE: Final = 10 << 8 | 229
"""/dev/fuse."""


def mount_tmpfs(caller: Caller, source: bytes, flags: int, data: bytes) -> TmpFs:
    """mount(2) of type tmpfs."""
    vfs, creds = caller.kernel.vfs, caller.creds
    text = data.decode(errors="replace")
    given = parse_options(text, vfs.memory_pages)
    uid = creds.fsuid if given.uid is None else creds.kuid(given.uid)
    gid = creds.fsgid if given.gid is None else creds.kgid(given.gid)
    fs = TmpFs.make(vfs, text, uid=uid, gid=gid)
    fs.source = source.decode(errors="replace") or "none"
    fs.mounted_once = True
    return fs


def ramfs_mode(text: str) -> str:
    """The option mode among others, which ramfs ignores. Raises: EINVAL."""
    given = [item for item in text.split(",") if item.partition("=")[0] == "mode"]
    parse_options(",".join(given), 0)
    return given[-1] if given else "mode=0755"


def mount_ramfs(caller: Caller, source: bytes, flags: int, data: bytes) -> RamFs:
    """mount(2) of type ramfs."""
    mode, creds = ramfs_mode(data.decode(errors="replace")), caller.creds
    fs = RamFs.make(caller.kernel.vfs, mode, uid=creds.fsuid, gid=creds.fsgid)
    fs.source = source.decode(errors="replace") or "none"
    fs.mounted_once = True
    return fs


def check_no_option(option: str) -> None:
    """Raises: EINVAL."""
    raise EINVAL(option)


def mount_devtmpfs(caller: Caller, source: bytes, flags: int, data: bytes) -> TmpFs:
    """mount(2) of type devtmpfs: an empty tmpfs; the nodes are made by who mounts it."""
    fs = TmpFs.make(caller.kernel.vfs, "mode=0755")
    fs.source = "devtmpfs"
    return fs


def mount_devpts(caller: Caller, source: bytes, flags: int, data: bytes) -> FileSystem:
    """mount(2) of type devpts."""
    from sentry.fs.devpts.filesystem import mount_devpts as mount  # noqa: PLC0415

    return mount(caller, source, flags, data)


def open_ptmx(location: Location, flags: int, caller: Caller) -> FileDescription:
    """Raises: EIO."""
    devpts = caller.kernel.vfs.devpts
    if devpts is None:
        raise EIO("no devpts is mounted")
    opened: FileDescription = devpts.new_terminal(location, flags, caller)
    return opened


def mount_cgroup(caller: Caller, source: bytes, flags: int, data: bytes) -> FileSystem:
    """mount(2) of type cgroup2."""
    from sentry.fs.cgroup import mount_cgroup as mount  # noqa: PLC0415  few containers have one

    return mount(caller, source, flags, data)


def mount_mqueue(caller: Caller, source: bytes, flags: int, data: bytes) -> FileSystem:
    """mount(2) of type mqueue."""
    from sentry.fs.mqueue.filesystem import mount_mqueue as mount  # noqa: PLC0415

    if data:
        check_no_option(data.decode(errors="replace"))
    return mount(caller, source, flags, data)


def mount_sysfs(caller: Caller, source: bytes, flags: int, data: bytes) -> FileSystem:
    """mount(2) of type sysfs."""
    from sentry.fs.sysfs import mount_sysfs as mount  # noqa: PLC0415

    if data:
        check_no_option(data.decode(errors="replace"))
    return mount(caller, source, flags, data)


def mount_erofs(caller: Caller, source: bytes, flags: int, data: bytes) -> FileSystem:
    """mount(2) of type erofs."""
    from sentry.fs.erofs.filesystem import mount_erofs as mount  # noqa: PLC0415

    return mount(caller, source, flags, data)


def check_erofs(option: str) -> None:
    """Raises: EINVAL."""
    from sentry.fs.erofs.filesystem import check_option as check  # noqa: PLC0415

    check(option)


def mount_overlay(caller: Caller, source: bytes, flags: int, data: bytes) -> FileSystem:
    """mount(2) of type overlay."""
    from sentry.fs.layers.filesystem import mount_overlay as mount  # noqa: PLC0415

    return mount(caller, source, flags, data)


def check_overlay(option: str) -> None:
    """Raises: EINVAL."""
    from sentry.fs.layers.options import check_option as check  # noqa: PLC0415

    check(option)


def overlay_option(key: bytes, value: bytes | None) -> bytes:
    """One that fsconfig(2) has given."""
    from sentry.fs.layers.options import as_option  # noqa: PLC0415

    return as_option(key, value)


def register_fuse(vfs: Vfs) -> None:
    """The device, and the types fuse, fuseblk and fusectl."""

    def mount_fuse(caller: Caller, source: bytes, flags: int, data: bytes) -> FileSystem:
        return mount_subtype(b"")(caller, source, flags, data)

    def mount_subtype(subtype: bytes) -> MountType:
        from sentry.fs.fuse.filesystem import mount_fuse as mount  # noqa: PLC0415

        return partial(mount, subtype=subtype.decode(errors="replace"))

    def mount_block(caller: Caller, source: bytes, flags: int, data: bytes) -> FileSystem:
        from sentry.fs.fuse.filesystem import mount_fuseblk as mount  # noqa: PLC0415

        return mount(caller, source, flags, data)

    def mount_control(caller: Caller, source: bytes, flags: int, data: bytes) -> FileSystem:
        from sentry.fs.fuse.control import mount_control as mount  # noqa: PLC0415

        return mount(caller, source, flags, data)

    def check_option(option: str) -> None:
        from sentry.fs.fuse.filesystem import check_option as check  # noqa: PLC0415

        check(option)

    def open_device(location: Location, flags: int, caller: Caller) -> FileDescription:
        from sentry.fs.fuse.device import FuseDevice  # noqa: PLC0415

        return FuseDevice(location, flags)

    vfs.devices[S_IFCHR, FUSE_DEVICE] = open_device
    vfs.types[b"fuse"] = mount_fuse
    vfs.types[b"fuseblk"] = mount_block
    vfs.types[b"fusectl"] = mount_control
    vfs.subtypes[b"fuse"] = mount_subtype
    vfs.option_checks[b"fuse"] = check_option
    vfs.fuse = Served()


def open_fifo(location: Location, flags: int, caller: Caller) -> FileDescription:
    """open(2) of a FIFO."""
    from sentry.fs.pipe.file import open_fifo as open_  # noqa: PLC0415

    return open_(location, flags, caller)


def register_all(vfs: Vfs) -> None:
    """Fill the registries."""
    vfs.openers[S_IFIFO] = open_fifo
    vfs.types[b"tmpfs"] = mount_tmpfs
    vfs.types[b"ramfs"] = mount_ramfs
    vfs.types[b"devtmpfs"] = mount_devtmpfs
    vfs.types[b"mqueue"] = mount_mqueue
    vfs.types[b"proc"] = mount_proc
    vfs.types[b"sysfs"] = mount_sysfs
    vfs.types[b"cgroup2"] = mount_cgroup
    vfs.types[b"erofs"] = mount_erofs
    vfs.option_checks[b"erofs"] = check_erofs
    vfs.types[b"overlay"] = mount_overlay
    vfs.option_checks[b"overlay"] = check_overlay
    vfs.option_joins[b"overlay"] = overlay_option
    def check_tmpfs(option: str) -> None:
        parse_options(option, vfs.memory_pages)

    for kind in (b"tmpfs", b"devtmpfs"):
        vfs.option_checks[kind] = check_tmpfs
    vfs.option_checks[b"ramfs"] = ramfs_mode
    vfs.option_checks[b"proc"] = check_proc_option
    register_fuse(vfs)
    memory.register(vfs)
    tty.register(vfs)
    vfs.types[b"devpts"] = mount_devpts
    vfs.devices[S_IFCHR, PTMX] = open_ptmx
