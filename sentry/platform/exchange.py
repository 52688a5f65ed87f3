"""A request and its reply by one call of C (native/exchange.h)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sentry.platform._native import ffi, lib
from sentry.platform.host_io import INTO, received

CREATION: Final = lib.exchange_creation
"""Tcreatex: fid of the directory, name and its length, flags, mode, uid, gid."""
REMOVAL: Final = lib.exchange_removal
"""Tunlinkat: fid of the directory, name and its length, flags."""
TAG: Final = int(lib.EXCHANGE_TAG)
"""Of such requests."""
OTHER: Final = int(lib.EXCHANGE_OTHER)
UNSENT: Final = int(lib.EXCHANGE_UNSENT)


class Exchange:
    """The last one of a session."""

    __slots__ = ("_block", "_exchange")

    def __init__(self) -> None:
        self._exchange = ffi.new("struct exchange *")
        self._block = ffi.buffer(self._exchange.block)

    def make(
        self, kind: Callable[..., int], fd: int, patience_ms: int, fields: tuple[Any, ...]
    ) -> int:
        """0, or the errno that the reply says. OTHER: no such reply has come, see `came`. UNSENT:
        nothing was sent."""
        x = self._exchange
        return kind(x, fd, patience_ms, *INTO, *fields)

    @property
    def fd(self) -> int:
        """The descriptor that came with a reply of 0, or -1."""
        return self._exchange.fd

    @property
    def cpu(self) -> int:
        """Where this thread has waited for it."""
        return self._exchange.cpu

    @property
    def missing(self) -> int:
        """How many bytes of the request are still to be sent, the last ones."""
        return self._exchange.missing

    def block(self) -> bytes:
        """The attributes of what was made."""
        return self._block[:]

    def came(self) -> tuple[bytes, Sequence[int]]:
        """What has come instead, as `receive` gives and raises it."""
        return received(self._exchange.came)
