"""Who gets a datagram, or a connection: sockets by where they are bound and connected to.

net/ipv4/udp.c; net/ipv4/inet_hashtables.c for those that listen, which alone of TCP are here.

Kept as sockets change, one at a time: thousands may have one port.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.net.inet.address import ANY4, ANY6, Endpoint

if TYPE_CHECKING:
    from sentry.net.inet.ports import Bound

Key = tuple[bytes, int, int]
"""An address, a port, and the interface that the socket is bound to, or 0."""
DUAL = b"any address of IPv6 or IPv4"


class Group:
    """Sockets that are not connected, of one address, in the order in which they came there."""

    __slots__ = ("_in_order", "socks")

    def __init__(self) -> None:
        self.socks: dict[Bound, None] = {}
        self._in_order: list[Bound] | None = None

    def add(self, sock: Bound) -> None:
        """One more."""
        self.socks[sock] = None
        self._in_order = None

    def discard(self, sock: Bound) -> None:
        """One less, if it was there."""
        self.socks.pop(sock, None)
        self._in_order = None

    @property
    def last(self) -> Bound:
        """Who came last. Preconditions: there is one."""
        return next(reversed(self.socks))

    def at(self, number: int) -> Bound:
        """One of them, the same for the same number as long as nobody comes or goes."""
        if self._in_order is None:
            self._in_order = list(self.socks)
        return self._in_order[number % len(self._in_order)]


class Places:
    """The sockets of one protocol."""

    __slots__ = ("_changing", "_connected", "_groups", "_placed")

    def __init__(self) -> None:
        self._placed: dict[Bound, tuple[tuple[Key, ...], Endpoint | None]] = {}
        self._groups: dict[Key, Group] = {}
        self._connected: dict[tuple[Key, Endpoint], dict[Bound, None]] = {}
        self._changing: Bound | None = None
        """Its addresses are being changed: it is placed when somebody asks, or the next changes."""

    def changes(self, sock: Bound) -> None:
        """It gets other addresses in this step."""
        if sock is not self._changing:
            self._settle()
            self._changing = sock

    def gone(self, sock: Bound) -> None:
        """It has no port any more."""
        if sock is self._changing:
            self._changing = None
        self._take_out(sock)

    def connected(self, target: Endpoint, source: Endpoint, index: int) -> Bound | None:
        """The one that is connected to the source: those of the exact address are first.

        `index`: the interface by which a packet came.
        """
        self._settle()
        if not self._connected:
            return None
        for key in _keys_to(target, index):
            found = self._connected.get((key, source))
            if found:
                return next(iter(found))
        return None

    def group(self, target: Endpoint, index: int) -> Group | None:
        """Those of the best address that are not connected."""
        self._settle()
        for key in _keys_to(target, index):
            found = self._groups.get(key)
            if found is not None:
                return found
        return None

    def _settle(self) -> None:
        sock, self._changing = self._changing, None
        if sock is None:
            return
        place = _keys_of(sock), sock.remote
        if self._placed.get(sock) == place:
            return
        self._take_out(sock)
        self._placed[sock] = place
        keys, remote = place
        for key in keys:
            if remote is not None:
                self._connected.setdefault((key, remote), {})[sock] = None
            else:
                self._groups.setdefault(key, Group()).add(sock)

    def _take_out(self, sock: Bound) -> None:
        keys, remote = self._placed.pop(sock, ((), None))
        for key in keys:
            if remote is not None:
                beside = self._connected[key, remote]
                beside.pop(sock, None)
                if not beside:
                    del self._connected[key, remote]
                continue
            group = self._groups[key]
            group.discard(sock)
            if not group.socks:
                del self._groups[key]


def _keys_of(sock: Bound) -> tuple[Key, ...]:
    ip, port = sock.local
    if ip == ANY6 and not sock.v6only:
        return (ip, port, sock.device), (DUAL, port, sock.device)
    return ((ip, port, sock.device),)


def _keys_to(target: Endpoint, index: int) -> list[Key]:
    """From the best on: compute_score() prefers, of one address, sockets of the interface, and
    those of IPv4 where both families have one."""
    ip, port = target
    first = [(ip, port, index), (ip, port, 0)]
    if target.is_v4:
        return [*first, (ANY4, port, index), (ANY4, port, 0), (DUAL, port, index), (DUAL, port, 0)]
    return [*first, (ANY6, port, index), (ANY6, port, 0)]
