"""`Filing`: what is asked from outside to be done with files of a container: `FileOrder`.

It is done by the calls of the vfs that programs make, where the container's first process is and
with the rights of a user: so names are resolved inside, whatever links a program puts there. Bytes,
and lists of any length, go through a pipe: who does not read it holds up this fiber alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from sentry.abi.fcntl import (
    AT_FDCWD,
    O_APPEND,
    O_CREAT,
    O_RDONLY,
    O_TRUNC,
    O_WRONLY,
    SEEK_SET,
)
from sentry.abi.limits import PATH_MAX
from sentry.control.answers import FileChange
from sentry.control.descriptors import check, close_all
from sentry.control.orders import FileOrder
from sentry.control.outside import AS_NOBODY, acting
from sentry.control.protocol import DEFECT, Reply
from sentry.control.trees import Lines, described, listed, make_all, remove_all
from sentry.errors import EEXIST, EINVAL, EIO, ENOTDIR, EOPNOTSUPP, Errno
from sentry.fs.host.file import HostFile, donated
from sentry.mm.buffers import KernelDest, KernelSource
from sentry.vfs import names
from sentry.vfs.open import OpenHow, open_used
from sentry.vfs.walk import resolve
from sentry.wait.again import again
from sentry.wait.fiber import Killed, Mode

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.vfs.file import Caller, FileDescription

PIECE: Final = 1 << 18
PIPES: Final = {"read": O_WRONLY, "list": O_WRONLY, "watch": O_WRONLY, "diff": O_WRONLY,
                "write": O_RDONLY}  # fmt: skip
"""How the pipe is used of those with which one comes."""
PLAIN: Final = frozenset({"stat", "make", "remove", "rename"})


class Filing:
    """One order. `told` hears what came of it, once: at its end, of "watch" when that has begun.

    Raises: EINVAL, ESRCH; the descriptors belong to it from the start.
    """

    def __init__(
        self,
        kernel: Kernel,
        container: Container,
        fds: list[int],
        order: FileOrder,
        told: Callable[[Reply], object],
    ) -> None:
        self._kernel = kernel
        self._container = container
        self._order = order
        self._told: Callable[[Reply], object] | None = told
        self._pipe: HostFile | None = None
        try:
            self._check(fds)
            self._acting = acting(container, order.uid, order.gid, order.groups)
        except Errno:
            close_all(fds)
            raise
        if fds:
            self._pipe = donated(kernel.vfs, fds[0], PIPES[order.do], closes=True)
            self._pipe.incref()
        self._fiber = kernel.loop.spawn(self._do(), "file", self._ended)

    def look(self) -> None:
        """Nothing is there at once."""

    def abandon(self) -> None:
        """Who asked is gone."""
        self._fiber.interrupt(Killed(), Mode.KILLABLE)

    def _check(self, fds: list[int]) -> None:
        order = self._order
        if order.do not in PLAIN and order.do not in PIPES:
            raise EINVAL(f"no such order: {order.do!r}")
        if len(fds) != (order.do in PIPES):
            raise EINVAL("a pipe is missing, or one too many")
        for fd in fds:
            check(fd)
        for path in (order.path, order.target):
            if b"\0" in path or len(path) >= PATH_MAX:
                raise EINVAL("a path")

    @property
    def _caller(self) -> Caller:
        return cast("Caller", self._acting)

    async def _do(self) -> Reply:
        order = self._order
        match order.do:
            case "stat":
                place = await again(
                    resolve, self._caller, AT_FDCWD, order.path, follow=order.follow
                )
                return Reply(file=await described(self._caller, order.path, place))
            case "make":
                await self._make()
            case "remove":
                await remove_all(self._acting, order.path)
            case "rename":
                old, new = (AT_FDCWD, order.path), (AT_FDCWD, order.target)
                await again(names.rename, self._caller, old, new, 0)
            case _:
                await self._through_pipe()
        return Reply()

    async def _make(self) -> None:
        """Raises: EEXIST if it was there."""
        path, mode = self._order.path, self._order.mode
        made = await make_all(self._caller, path, mode)
        if not (await again(resolve, self._caller, AT_FDCWD, path)).dentry.inode.is_dir:
            raise ENOTDIR("a file is there")
        if not made:
            raise EEXIST("it is there")

    async def _through_pipe(self) -> None:
        order, pipe = self._order, self._pipe
        assert pipe is not None
        match order.do:
            case "read":
                await self._read(pipe)
            case "write":
                await self._write(pipe)
            case "list":
                lines = Lines(self._caller, pipe)
                await listed(self._acting, order.path, order.depth, lines)
                await lines.flush()
            case "watch":
                from sentry.control import watching  # noqa: PLC0415  few ask

                lines = Lines(self._caller, pipe)
                await watching.watch(self._acting, order.path, lines, lambda: self._tell(Reply()))
            case _:
                await self._differences(Lines(self._caller, pipe))

    async def _read(self, pipe: HostFile) -> None:
        """As of a program that asks for so many bytes, or all."""
        caller, order = self._caller, self._order
        how = OpenHow.strict(O_RDONLY | AS_NOBODY, 0, 0)
        file = await again(open_used, caller, AT_FDCWD, order.path, how)
        try:
            if order.regular and not file.inode.is_regular:
                raise EINVAL("no regular file")
            if order.offset:
                await again(file.seek, caller, order.offset, SEEK_SET)
            left = order.size or None
            while left is None or left:
                data = await _taken(caller, file, PIECE if left is None else min(PIECE, left))
                if not data:
                    return
                left = None if left is None else left - len(data)
                await _given(caller, pipe, data)
        finally:
            file.decref()

    async def _write(self, pipe: HostFile) -> None:
        caller, order = self._caller, self._order
        flags = O_WRONLY | O_CREAT | AS_NOBODY | (O_APPEND if order.append else O_TRUNC)
        how = OpenHow.strict(flags, order.mode, 0)
        file = await again(open_used, caller, AT_FDCWD, order.path, how)
        try:
            while data := await _taken(caller, pipe, PIECE):
                await _given(caller, file, data)
            await again(file.flush, caller)
        finally:
            file.decref()

    async def _differences(self, lines: Lines) -> None:
        """Raises: EOPNOTSUPP where the root has no layer of its own."""
        from sentry.fs.overlay.differences import Change, differences  # noqa: PLC0415  few ask
        from sentry.fs.overlay.filesystem import OverlayFs  # noqa: PLC0415

        root = self._container.root
        if not isinstance(root, OverlayFs):
            raise EOPNOTSUPP("no overlay")

        async def tell(change: Change) -> None:
            await lines.add(FileChange(*msgspec.structs.astuple(change)))

        await differences(root, tell)
        await lines.flush()

    def _tell(self, reply: Reply) -> None:
        told, self._told = self._told, None
        if told is not None:
            told(reply)

    def _ended(self, reply: Any, error: BaseException | None) -> None:
        if self._pipe is not None:
            self._pipe.decref()
        if error is None:
            self._tell(reply)
        elif isinstance(error, Killed):
            self._told = None
        elif isinstance(error, Errno):
            self._tell(Reply(error=type(error).__name__))
        else:
            self._kernel.log.bug("file", error)
            self._tell(Reply(error=DEFECT))


async def _taken(caller: Caller, file: FileDescription, most: int) -> bytes:
    """What a read gives; nothing at the end."""
    dest = KernelDest(most)
    await again(file.read, caller, dest)
    return dest.data


async def _given(caller: Caller, file: FileDescription, data: bytes) -> None:
    """All of it. Raises: EIO where nothing more is taken, as by the server of a file system."""
    left = memoryview(data)
    while left:
        taken = await again(file.write, caller, KernelSource(left))
        if not taken:
            raise EIO("nothing is taken")
        left = left[taken:]
