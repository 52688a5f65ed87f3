"""`Checkpointing`: a container becomes records and pages in two files of the command line.

All its tasks stand still from the first record to the last page, and then until the connection
ends: so whoever asked can end the container as it was written, or let it go on. Those of other
containers of the sandbox stand until the last page.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from sentry.control import decisions
from sentry.control.answers import Made
from sentry.control.descriptors import close_all
from sentry.control.protocol import DEFECT, Reply
from sentry.control.syncing import settle
from sentry.errors import EINVAL, Errno
from sentry.kernel.standing import Standing
from sentry.state.pages import MAX_LAYERS, PIECE_PAGES, Remembered
from sentry.state.saver import refused
from sentry.state.saving import Saving
from sentry.wait.fiber import Killed, Mode
from sentry.wait.steps import Pace

if TYPE_CHECKING:
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel

PIECE: Final = 1 << 20
MAX_OBJECTS: Final = 1 << 28
"""Bytes of records that are read again: runsc.containers.snapshots."""


class Checkpointing:
    """One snapshot, which may build on the one that is called `parent`. `told` hears how it went.

    Raises: EBUSY, EINVAL; the descriptors belong to it from the start.
    """

    def __init__(
        self,
        kernel: Kernel,
        container: Container,
        fds: list[int],
        parent: str,
        told: Callable[[Reply], object],
    ) -> None:
        self._kernel = kernel
        self._container = container
        self._fds = fds
        self._told = told
        try:
            if len(fds) != 2 or not all(stat.S_ISREG(os.fstat(fd).st_mode) for fd in fds):
                raise EINVAL("two files")
            if kernel.services.served.are_mounted:  # whose calls may not end for long
                refused("a mount that is served from outside")
            self._builds = bool(parent)
            _check(kernel, parent)
            self._standing: Standing | None = Standing(kernel, container)
        except Errno:
            close_all(fds)
            raise
        self._over = False
        self._fiber = kernel.loop.spawn(self._write(self._standing), "checkpoint", self._ended)

    def look(self) -> None:
        """Nothing is there at once."""

    def abandon(self) -> None:
        """The command line is gone: the tasks go on, if they still live."""
        if self._over:
            self._go_on()
        else:
            self._fiber.interrupt(Killed(), Mode.KILLABLE)

    def _go_on(self) -> None:
        standing, self._standing = self._standing, None
        if standing is not None:
            standing.end()

    async def _write(self, standing: Standing) -> Made:
        await standing.begin()
        await settle(self._container)
        objects, pages = self._fds
        async with self._kernel.vfs.budget.lock:  # which mounts there are
            saving = Saving(self._kernel, self._container, builds=self._builds)
            try:
                data = memoryview(msgspec.json.encode(await saving.described()))
            except Exception:  # perhaps for what was there no more
                standing.check_stands()
                raise
            standing.check_others()
        if len(data) > MAX_OBJECTS:
            refused(f"{len(data) >> 20} MiB of objects")
        pace = Pace()
        for start in range(0, len(data), PIECE):
            at, end = start, min(start + PIECE, len(data))
            while at < end:
                at += os.pwritev(objects, [data[at:end]], at)
            await pace.rest()
        written = await saving.saver.pages.write(pages)
        standing.check_stands()
        standing.let_others_go()
        self._kernel.remembered = kept = saving.saver.pages.remembered()
        return Made(
            self._kernel.platform.name, len(data), zlib.crc32(data), kept.name,
            saving.saver.pages.pages, written.own, written.origins, PIECE_PAGES,
            written.checks, decisions.of(self._kernel),
        )  # fmt: skip

    def _ended(self, made: Made | None, error: BaseException | None) -> None:
        self._over = True
        close_all(self._fds)
        if error is None:
            self._told(Reply(snapshot=made))
            return
        self._go_on()
        if isinstance(error, Errno):
            self._told(Reply(error=error.why()))
        elif isinstance(error, OSError):
            self._told(Reply(error=f"cannot write: {(error.strerror or '').lower()}"))
        elif not isinstance(error, Killed):
            self._kernel.log.bug("checkpoint", error)
            self._told(Reply(error=DEFECT))


def _check(kernel: Kernel, parent: str) -> None:
    """Raises: EINVAL."""
    found: Remembered | None = kernel.remembered
    if not parent:
        return
    if found is None or found.name != parent:
        raise EINVAL("cannot checkpoint: the parent is not the last snapshot of this sandbox")
    if found.layers >= MAX_LAYERS:
        raise EINVAL(f"cannot checkpoint: the parent builds on {MAX_LAYERS - 1} others")
