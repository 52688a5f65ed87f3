"""A receive into a buffer of which the end cannot be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.errors import EFAULT

if TYPE_CHECKING:
    from sentry.vfs.file import Dest


class ShortDest:
    """A `Dest` that takes a piece whole or not at all, as skb_copy_datagram_iter() does."""

    __slots__ = ("_good", "count", "wanted")

    def __init__(self, good: Dest) -> None:
        self._good = good
        self.count = self.wanted = good.wanted

    def put(self, data: bytes | bytearray | memoryview) -> int:
        """Append a piece. Raises: EFAULT, and nothing is put."""
        if len(data) > self._good.count:
            raise EFAULT("the end of the buffer")
        self.count -= len(data)
        return self._good.put(data)

    def zero(self, n: int) -> int:
        """Append zeros."""
        return self.put(bytes(n))

    def skip(self, n: int) -> None:
        """Pass over bytes."""
        self.count -= n
        self._good.skip(n)

    def from_host(self, fd: int, offset: int | None, flags: int = 0) -> int:
        """What comes from the host is not put back: it goes to what there is of the buffer."""
        return self._good.from_host(fd, offset, flags)
