"""`GoferSocket`: a Unix socket of the host. Only one that is a mount itself is connected to."""

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

    def is_served(self) -> None:
        """It is the root of a mount: a service outside may listen there."""
        self.bound = self

    def connect(self, kind: int, creds: Credentials) -> int:
        """A descriptor of a connected socket, which does not block.

        Raises: ECONNREFUSED, EAGAIN (its backlog is full), EACCES, EPROTOTYPE.
        """
        session = self.fs.session
        asked: Asked | None = kept((self, Tconnectx))
        if asked is None:
            groups = creds.groups[:MAX_GROUPS]
            packed = struct.pack(f"<{len(groups)}I", *groups)
            asked = Asked(session.send(Tconnectx(self.fid, kind, creds.euid, creds.egid, packed)))
        session.complete(asked, (self, Tconnectx))
        asked.pending.result()
        return asked.pending.take_fd()
