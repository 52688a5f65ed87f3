"""`GoferSocket`: a Unix socket of the host. Which may be connected to, the Gofer decides."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from gofer.p9.extensions import Tconnectx
from sentry.fs.gofer.inode import GoferInode
from sentry.fs.gofer.session import Asked
from sentry.wait.again import kept

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials

MAX_GROUPS = 1024
"""So many of them go along."""


class GoferSocket(GoferInode):
    """Has no data of its own."""

    __slots__ = ()

    is_service = True

    def connect(self, kind: int, creds: Credentials) -> int:
        """A descriptor of a connected socket, which does not block.

        Raises: ECONNREFUSED, EAGAIN (its backlog is full), EACCES, EPROTOTYPE.
        """
        session = self.fs.session
        asked: Asked | None = kept((self, Tconnectx))
        if asked is None:
            groups = creds.groups[:MAX_GROUPS]
            packed = struct.pack(f"<{len(groups)}I", *groups)
            request = Tconnectx(*self.reach(), kind, creds.euid, creds.egid, packed)
            asked = Asked(session.send(request))
        session.complete(asked, (self, Tconnectx))
        asked.pending.result()
        return asked.pending.take_fd()
