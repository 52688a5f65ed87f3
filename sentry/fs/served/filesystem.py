"""`ServedFileSystem`: a tree that a process of the sandbox's owner serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.fs.gofer import arrival
from sentry.fs.gofer.filesystem import GoferFileSystem, Options
from sentry.fs.gofer.handles import HandleCache

if TYPE_CHECKING:
    from sentry.fs.served.session import ServedSession
    from sentry.vfs.vfs import Vfs

ATTACHMENT = b"fs"


class ServedFileSystem(GoferFileSystem):
    """Shared, without descriptors; the session ends with it."""

    name = "served"

    def show_options(self) -> str:
        return ""

    def shutdown(self) -> None:
        super().shutdown()
        self.session.close()


async def attached(vfs: Vfs, session: ServedSession, *, read_only: bool) -> ServedFileSystem:
    """The tree of a session. Raises: EPROTO, EIO, what the server says."""
    await arrival.negotiate(session)
    found = await arrival.attach(session, ATTACHMENT, ours=False, behind=False)
    options = Options(exclusive=False, read_only=read_only, handles=HandleCache(0))
    return ServedFileSystem(vfs.new_dev(), session, ATTACHMENT, options, vfs.now_ns, found)
