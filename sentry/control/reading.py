"""`Reading`: a file of the container for the command line, through a pipe: `runsc read`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sentry.abi.fcntl import AT_FDCWD, O_WRONLY
from sentry.abi.limits import PATH_MAX
from sentry.control.descriptors import check, close_all
from sentry.control.outside import AS_NOBODY, beside_init
from sentry.control.protocol import DEFECT
from sentry.errors import EINVAL, Errno
from sentry.fs.host.file import donated
from sentry.mm.buffers import KernelDest, KernelSource
from sentry.vfs.open import OpenHow, open_used
from sentry.wait.again import again
from sentry.wait.fiber import Killed, Mode

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel

PIECE: Final = 1 << 16


class Reading:
    """One file, to its end or `size` bytes (0: any number). `told` hears "" then, or what failed.

    It is opened as the container's first process would open it. Raises: EINVAL, ESRCH; the
    descriptors belong to it from the start.
    """

    def __init__(
        self,
        kernel: Kernel,
        container: Container,
        fds: list[int],
        asked: tuple[bytes, int],
        told: Callable[[str], object],
    ) -> None:
        self._kernel = kernel
        self._told = told
        path, size = asked
        try:
            if len(fds) != 1 or size < 0 or b"\0" in path or not 0 < len(path) < PATH_MAX:
                raise EINVAL("a pipe, and a path")
            check(fds[0])
            self._caller = beside_init(container)
        except Errno:
            close_all(fds)
            raise
        self._target = donated(kernel.vfs, fds[0], O_WRONLY, closes=True)
        self._target.incref()
        self._fiber = kernel.loop.spawn(self._copy(*asked), "read", self._ended)

    def look(self) -> None:
        """Nothing is there at once."""

    def abandon(self) -> None:
        """The command line is gone."""
        self._fiber.interrupt(Killed(), Mode.KILLABLE)

    async def _copy(self, path: bytes, size: int) -> None:
        caller = self._caller
        how = OpenHow.strict(AS_NOBODY, 0, 0)
        file = await again(open_used, caller, AT_FDCWD, path, how)
        try:
            done = 0
            while not size or done < size:
                dest = KernelDest(min(PIECE, size - done) if size else PIECE)
                await again(file.read, caller, dest)
                if not dest.data:
                    return
                done += len(dest.data)
                source = KernelSource(dest.data)
                while source.count:
                    await again(self._target.write, caller, source)
        finally:
            file.decref()

    def _ended(self, _: object, error: BaseException | None) -> None:
        self._target.decref()
        if error is None or isinstance(error, Killed):
            self._told("")
        elif isinstance(error, Errno):
            self._told(type(error).__name__)
        else:
            self._kernel.log.bug("read", error)
            self._told(DEFECT)
