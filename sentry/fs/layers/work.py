"""The work directory of an overlay, and what its upper layer is asked for: ovl_make_workdir().

fs/overlayfs/super.c. Each mount begins with an empty one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sentry.abi.stat import S_IFCHR
from sentry.auth.acl import NAMES
from sentry.auth.permissions import MAY_EXEC, MAY_WRITE
from sentry.errors import EINVAL, EOPNOTSUPP, EPERM, Errno
from sentry.fs.layers.stack import OPAQUE, UPPER, UUID
from sentry.suppress import suppress
from sentry.vfs.interface import Absent, Changes, Inode, Owner
from sentry.vfs.walk import child_of
from sentry.wait.again import again
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.fs.layers.options import Options
    from sentry.fs.layers.stack import Stack

WORK: Final = b"work"
INCOMPAT: Final = b"incompat"
"""In it: names of what an overlay must be able to do that is mounted here again."""


async def prepare(stack: Stack, base: Inode, options: Options) -> None:
    """Make `stack.work`, and try what is needed; without one the overlay cannot be written to.

    Raises: EINVAL for a file system that cannot have an upper layer, or a mount of before that was
    volatile; EACCES.
    """
    creds, upper = stack.creds, stack.layers[UPPER].root
    owner = Owner(creds.fsuid, creds.fsgid)
    for directory in (base, upper):
        await again(stack.check, directory, MAY_WRITE | MAY_EXEC)
    work = await _made(base, owner)
    if work is None:
        return
    try:
        async with work.lock:
            stack.whiteout = await again(work.mknod, stack.new_name(), S_IFCHR, 0, owner)
        nameless = await again(work.tmpfile, 0o600, owner, True)
    except (EOPNOTSUPP, EPERM) as error:
        raise EINVAL(f"{upper.fs.name} as the upper layer") from error
    stack.marks = upper.fs.xattr_user and stack.may_mark(stack.prefix)
    try:
        await again(stack.mark, nameless, OPAQUE, b"y")
    except Errno:
        stack.marks = False
    if options.volatile:
        async with work.lock:
            incompat = await again(work.mkdir, INCOMPAT, 0o700, owner)
            await again(incompat.mkdir, b"volatile", 0o700, owner)
    await _name(stack, upper, options)
    stack.work = work


async def _made(base: Inode, owner: Owner) -> Inode | None:
    """An empty directory, or none where something is in the way: ovl_workdir_create()."""
    async with base.lock:
        there: Inode | Absent = await again(child_of, base, WORK)
        if not isinstance(there, Absent):
            await _clean((base, WORK, there), 0)
            there = await again(child_of, base, WORK)
        if not isinstance(there, Absent):
            return None
        work: Inode = await again(base.mkdir, WORK, 0, owner)
    for name in NAMES:
        with suppress(EOPNOTSUPP):
            await again(work.set_acl, name, b"", None)
    await again(work.setattr, Changes(mode=0))
    return work


async def _clean(at: tuple[Inode, bytes, Inode], level: int) -> None:
    """What a mount of before has left, which is never deep: ovl_workdir_cleanup(). What cannot be
    removed stays. Raises: EINVAL for what says that this overlay may not go on."""
    directory, name, inode = at
    if inode.is_dir and level < 2:
        pace = Pace()
        async with inode.lock:
            for entry in await again(inode.entries):
                if level == 1 and name == INCOMPAT:
                    raise EINVAL(f"overlay with incompat feature {entry.name!r}")
                there: Inode | Absent = await again(child_of, inode, entry.name)
                if not isinstance(there, Absent):
                    await _clean((inode, entry.name, there), level + 1)
                await pace.rest()
    with suppress(Errno):
        await again(directory.rmdir if inode.is_dir else directory.unlink, name, inode)


async def _name(stack: Stack, upper: Inode, options: Options) -> None:
    """The UUID of the overlay, kept in its upper layer: ovl_init_uuid_xattr()."""
    if options.uuid not in ("auto", "on"):
        return
    known = stack.uuid_of_upper()
    if len(known) == 16:
        stack.uuid = known
        return
    options.uuid = "on"
    made = os.urandom(16)
    try:
        await again(stack.mark, upper, UUID, made)
    except Errno:
        options.uuid = "null"
        return
    stack.uuid = made
