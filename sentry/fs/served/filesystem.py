"""`ServedFileSystem`: a tree that a process of the sandbox's owner serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentry.fs.gofer import arrival
from sentry.fs.gofer.filesystem import GoferFileSystem, Options
from sentry.fs.gofer.handles import HandleCache

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sentry.fs.served.session import ServedSession
    from sentry.vfs.vfs import Vfs

ATTACHMENT = b"fs"


class ServedFileSystem(GoferFileSystem):
    """Shared, without descriptors; the session ends with it."""

    name = "served"
    _left = 0
    """What files that are closed have left to do; the session ends after it."""
    _is_down = False

    def show_options(self) -> str:
        return ""

    def after_close(self, work: Coroutine[Any, Any, object]) -> None:
        self._left += 1
        super().after_close(self._counted(work))

    async def _counted(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        finally:
            self._left -= 1
            self._end()

    def shutdown(self) -> None:
        super().shutdown()
        self._is_down = True
        self._end()

    def _end(self) -> None:
        if self._is_down and not self._left:
            self.session.close()


async def attached(vfs: Vfs, session: ServedSession, *, read_only: bool) -> ServedFileSystem:
    """The tree of a session. Raises: EPROTO, EIO, what the server says."""
    await arrival.negotiate(session)
    found = await arrival.attach(session, ATTACHMENT, ours=False, behind=False)
    options = Options(exclusive=False, read_only=read_only, handles=HandleCache(0))
    fs = ServedFileSystem(vfs.new_dev(), session, ATTACHMENT, options, vfs.now_ns, found)
    fs.vfs = vfs
    session.is_mounted = True
    return fs
