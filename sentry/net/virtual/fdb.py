"""`Fdb`: behind which port of a bridge somebody is. net/bridge/br_fdb.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sentry.net.virtual.port import Port

AGEING_NS: Final = 300_000_000_000
MAX_KNOWN: Final = 4096
"""A ceiling of ours: who was heard of longest ago is forgotten first."""


class Fdb:
    """Of one bridge, by hardware address."""

    def __init__(self) -> None:
        self.ageing_ns = AGEING_NS
        self._known: dict[bytes, tuple[Port, int]] = {}
        """The port, and when a frame came from there; who was heard of last is last."""

    def learn(self, hardware: bytes, port: Port, now_ns: int) -> None:
        """A frame came from there."""
        self._known.pop(hardware, None)
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[hardware] = port, now_ns

    def find(self, hardware: bytes, now_ns: int) -> Port | None:
        """The port; None: nobody knows."""
        known = self._known.get(hardware)
        if known is None:
            return None
        port, heard_ns = known
        if now_ns - heard_ns >= self.ageing_ns:
            del self._known[hardware]
            return None
        return port

    def forget(self, port: Port) -> None:
        """Nobody is behind it any more."""
        self._known = {ip: known for ip, known in self._known.items() if known[0] is not port}
