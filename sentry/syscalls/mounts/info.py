"""What is mounted, by ids: statmount(2), listmount(2). fs/namespace.c."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import mount as m
from sentry.abi.capability import CAP_SYS_ADMIN
from sentry.abi.mount import (
    LISTMOUNT_REVERSE,
    LSMT_ROOT,
    STATMOUNT_FS_TYPE,
    STATMOUNT_MNT_BASIC,
    STATMOUNT_MNT_NS_ID,
    STATMOUNT_MNT_OPTS,
    STATMOUNT_MNT_POINT,
    STATMOUNT_MNT_ROOT,
    STATMOUNT_PROPAGATE_FROM,
    STATMOUNT_SB_BASIC,
)
from sentry.errors import E2BIG, EFAULT, EINVAL, ENOENT, EOVERFLOW, EPERM
from sentry.fs.proc.mounts import inner_path
from sentry.platform.constants import PAGE_SIZE
from sentry.syscalls.mounts.api import SAME
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Size, UInt
from sentry.vfs.mount import FIRST_UNIQUE, Mount
from sentry.vfs.paths import is_reachable, mount_paths, path_of
from sentry.vfs.propagation import dominating, groups_of
from sentry.wait.again import begun
from sentry.wait.steps import driven

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.vfs.location import Location

MAX_IDS: Final = 1_000_000
REQUEST: Final = struct.Struct("<IIQQQ")
"""struct mnt_id_req: size, spare, mnt_id, param, mnt_ns_id."""
STATMOUNT: Final = struct.Struct("<IIQIIQIIQQIIQQQQQIIQ392x")
"""struct statmount, up to its strings."""


def read_request(task: Task, addr: int) -> tuple[int, int]:
    """copy_mnt_id_req(): (mnt_id, param). Only the own namespace is looked at.

    Raises: EFAULT, EINVAL, E2BIG, ENOENT.
    """
    (size,) = struct.unpack("<I", task.mm.read(addr, 4))
    if size > PAGE_SIZE:
        raise E2BIG(f"{size} bytes")
    if size < m.MNT_ID_REQ_SIZE_VER0:
        raise EINVAL(f"{size} bytes")
    data = task.mm.read(addr, size)
    if any(data[REQUEST.size :]):
        raise E2BIG("unknown fields are set")
    known = data[: REQUEST.size].ljust(REQUEST.size, b"\0")
    _, spare, mount_id, param, namespace = REQUEST.unpack(known)
    if spare or mount_id <= FIRST_UNIQUE:
        raise EINVAL("mount id")
    if namespace not in (0, task.mounts.id):
        raise ENOENT("mount namespace")
    return mount_id, param


def find(task: Task, number: int) -> Mount:
    """The mount of an id that the caller may look at. Raises: ENOENT, EPERM."""
    for mount in task.mounts:
        if mount.unique_id == number:
            reachable = is_reachable(mount.location, task.fs.root)
            if not reachable and not task.creds.has_in(task.mounts.owner, CAP_SYS_ADMIN):
                raise EPERM("not below the root")
            return mount
    raise ENOENT(f"mount {number}")


@syscall(457)
def sys_statmount(task: Task, request: Addr, buf: Addr, size: Size, flags: UInt) -> None:
    """statmount(2)."""
    if flags:
        raise EINVAL(f"flags {flags:#x}")
    number, mask = read_request(task, request)
    data = describe(task, find(task, number), mask)
    if len(data) > size:
        raise EOVERFLOW(f"{len(data)} bytes")
    task.mm.write(buf, data)


def propagation_type(mount: Mount) -> int:
    """mnt_to_propagation_flags()."""
    kind = m.MS_SHARED if mount.group is not None else 0
    kind |= m.MS_SLAVE if mount.master is not None else 0
    kind |= m.MS_UNBINDABLE if mount.unbindable else 0
    return kind or m.MS_PRIVATE


def mount_attributes(mount: Mount) -> int:
    """mnt_to_attr_flags()."""
    found = sum(attribute for attribute, flag in SAME if mount.flags & flag)
    if mount.flags & m.MS_NOATIME:
        return found | m.MOUNT_ATTR_NOATIME
    return found if mount.flags & m.MS_RELATIME else found | m.MOUNT_ATTR_STRICTATIME


def describe(task: Task, mount: Mount, mask: int) -> bytes:
    """struct statmount with its strings: do_statmount()."""
    texts = bytearray()
    places = dict.fromkeys(("root", "point", "type", "options"), 0)

    def text(name: str, value: bytes) -> None:
        places[name] = len(texts)
        texts.extend(value + b"\0")

    done, fs = 0, mount.fs
    root = task.fs.root
    if mask & STATMOUNT_FS_TYPE:
        text("type", fs.name.encode())
        done |= STATMOUNT_FS_TYPE
    if mask & STATMOUNT_MNT_ROOT:
        text("root", inner_path(mount.root))
        done |= STATMOUNT_MNT_ROOT
    if mask & STATMOUNT_MNT_POINT and is_reachable(mount.location, root):
        text("point", path_of(mount.location, root))
        done |= STATMOUNT_MNT_POINT
    if mask & STATMOUNT_MNT_OPTS and (options := fs.show_options().lstrip(",")):
        text("options", options.encode())
        done |= STATMOUNT_MNT_OPTS
    sb = (0, 0, 0, 0)
    if mask & STATMOUNT_SB_BASIC:
        sb = (os.major(fs.dev), os.minor(fs.dev), fs.magic, int(fs.read_only))
        done |= STATMOUNT_SB_BASIC
    basic = (0,) * 8
    if mask & STATMOUNT_MNT_BASIC:
        parent = mount.parent.mount if mount.parent is not None else mount
        basic = (
            mount.unique_id, parent.unique_id, mount.id, parent.id, mount_attributes(mount),
            propagation_type(mount), mount.group.id if mount.group is not None else 0,
            mount.master.id if mount.master is not None else 0,
        )  # fmt: skip
        done |= STATMOUNT_MNT_BASIC
    origin = 0
    if mask & STATMOUNT_PROPAGATE_FROM:
        origin = dominating(mount, groups_of(task.mounts)) if mount.master is not None else 0
        done |= STATMOUNT_PROPAGATE_FROM
    namespace = 0
    if mask & STATMOUNT_MNT_NS_ID:
        namespace, done = task.mounts.id, done | STATMOUNT_MNT_NS_ID
    head = STATMOUNT.pack(
        STATMOUNT.size + len(texts), places["options"], done, sb[0], sb[1], sb[2], sb[3],
        places["type"], *basic, origin, places["root"], places["point"], namespace,
    )  # fmt: skip
    return head + bytes(texts)


@syscall(458)
def sys_listmount(task: Task, request: Addr, ids: Addr, count: Size, flags: UInt) -> int:
    """listmount(2): the mounts below one, by their ids; `param` is the last one known."""
    if flags & ~LISTMOUNT_REVERSE:
        raise EINVAL(f"flags {flags:#x}")
    if count > MAX_IDS:
        raise EOVERFLOW(f"{count} ids")
    if ids + 8 * count > 1 << 47:
        raise EFAULT(f"{ids:#x}")
    number, last = read_request(task, request)
    if number == LSMT_ROOT:
        origin: Location = task.fs.root
    else:
        origin = find(task, number).location
    task.mounts.lock.check()
    mounts = sorted(task.mounts, key=lambda mount: mount.id)
    paths = begun(sys_listmount, lambda: driven(mount_paths(mounts, origin)))
    found = [each.unique_id for each in paths if each.unique_id != number]
    if flags & LISTMOUNT_REVERSE:
        found = [each for each in reversed(found) if not last or each < last]
    else:
        found = [each for each in found if each > last]
    found = found[:count]
    task.mm.write(ids, struct.pack(f"<{len(found)}Q", *found))
    return len(found)
