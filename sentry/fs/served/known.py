"""What is served to a sandbox, and by whom: mostly nothing, and then the rest is not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.abi.stat import S_IFDIR, S_IFREG
from sentry.errors import EBUSY, EEXIST, ENOTDIR

if TYPE_CHECKING:
    from sentry.fs.served.proc import ServedText
    from sentry.fs.served.session import ServedSession

MAX_SESSIONS: Final = 256


class Served:
    """All sessions of a sandbox: `kernel.services.served`."""

    def __init__(self) -> None:
        self._sessions: set[ServedSession] = set()

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def are_mounted(self) -> bool:
        """One of them serves a file system."""
        return any(session.is_mounted for session in self._sessions)

    def add(self, session: ServedSession) -> None:
        """One more. Raises: EBUSY."""
        if len(self._sessions) >= MAX_SESSIONS:
            raise EBUSY("too many objects are served")
        self._sessions.add(session)
        session.on_end.append(lambda: self._sessions.discard(session))

    def leave(self) -> None:
        """In a forked sandbox: they are its parent's."""
        for session in list(self._sessions):
            session.close()


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
