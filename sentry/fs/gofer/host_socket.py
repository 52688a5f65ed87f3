"""`GoferSocket`: a Unix socket of the host. What may be connected to, or made, the Gofer says."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, ClassVar

from gofer.p9.extensions import Tconnectx, Tlistenx
from sentry.fs.gofer.inode import GoferInode
from sentry.fs.gofer.known import Key
from sentry.fs.gofer.session import Asked
from sentry.wait.again import kept

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials
    from sentry.fs.gofer.attachment import Attachment
    from sentry.fs.gofer.session import Session
    from sentry.vfs.interface import Attributes

MAX_GROUPS = 1024
"""So many of them go along."""


class Served:
    """The host's part of a name that a program has bound a socket to: a bound socket, too."""

    __slots__ = ("_fid", "_session", "fd")

    def __init__(self, session: Session, fid: int, fd: int) -> None:
        self._session = session
        self._fid = fid
        self.fd = fd
        """It does not block. -1: it was lost on the way, or is closed."""

    def listen(self, backlog: int, creds: Credentials) -> None:
        """listen(2), as this user. Raises: what the host says."""
        request = Tlistenx(self._fid, backlog, creds.euid, creds.egid, _packed(creds))
        self._session.reply((self, Tlistenx), request)

    def close(self) -> None:
        """Both sides close it. Once more: nothing."""
        if self._fid >= 0:
            self._session.clunk(self._fid)
            self._fid = -1
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()


class GoferSocket(GoferInode):
    """Has no data of its own."""

    __slots__ = ("served",)

    is_service: ClassVar = True

    def __init__(self, fs: Attachment, key: Key, attributes: Attributes) -> None:
        super().__init__(fs, key, attributes)
        self.served: Served | None = None

    def take_served(self) -> Served | None:
        served, self.served = self.served, None
        return served

    def connect(self, kind: int, creds: Credentials) -> int:
        """A descriptor of a connected socket, which does not block.

        Raises: ECONNREFUSED, EAGAIN (its backlog is full), EACCES, EPROTOTYPE.
        """
        session = self.sb.session
        asked: Asked | None = kept((self, Tconnectx))
        if asked is None:
            request = Tconnectx(*self.reach(), kind, creds.euid, creds.egid, _packed(creds))
            asked = Asked(session.send(request))
        session.complete(asked, (self, Tconnectx))
        asked.pending.result()
        return asked.pending.take_fd()


def _packed(creds: Credentials) -> bytes:
    groups = creds.groups[:MAX_GROUPS]
    return struct.pack(f"<{len(groups)}I", *groups)
