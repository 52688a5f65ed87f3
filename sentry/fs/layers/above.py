"""Changes of the upper layer. What is to be seen of it in the merged tree is `directory.py`'s.

Each holds the locks of the upper layer's directories, so whoever changes these by their own names
comes before or after it. The upper layer is in memory: what is begun here is not left half done.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from sentry.auth.permissions import MAY_EXEC, MAY_WRITE, check_sticky
from sentry.errors import EEXIST, ENOTEMPTY, ESTALE, Errno
from sentry.fs.layers.stack import OPAQUE, is_whiteout
from sentry.vfs.interface import Absent, Inode
from sentry.wait.again import again
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sentry.fs.layers.stack import Stack


class Name(NamedTuple):
    """A name of a directory of the upper layer."""

    directory: Inode
    name: bytes
    inode: Inode | None
    """What it is, as far as the overlay knows."""


async def _may_change(stack: Stack, directory: Inode) -> None:
    await again(stack.check, directory, MAY_WRITE | MAY_EXEC)


async def _cover(stack: Stack, directory: Inode, name: bytes) -> None:
    """A whiteout, where no name is: what lower layers have is hidden."""
    assert stack.whiteout is not None
    await again(directory.link, name, stack.whiteout)


async def _uncover(stack: Stack, directory: Inode, name: bytes) -> bool:
    """Take a whiteout away; whether there was one. Raises: EEXIST for something else."""
    there: Inode | Absent = await again(stack.look, directory, name)
    if isinstance(there, Absent):
        return False
    if not is_whiteout(there):
        raise EEXIST("it is in the upper layer")
    await again(directory.unlink, name, there)
    return True


async def _check_known(stack: Stack, at: Name) -> bool:
    """The upper layer has what the overlay knows; whether a whiteout is there. Raises: ESTALE."""
    there: Inode | Absent = await again(stack.look, at.directory, at.name)
    covered = not isinstance(there, Absent) and is_whiteout(there)
    real = None if isinstance(there, Absent) or covered else there
    if real is not at.inode:
        raise ESTALE("somebody has changed the upper layer")
    return covered


async def made(
    stack: Stack, directory: Inode, name: bytes, make: Callable[[Inode], Inode], marks: bool
) -> Inode:
    """Something new: `make` gives it its name. A directory in place of a whiteout is opaque; with
    `marks` others say so, too, which spares looks: ovl_create_upper()."""
    async with directory.lock:
        await _may_change(stack, directory)
        covered = await _uncover(stack, directory, name)
        try:
            inode = await again(make, directory)
        except Errno:
            if covered:
                await _cover(stack, directory, name)
            raise
        if not inode.is_dir or not (covered or marks):
            return inode
        try:
            await again(stack.mark, inode, OPAQUE, b"y")
        except Errno:
            if not covered:
                return inode
            await again(directory.rmdir, name, inode)
            await _cover(stack, directory, name)
            raise
        return inode


async def unlinked(stack: Stack, at: Name, hide: bool) -> None:
    """A name that is no directory goes; `hide`: lower layers have it, too."""
    directory, name, inode = at
    async with directory.lock:
        await _may_change(stack, directory)
        covered = await _check_known(stack, at)
        if inode is not None:
            check_sticky(stack.creds, directory.mode, directory.uid, inode.uid)
            await again(directory.unlink, name, inode)
        if hide and not covered:
            await _cover(stack, directory, name)


async def set_aside(stack: Stack, at: Name, hide: bool, gone: Callable[[], None]) -> None:
    """The same with a directory in which nothing but whiteouts is; `gone` is called when it is.

    Raises: ENOTEMPTY.
    """
    directory, name, inode = at
    work, aside = stack.work, stack.new_name()
    assert work is not None
    if inode is None:
        await unlinked(stack, at, hide)
        gone()
        return
    async with _locked(directory, work, inode):
        await _may_change(stack, directory)
        await _check_known(stack, at)
        await _check_bare(inode)
        check_sticky(stack.creds, directory.mode, directory.uid, inode.uid)
        await again(directory.rename, name, inode, work, aside, 0)
        gone()
        if hide:
            await _cover(stack, directory, name)
    await _dropped(work, aside, inode)


async def _dropped(work: Inode, aside: bytes, inode: Inode) -> None:
    """A directory that was set aside goes."""
    with suppress(Errno):  # somebody has put something there: it stays in `work`
        await _cleared(inode)
        async with work.lock:
            await again(work.rmdir, aside, inode)


async def _check_bare(directory: Inode) -> None:
    pace = Pace()
    for entry in await again(directory.entries):
        there: Inode | Absent = await again(directory.lookup, entry.name)
        if not isinstance(there, Absent) and not is_whiteout(there):
            raise ENOTEMPTY("something is in it")
        await pace.rest()


async def _cleared(directory: Inode) -> None:
    """Take the whiteouts away."""
    pace = Pace()
    async with directory.lock:
        for entry in await again(directory.entries):
            there: Inode | Absent = await again(directory.lookup, entry.name)
            if not isinstance(there, Absent) and is_whiteout(there):
                await again(directory.unlink, entry.name, there)
            await pace.rest()


async def moved(stack: Stack, source: Name, target: Name, flags: int, hide: bool) -> None:
    """rename(2), or with RENAME_EXCHANGE an exchange; `hide` as of `unlinked`: the old name."""
    inode = source.inode
    assert inode is not None
    async with _locked(source.directory, target.directory):
        for at in (source, target):
            await _may_change(stack, at.directory)
            await _check_known(stack, at)
            if at.inode is not None:
                check_sticky(stack.creds, at.directory.mode, at.directory.uid, at.inode.uid)
        covered = await _uncover(stack, *target[:2]) if target.inode is None else False
        try:
            await again(
                source.directory.rename, source.name, inode, target.directory, target.name, flags
            )
        except Errno:
            if covered:
                await _cover(stack, *target[:2])
            raise
        if hide:
            await _cover(stack, *source[:2])


async def moved_over(
    stack: Stack, source: Name, target: Name, hide: bool, done: Callable[[], None]
) -> None:
    """The same in place of a directory in which nothing but whiteouts is; `done` is called then.

    Raises: ENOTEMPTY.
    """
    inode, old = source.inode, target.inode
    work, aside = stack.work, stack.new_name()
    assert inode is not None
    assert old is not None
    assert work is not None
    async with _locked(source.directory, target.directory, work, old):
        for at in (source, target):
            await _may_change(stack, at.directory)
            await _check_known(stack, at)
        check_sticky(stack.creds, source.directory.mode, source.directory.uid, inode.uid)
        check_sticky(stack.creds, target.directory.mode, target.directory.uid, old.uid)
        await _check_bare(old)
        await again(target.directory.rename, target.name, old, work, aside, 0)
        try:
            await again(
                source.directory.rename, source.name, inode, target.directory, target.name, 0
            )
        except Errno:
            await again(work.rename, aside, old, target.directory, target.name, 0)
            raise
        done()
        if hide:
            await _cover(stack, *source[:2])
    await _dropped(work, aside, old)


@asynccontextmanager
async def _locked(*directories: Inode) -> AsyncIterator[None]:
    """In one order, whichever overlay it is that has them."""
    async with AsyncExitStack() as locks:
        for each in sorted(set(directories), key=id):
            await locks.enter_async_context(each.lock)
        yield
