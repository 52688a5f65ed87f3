"""A file of /proc whose text a process of the sandbox's owner makes, each time that it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gofer.p9.extensions import Rgetxattrx, Tgetxattrx, Tsetxattrx
from sentry.abi.stat import S_IFDIR, S_IFREG
from sentry.errors import EEXIST, ENOTDIR
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


class ServedTexts:
    """Those of a sandbox, by path below /proc: `kernel.services.proc_files`."""

    def __init__(self) -> None:
        self._files: dict[bytes, ServedText] = {}

    def names(self, folder: bytes = b"") -> dict[bytes, int]:
        """For a listing: names, and what they are (S_IFMT bits)."""
        above = folder + b"/" if folder else b""
        found = {}
        for path in self._files:
            if path.startswith(above):
                name, deeper, _ = path[len(above) :].partition(b"/")
                found[name] = S_IFDIR if deeper else S_IFREG
        return found

    def find(self, path: bytes) -> ServedText | None:
        """If there is one."""
        return self._files.get(path)

    def has_folder(self, path: bytes) -> bool:
        """Some are below it."""
        return any(each.startswith(path + b"/") for each in self._files)

    def check_new(self, path: bytes) -> None:
        """Raises: EEXIST; ENOTDIR if one of them is in the way."""
        if path in self._files or self.has_folder(path):
            raise EEXIST("there is such a file")
        if any(path.startswith(each + b"/") for each in self._files):
            raise ENOTDIR("below a file")

    def add(self, path: bytes, session: ServedSession, text: ServedText) -> None:
        """As long as the session lives. Raises: EEXIST, ENOTDIR."""
        self.check_new(path)
        self._files[path] = text
        session.on_end.append(lambda: self._files.pop(path, None))


async def attached(session: ServedSession, mode: int) -> ServedText:
    """The file of a session. Raises: EPROTO, EIO, what the server says."""
    await arrival.negotiate(session)
    fid = (await arrival.attach(session, ATTACHMENT, ours=False, behind=False)).fid
    return ServedText(session, fid, mode)
