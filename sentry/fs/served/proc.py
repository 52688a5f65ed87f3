"""A file of /proc whose text a process of the sandbox's owner makes, each time that it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gofer.p9.extensions import Rgetxattrx, Tgetxattrx, Tsetxattrx
from sentry.fs.gofer import arrival
from sentry.fs.gofer.session import expect
from sentry.wait.fiber import Mode

if TYPE_CHECKING:
    from sentry.fs.served.session import ServedSession

ATTACHMENT: Final = b"proc"
TEXT: Final = b"text"


class ServedText:
    """One file."""

    def __init__(self, session: ServedSession, root: int, mode: int) -> None:
        self._session = session
        self._root = root
        self.mode = mode

    def show(self, _caller: Any) -> bytes:
        """All of it. Raises: NotNow, what the server says, EIO once it is gone."""
        request = Tgetxattrx(self._root, b"", TEXT)
        reply = self._session.reply((self, Tgetxattrx), request, mode=Mode.KILLABLE, slow=True)
        return expect(reply, Rgetxattrx).data

    def store(self, _caller: Any, data: bytes) -> None:
        """Somebody has written that. Raises: as `show`."""
        request = Tsetxattrx(self._root, b"", TEXT, 0, data)
        self._session.reply((self, Tsetxattrx), request, mode=Mode.KILLABLE, slow=True)


async def attached(session: ServedSession, mode: int) -> ServedText:
    """The file of a session. Raises: EPROTO, EIO, what the server says."""
    await arrival.negotiate(session)
    fid = (await arrival.attach(session, ATTACHMENT, ours=False, behind=False)).fid
    return ServedText(session, fid, mode)
