"""ioctl(2) on files of a server: restricted to what the request's number says. fs/fuse/ioctl.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.abi import fuse as f
from sentry.abi.fuse import FUSE_IOCTL, FUSE_IOCTL_DIR, FUSE_IOCTL_OUT, FUSE_IOCTL_RETRY
from sentry.errors import EIO, ENOSYS, ENOTTY

if TYPE_CHECKING:
    from sentry.fs.fuse.handle import Handle
    from sentry.vfs.file import Caller

SIZE_SHIFT, SIZE_MASK = 16, (1 << 14) - 1
WRITES, READS = 1 << 30, 2 << 30
"""_IOC_WRITE: the program gives bytes; _IOC_READ: it gets some. asm-generic/ioctl.h."""


def ioctl(handle: Handle, caller: Caller, request: int, argument: int) -> int:
    """fuse_do_ioctl(). Raises: ENOTTY where the server has none, EIO for an impossible answer."""
    inode = handle.inode
    inode.sb.check_allowed()
    size = request >> SIZE_SHIFT & SIZE_MASK
    given = size if request & WRITES else 0
    wanted = size if request & READS else 0
    data = caller.mm.read(argument, given) if given else b""
    flags = FUSE_IOCTL_DIR if inode.is_dir else 0
    body = f.FUSE_IOCTL_IN.pack(handle.fh, flags, request, argument, given, wanted) + data
    try:
        answered = inode.ask(
            (inode, FUSE_IOCTL), FUSE_IOCTL, body, FUSE_IOCTL_OUT.size + wanted, is_variable=True
        )
        answer: bytes = answered.once(_checked)
    except ENOSYS:
        raise ENOTTY("the server has no requests") from None
    out = FUSE_IOCTL_OUT.unpack(answer)
    if out.result == -ENOSYS.number:
        raise ENOTTY("the server has no such request")
    got = answer[FUSE_IOCTL_OUT.size :]
    if got and out.result >= 0:
        caller.mm.write(argument, got)
    return out.result


def _checked(data: bytes) -> bytes:
    if len(data) < FUSE_IOCTL_OUT.size or FUSE_IOCTL_OUT.unpack(data).flags & FUSE_IOCTL_RETRY:
        raise EIO("an impossible answer")
    if FUSE_IOCTL_OUT.unpack(data).result < -4095:
        raise EIO("an impossible result")
    return bytes(data)
