"""What a Gofer is told. Its process may be another one than that which makes it: `early`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from runsc.filters import Switches
from runsc.launch.boot import Terms
from runsc.launch.users import Entrance
from runsc.oci.exports import Export


class GoferStart(msgspec.Struct, frozen=True):
    """What a Gofer is given: descriptors that it inherits, trees, and whom it serves."""

    sock: int
    exports: Sequence[Export]
    log_fd: int
    own_users: bool
    """It is in a user namespace of its own."""
    container_id: str
    entrance: Entrance | None = None
    """To the user namespace of the container."""
    hold: int = -1
    """With Terms.before_gofer: a socket of packets to the command line."""
    first: int = 0
    """The number of the first tree. 0 is a root."""
    told: int = -1
    """A socket to the command line, for what is wrong with a tree."""
    life: int = -1
    """Of a root that is written behind: the Sentry's way to the stand-in. It is held to the end, so
    that the container does not end before all is written."""

    def descriptors(self) -> set[int]:
        """All of these."""
        found = {self.sock, self.log_fd, self.hold, self.told, self.life}
        for export in self.exports:
            found |= {export.owners_fd, export.lock_fd}
        if self.entrance is not None:
            found.add(self.entrance.fd)
        return found - {-1}


class GoferHandover(msgspec.Struct, frozen=True):
    """What is told to one that waits (`early`)."""

    start: GoferStart
    switches: Switches
    terms: Terms
    """Without hooks."""

    def descriptors(self) -> set[int]:
        """All that come with it."""
        return self.start.descriptors() | set(self.terms.joins)
