"""Copy-up: a file of a lower layer gets a copy in the upper one. fs/overlayfs/copy_up.c.

A regular file is copied into one without a name, and gets its name as a whole; of others there is
little to copy.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.fcntl import O_RDONLY, O_WRONLY
from sentry.auth.acl import NAMES, check_valid, from_program
from sentry.auth.credentials import Credentials
from sentry.auth.file_caps import to_show, to_store
from sentry.auth.permissions import MAY_EXEC, MAY_READ, MAY_WRITE
from sentry.errors import (
    EEXIST,
    ENODATA,
    ENOENT,
    ENOSPC,
    ENOTDIR,
    ENXIO,
    EOPNOTSUPP,
    EOVERFLOW,
    EPERM,
    EROFS,
    ESTALE,
    Errno,
)
from sentry.fs.layers.origin import handle
from sentry.fs.layers.stack import ORIGIN, UPPER, Stack, is_whiteout
from sentry.mm.buffers import KernelDest, KernelSource
from sentry.suppress import suppress
from sentry.vfs.interface import Absent, Attributes, Changes, Inode, Owner
from sentry.wait.again import again, begun
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sentry.fs.layers.inode import LayeredInode

PIECE: Final = 1 << 18
CAPABILITY: Final = b"security.capability"


def copied_up(inode: LayeredInode, limit: int | None = None) -> Inode:
    """The file in the upper layer, copied if it is not there: all bytes, or the first `limit`.

    Raises: ENOSPC, EOVERFLOW for an owner that is nobody there, and nothing has changed; NotNow.
    """
    if inode.upper is not None:
        return inode.upper
    return begun((inode, copied_up), partial(copied, inode, limit))


async def copied(inode: LayeredInode, limit: int | None = None) -> Inode:
    """The same for coroutines. The directories above are copied first.

    Raises: EEXIST, ENOTDIR for what has no name any more: Linux finds the whiteout in its place.
    """
    if inode.upper is None and inode.gone:
        raise ENOTDIR("it was removed") if inode.is_dir else EEXIST("it was removed")
    chain: list[LayeredInode] = [inode]
    while chain[-1].upper is None:
        above = chain[-1].parent
        if above is None:
            raise EROFS("there is no upper layer")
        chain.append(above)
    pace = Pace()
    for each in reversed(chain):
        if each.upper is None:
            await _copy(each, limit if each is inode else None)
        await pace.rest()
    assert inode.upper is not None
    return inode.upper


async def _copy(inode: LayeredInode, limit: int | None) -> None:
    async with inode.copying:
        if inode.upper is not None:
            return
        stack, (number, lower) = inode.sb.stack, inode.lowers[0]
        attributes = await again(lower.stat)
        if not stack.may_copy(attributes.uid, attributes.gid):
            raise EOVERFLOW("its owner is nobody here")
        if lower.is_regular:
            await again(stack.check, lower, MAY_READ)
            upper = await _file(inode, (number, lower), attributes, limit)
        else:
            upper = await _other(inode, lower, attributes)
        inode.copied_to(upper)
        if attributes.nlink > 1 and not lower.is_dir:
            inode.renumber()


async def _file(
    inode: LayeredInode, source: tuple[int, Inode], attributes: Attributes, limit: int | None
) -> Inode:
    stack = inode.sb.stack
    assert stack.work is not None
    owner = Owner(attributes.uid, attributes.gid)
    upper = await again(stack.work.tmpfile, attributes.mode & 0o7777, owner, True)
    size = attributes.size if limit is None else min(limit, attributes.size)
    await _copy_bytes(stack, source, upper, size)
    await _dress(stack, source[1], upper, attributes)

    async def put(directory: Inode) -> None:
        await again(directory.link, inode.name, upper)

    if not inode.gone:
        await _put(inode, put)
    return upper


async def _other(inode: LayeredInode, lower: Inode, attributes: Attributes) -> Inode:
    """A directory, a link, a special file."""
    if inode.gone:
        raise ENOENT("it has no name any more")
    stack, name = inode.sb.stack, inode.name
    owner = Owner(attributes.uid, attributes.gid)
    target = await again(lower.readlink) if lower.is_symlink else b""
    found: list[Inode] = []

    def make(directory: Inode) -> Inode:
        if lower.is_dir:
            return directory.mkdir(name, attributes.mode & 0o7777, owner)
        if lower.is_symlink:
            return directory.symlink(name, target, owner)
        return directory.mknod(name, attributes.mode, lower.rdev, owner)

    async def put(directory: Inode) -> None:
        made = await again(make, directory)
        try:
            await _dress(stack, lower, made, attributes)
        except Errno:
            await again(directory.rmdir if lower.is_dir else directory.unlink, name, made)
            raise
        found.append(made)

    await _put(inode, put)
    if not found:
        raise ENOENT("it has no name any more")
    return found[0]


async def _put(inode: LayeredInode, put: Callable[[Inode], Awaitable[None]]) -> None:
    """Give it its name in the upper layer, unless that was removed meanwhile; the directory's times
    stay. Raises: ESTALE where somebody else has put something there."""
    stack, parent = inode.sb.stack, inode.parent
    directory = parent.upper if parent is not None else None
    if directory is None:
        raise ENOENT("its directory has been removed")
    async with directory.lock:
        await again(stack.check, directory, MAY_WRITE | MAY_EXEC)
        there: Inode | Absent = await again(stack.look, directory, inode.name)
        if not isinstance(there, Absent):
            if is_whiteout(there):
                return
            raise ESTALE("somebody has changed the upper layer")
        before = await again(directory.stat)
        await put(directory)
        times = Changes(atime_ns=before.atime_ns, mtime_ns=before.mtime_ns)
        await again(directory.setattr, times)


async def _copy_bytes(stack: Stack, source: tuple[int, Inode], upper: Inode, size: int) -> None:
    """The first bytes; what is a hole stays one, as far as the lower layer tells it."""
    nobody: Any = None
    number, lower = source
    data: Any = (await again(lower.open, stack.place(number, lower), O_RDONLY, nobody)).incref()
    try:
        copy: Any = (await again(upper.open, stack.place(UPPER, upper), O_WRONLY, nobody)).incref()
        try:
            await _copy_pieces(data, copy, size)
        finally:
            copy.decref()
    finally:
        data.decref()
    if (await again(upper.stat)).size < size:
        await again(upper.setattr, Changes(size=size))


async def _copy_pieces(data: Any, copy: Any, size: int) -> None:
    nobody: Any = None
    at, pace = 0, Pace()
    while at < size:
        try:
            at = max(at, await again(data.find, at, True, size))
        except ENXIO:
            break
        if at >= size:
            break
        dest = KernelDest(min(PIECE, size - at))
        got: int = await again(data.read_at, nobody, dest, at)
        if got <= 0:
            break
        if await again(copy.pwrite, KernelSource(dest.data[:got]), at) < got:
            raise ENOSPC("the upper layer is full")
        at += got
        await pace.rest()


async def _dress(stack: Stack, lower: Inode, upper: Inode, attributes: Attributes) -> None:
    """Extended attributes but the overlay's own, mode and times: ovl_copy_xattr()."""
    if attributes.nlink == 1 and not lower.is_dir and stack.marks:
        with suppress(Errno):  # it then has a number of its own, once it was forgotten
            await again(stack.mark, upper, ORIGIN, handle(lower.fs, attributes.ino))
    for name in await again(upper.listxattr):
        if name in NAMES:  # what the directory would give
            await again(upper.set_acl, name, b"", None)
    try:
        names = await again(lower.listxattr)
    except EOPNOTSUPP:
        names = ()
    for name in names:
        if not stack.is_own(name) and (stack.is_root or not name.startswith(b"trusted.")):
            await _copy_xattr(stack, lower, upper, name)
    mode = None if upper.is_symlink else attributes.mode & 0o7777
    await again(
        upper.setattr,
        Changes(mode=mode, atime_ns=attributes.atime_ns, mtime_ns=attributes.mtime_ns),
    )


async def _copy_xattr(stack: Stack, lower: Inode, upper: Inode, name: bytes) -> None:
    """Whatever the layer says, with the rights of who has mounted it. Raises: EINVAL, EPERM."""
    try:
        value = await again(lower.getxattr, name)
    except ENODATA:
        return
    if name == CAPABILITY:
        told = to_show(stack.creds, lower.fs.owner, value)
        value = to_store(stack.creds, upper.fs.owner, (upper.uid, upper.gid), told)
    elif not stack.may_mark(name):
        raise EPERM(f"{name!r} of a lower layer")
    try:
        if name in NAMES:
            await _copy_acl(upper, name, value)
        else:
            await again(upper.setxattr, name, value, 0)
    except EOPNOTSUPP:
        if name in NAMES or name.startswith(b"security."):
            raise


async def _copy_acl(upper: Inode, name: bytes, value: bytes) -> None:
    value = from_program(Credentials.root(), value)  # the bytes are a server's, maybe
    if value:
        check_valid(value, upper.fs.owner)
    await again(upper.set_acl, name, value, None)
