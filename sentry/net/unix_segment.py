"""What travels between AF_UNIX sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.net.message import Ancillary

if TYPE_CHECKING:
    from sentry.net.unix import UnixSocket

OVERHEAD: Final = 767
"""What a segment costs beside its bytes (struct sk_buff)."""
OVERFLOW_ID: Final = 65534

Ucred = tuple[int, int, int]


class Segment:
    """Bytes in flight with what belongs to them."""

    __slots__ = ("ancillary", "charge", "creds", "data", "sender", "stamp_ns", "urgent")

    def __init__(
        self, data: bytes, sender: UnixSocket, creds: Ucred | None, ancillary: Ancillary | None
    ) -> None:
        self.data = data
        self.sender = sender
        self.creds = creds
        """Of the sender; None where neither end wanted to know."""
        self.ancillary = ancillary
        self.charge = len(data) + OVERHEAD
        self.stamp_ns = 0
        """When it came, where the receiver wants to know (CLOCK_REALTIME)."""
        self.urgent = False
        """One byte of out-of-band data."""

    @property
    def files(self) -> list[Any]:
        """The descriptors that it carries."""
        return self.ancillary.files if self.ancillary is not None else []
