"""Who has which port: bind(2) conflicts, SO_REUSEADDR, SO_REUSEPORT, ephemeral ports."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Protocol

from msgspec import Struct

from sentry.abi.socket import AF_INET6, SO_REUSEADDR, SO_REUSEPORT
from sentry.errors import EADDRINUSE, EADDRNOTAVAIL
from sentry.net.inet.address import ANY4, ANY6, Endpoint
from sentry.net.inet.receivers import Places
from sentry.net.inet.time_wait import TimeWait


class Holder(Protocol):
    """Who has a port."""

    family: int
    local: Endpoint
    options: set[int]
    v6only: bool
    shares_port: bool
    """connect(2) found the port: others may connect from it to other places."""

    @property
    def owner_uid(self) -> int: ...

    @property
    def remote(self) -> Endpoint | None: ...

    @property
    def listening(self) -> bool: ...


class Bound(Holder, Protocol):
    """A socket that has a port."""

    @property
    def port_range(self) -> tuple[int, int]: ...

    @property
    def reserved_ports(self) -> bytes: ...

    @property
    def device(self) -> int: ...


class Shared(Struct, frozen=True):
    """How SO_REUSEPORT goes on at a port of streams, as who bound last says: inet_bind_bucket."""

    uid: int
    local: Endpoint
    v6only: bool
    strict: bool
    """Others have the port too: who has another address is compared with all of them."""

    def takes(self, uid: int, wanted: Endpoint) -> bool:
        """Who needs no comparison: sk_reuseport_match()."""
        if uid != self.uid:
            return False
        if not self.strict or wanted.ip == self.local.ip:
            return True
        if self.local.ip == ANY4:
            return wanted.is_v4
        return self.local.ip == ANY6 and not (wanted.is_v4 and self.v6only)


class Ports:
    """The ports of one protocol."""

    def __init__(self) -> None:
        self._bound: dict[int, dict[Bound, None]] = {}
        """Who has asked for a port; empty where only connections are left of a listener."""
        self._adopted: dict[int, dict[Bound, None]] = {}
        self._shared: dict[int, Shared] = {}
        self._strict: dict[int, dict[Bound, None] | None] = {}
        """Datagram sockets at a port without SO_REUSEADDR; None where one has lost it since."""
        self.places = Places()
        """Who gets datagrams, and new connections."""
        self.ended = TimeWait()
        """Connections without a socket that still have their port."""

    def changed(self, sock: Bound) -> None:
        """A datagram socket that has a port is bound or connected to something else; a socket
        begins to listen, elsewhere perhaps."""
        self.places.changes(sock)

    def __len__(self) -> int:
        return sum(1 for _ in self.everybody())

    def claim(self, sock: Bound, wanted: Endpoint, *, stream: bool) -> Endpoint:
        """Give the socket a port, a free one for port 0. Raises: EADDRINUSE."""
        port = wanted.port or self._free_port(sock, wanted, stream)
        endpoint = Endpoint(wanted.ip, port)
        compared = wanted.port and not (stream and self._goes_on(sock, endpoint))
        if compared and self._conflict(sock, endpoint, stream):
            raise EADDRINUSE(f"port {port}")
        if stream:
            self._note(sock, endpoint)
        elif SO_REUSEADDR not in sock.options:
            strict = self._strict.setdefault(port, {})
            if strict is not None:
                strict[sock] = None
        self._bound.setdefault(port, {})[sock] = None
        if not stream:
            self.changed(sock)
        return endpoint

    def _goes_on(self, sock: Bound, endpoint: Endpoint) -> bool:
        shared = self._shared.get(endpoint.port)
        if shared is None or SO_REUSEPORT not in sock.options:
            return False
        return shared.takes(sock.owner_uid, endpoint)

    def _note(self, sock: Bound, endpoint: Endpoint) -> None:
        """inet_csk_update_fastreuse()."""
        port = endpoint.port
        if SO_REUSEPORT not in sock.options:
            self._shared.pop(port, None)
        elif not self._goes_on(sock, endpoint):
            strict = port in self._bound
            self._shared[port] = Shared(sock.owner_uid, endpoint, sock.v6only, strict)

    def claim_to_connect(self, sock: Bound, target: Endpoint) -> Endpoint:
        """A port from which nobody is connected to `target`, and not its own while there are
        others: who connects until somebody listens there must not meet itself. On Linux that is so
        for ports that bind(2) has found, which have another parity: __inet_hash_connect(). Raises:
        EADDRNOTAVAIL."""
        port = self._unused(sock, target.port)
        if port is None:
            port = next((p for p in _allowed(sock) if self._is_shared(p, target)), None)
        if port is None:
            raise EADDRNOTAVAIL("no free port")
        self._bound.setdefault(port, {})[sock] = None
        sock.shares_port = True
        return Endpoint(sock.local.ip, port)

    def _is_shared(self, port: int, target: Endpoint) -> bool:
        """__inet_hash_connect(): only ports that others got by connecting, too."""
        live = all(one.shares_port and one.remote not in (None, target) for one in self.at(port))
        return live and all(
            one.shares_port and (one.remote != target or not one.holds_way)
            for one in self.ended.at(port)
        )

    def adopt(self, sock: Bound) -> None:
        """An accepted socket shares the port of its listener."""
        port = sock.local.port
        self._bound.setdefault(port, {})
        self._adopted.setdefault(port, {})[sock] = None

    def release(self, sock: Bound) -> None:
        """The socket has no port any more."""
        port = sock.local.port
        holders, adopted = self._bound.get(port, {}), self._adopted.get(port, {})
        holders.pop(sock, None)
        adopted.pop(sock, None)
        self.places.gone(sock)
        if strict := self._strict.get(port):
            strict.pop(sock, None)
        if not adopted:
            self._adopted.pop(port, None)
            if not holders and self._bound.pop(port, None) is not None:
                self._shared.pop(port, None)
                self._strict.pop(port, None)

    def sharing_changed(self, sock: Bound) -> None:
        """SO_REUSEADDR of a socket that has a port."""
        strict = self._strict.get(sock.local.port)
        if SO_REUSEADDR not in sock.options:
            self._strict[sock.local.port] = None
        elif strict:
            strict.pop(sock, None)

    def check_listen(self, sock: Bound) -> None:
        """Two listeners on one address need SO_REUSEPORT. Raises: EADDRINUSE."""
        adopted = self._adopted.get(sock.local.port, {})
        if sock in adopted:
            del adopted[sock]
            self._bound[sock.local.port][sock] = None
        for other in self._bound.get(sock.local.port, ()):
            both = SO_REUSEPORT in sock.options and SO_REUSEPORT in other.options
            if (
                other is not sock
                and other.listening
                and not both
                and overlap(sock, sock.local, other)
            ):
                raise EADDRINUSE(f"port {sock.local.port}")
        self._note(sock, sock.local)

    def _free_port(self, sock: Bound, wanted: Endpoint, stream: bool) -> int:
        unused = self._unused(sock)
        if unused is not None:
            return unused
        for port in _allowed(sock):
            endpoint = Endpoint(wanted.ip, port)
            if stream and next(met(sock, endpoint, self._all_at(port)), None) is not None:
                continue  # SO_REUSEADDR helps only who asks for a port
            if not self._conflict(sock, endpoint, stream):
                return port
        raise EADDRINUSE("no free port")

    def _unused(self, sock: Bound, target: int = 0) -> int | None:
        """A port that nobody has in any way, nor `target`, the first one after one that nobody
        foresees."""
        (low, high), reserved = sock.port_range, sock.reserved_ports
        first = low + int.from_bytes(os.urandom(4)) % (high - low + 1)
        for port in chain(range(first, high + 1), range(low, first)):
            is_taken = port in self._bound or port == target or (reserved and reserved[port])
            if not is_taken and not self.ended.at(port):
                return port
        return None

    def _all_at(self, port: int) -> list[Holder]:
        """Also connections without a socket."""
        return [*self.at(port), *self.ended.at(port)]

    def _conflict(self, sock: Bound, endpoint: Endpoint, stream: bool) -> bool:
        """Of datagrams the first one that shares the port decides."""
        strict = self._strict.get(endpoint.port, {})
        if strict is not None and not stream and SO_REUSEADDR in sock.options:
            others: list[Holder] = [*strict]  # who has it too never stands in the way
        else:
            others = self._all_at(endpoint.port)
        for other in met(sock, endpoint, others if stream else in_table_order(others)):
            shares = both_have(SO_REUSEPORT, sock, other) and sock.owner_uid == other.owner_uid
            if both_have(SO_REUSEADDR, sock, other) and not (stream and other.listening):
                continue
            if shares and not stream:
                return False
            if not shares:
                return True
        return False

    def at(self, port: int) -> list[Bound]:
        """Everybody at a port."""
        return [*self._bound.get(port, ()), *self._adopted.get(port, ())]

    def everybody(self) -> Iterator[Bound]:
        """All that have a port."""
        for port in list(self._bound):
            yield from self.at(port)


def _allowed(sock: Bound) -> Iterator[int]:
    """Ports that may be found."""
    (low, high), reserved = sock.port_range, sock.reserved_ports
    return (port for port in range(low, high + 1) if not (reserved and reserved[port]))


def in_table_order(socks: list[Holder]) -> Iterator[Holder]:
    """Who came last is first; those of IPv6 with SO_REUSEPORT are last: sk_add_node_rcu()."""


    def is_last(one: Holder) -> bool:
        return one.family == AF_INET6 and SO_REUSEPORT in one.options

    yield from (one for one in reversed(socks) if not is_last(one))
    yield from filter(is_last, socks)


def met(sock: Holder, endpoint: Endpoint, others: Iterable[Holder]) -> Iterator[Holder]:
    """Who of them would get the same packets."""
    for other in others:
        if other is not sock and overlap(sock, endpoint, other):
            yield other


def both_have(option: int, a: Holder, b: Holder) -> bool:
    """An option that counts only if both sockets have it."""
    return option in a.options and option in b.options


def overlap(sock: Holder, endpoint: Endpoint, other: Holder) -> bool:
    """Whether two bindings of one port would get the same packets: ipv6_rcv_saddr_equal()."""
    a, b = endpoint, other.local
    if a.ip == b.ip:
        return True
    if a.is_v4 and b.is_v4:
        return ANY4 in (a.ip, b.ip)
    if not a.is_v4 and not b.is_v4:
        return ANY6 in (a.ip, b.ip)
    six, v6only = (b, other.v6only) if a.is_v4 else (a, sock.v6only)
    return six.ip == ANY6 and not v6only
