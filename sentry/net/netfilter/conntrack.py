"""Connections that are followed: net/netfilter/nf_conntrack_core.c and its protocols.

One is found by the tuple of either direction. It is in the table from the moment when its first
packet has got through all hooks (`confirm`); nobody waits for it to run out: it is looked at when
it is found, and a few are with each new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from sentry.abi.nftables import (
    IP_CT_ESTABLISHED,
    IP_CT_IS_REPLY,
    IP_CT_NEW,
    IP_CT_RELATED,
    IPS_ASSURED,
    IPS_CONFIRMED,
    IPS_DYING,
    IPS_SEEN_REPLY,
    NFNLGRP_CONNTRACK_DESTROY,
    NFNLGRP_CONNTRACK_NEW,
    NFNLGRP_CONNTRACK_UPDATE,
)
from sentry.abi.socket import (
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
)
from sentry.net.netfilter import tcp_states
from sentry.net.netfilter.tuples import ASKS, is_icmp, tuple_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sentry.net.netfilter.packet import Packet
    from sentry.net.netfilter.tuples import Tuple

SECOND_NS: Final = 1_000_000_000
MAX_CONNECTIONS: Final = 16384
"""net.netfilter.nf_conntrack_max; it can be less, not more."""
LOOKED_AT: Final = 8
"""Connections that a new one looks at, whether they are over: NF_CT_EVICTION_RANGE."""
DEFAULTS: Final = {
    "nf_conntrack_acct": 0,
    "nf_conntrack_generic_timeout": 600, "nf_conntrack_icmp_timeout": 30,
    "nf_conntrack_icmpv6_timeout": 30, "nf_conntrack_max": MAX_CONNECTIONS,
    "nf_conntrack_tcp_loose": 1, "nf_conntrack_tcp_timeout_close": 10,
    "nf_conntrack_tcp_timeout_close_wait": 60, "nf_conntrack_tcp_timeout_established": 432000,
    "nf_conntrack_tcp_timeout_fin_wait": 120, "nf_conntrack_tcp_timeout_last_ack": 30,
    "nf_conntrack_tcp_timeout_syn_recv": 60, "nf_conntrack_tcp_timeout_syn_sent": 120,
    "nf_conntrack_tcp_timeout_time_wait": 120, "nf_conntrack_udp_timeout": 30,
    "nf_conntrack_udp_timeout_stream": 120,
}  # fmt: skip
"""Of net.netfilter, in seconds, as sentry.fs.proc.sysctl_net has them."""
FLAGS_AT: Final = 13
TCP_LEAST: Final = 20
NEIGHBOURS: Final = frozenset({130, 131, 132, 133, 134, 135, 136, 137, 143})
"""Types of ICMPv6 that are about a link, and of no connection."""


Hears = Callable[[int, int, "Connection"], None]
"""(time, NFNLGRP_CONNTRACK_*, connection)."""


class Connection:
    """struct nf_conn."""

    __slots__ = (
        "expires_ns", "mark", "moved", "number", "original", "reply", "state", "status", "told",
    )  # fmt: skip

    def __init__(self, original: Tuple, number: int) -> None:
        self.original = original
        self.reply = original.inverted
        self.number = number
        self.status = 0
        """IPS_*."""
        self.mark = 0
        self.state = tcp_states.NONE
        self.expires_ns = 0
        self.moved = [[0, 0], [0, 0]]
        """Packets and bytes of either direction."""
        self.told = self.shown
        """What those know who listen."""

    @property
    def shown(self) -> tuple[int, int, int]:
        """What is told when it changes."""
        return self.state, self.status & (IPS_SEEN_REPLY | IPS_ASSURED), self.mark

    def tuple_in(self, *, is_reply: bool) -> Tuple:
        """Of a direction."""
        return self.reply if is_reply else self.original

    @property
    def is_confirmed(self) -> bool:
        """It is in the table."""
        return bool(self.status & IPS_CONFIRMED)


class Conntrack:
    """The table of a network namespace."""

    def __init__(self, sysctls: Mapping[str, str]) -> None:
        self._sysctls = sysctls
        self._found: dict[Tuple, tuple[Connection, bool]] = {}
        """By tuple: whose it is, and whether of the reply."""
        self.connections: dict[int, Connection] = {}
        """By number, which is also their age."""
        self._number = 0
        self._looks: Iterator[int] = iter(())
        self.dropped = 0
        """New connections for which there was no room."""
        self.hears: Hears | None = None
        """Who is told of each that is new, changes, or is over: see `listen`."""
        self.changed_by = 0
        """The port of the netlink socket that makes, changes or ends one now; or nobody does."""

    @property
    def tells_counters(self) -> bool:
        """Programs hear how much has moved: net.netfilter.nf_conntrack_acct."""
        return bool(self.setting("nf_conntrack_acct"))

    def setting(self, name: str) -> int:
        """A value of net.netfilter."""
        written = self._sysctls.get(f"net/netfilter/{name}")
        return DEFAULTS[name] if written is None else int(written)

    # --- the table

    def find(self, now_ns: int, wanted: Tuple) -> tuple[Connection, bool] | None:
        """Whose tuple it is, and whether of the reply."""
        found = self._found.get(wanted)
        if found is not None and found[0].expires_ns <= now_ns:
            self.forget(now_ns, found[0])
            return None
        return found

    def listen(self, hears: Hears) -> None:
        """Tell somebody of what happens from now on."""
        if self.hears is None:
            for one in self.connections.values():
                one.told = one.shown
        self.hears = hears

    def note(self, now_ns: int, connection: Connection) -> None:
        """It may be another than those know who listen."""
        if self.hears is not None and (self.changed_by or connection.told != connection.shown):
            connection.told = connection.shown
            self.hears(now_ns, NFNLGRP_CONNTRACK_UPDATE, connection)

    def is_used(self, reply: Tuple) -> bool:
        """Somebody's packets would be taken for these: nf_nat_used_tuple()."""
        return reply in self._found

    def forget(self, now_ns: int, connection: Connection) -> None:
        """It is over, or is to be."""
        if self.connections.pop(connection.number, None) is not None:
            for each in (connection.original, connection.reply):
                known = self._found.get(each)
                if known is not None and known[0] is connection:
                    del self._found[each]
            if self.hears is not None:
                self.hears(now_ns, NFNLGRP_CONNTRACK_DESTROY, connection)
        connection.status |= IPS_DYING

    def went(self, now_ns: int, connection: Connection, *, is_complete: bool) -> None:
        """One whose segments nobody sees, as it stays in the sandbox: it is complete, or over."""
        if connection.number not in self.connections:
            return
        connection.status |= IPS_SEEN_REPLY | IPS_ASSURED
        connection.state = tcp_states.ESTABLISHED if is_complete else tcp_states.FIRST_OVER
        connection.expires_ns = now_ns + self._seconds(connection) * SECOND_NS
        self.note(now_ns, connection)

    def confirm(self, now_ns: int, packet: Packet) -> bool:
        """A packet has got through. False: it is the first one, and cannot be followed.

        nf_conntrack_confirm().
        """
        connection = packet.connection
        if connection is None:
            return True
        if connection.is_confirmed:
            self.note(now_ns, connection)
            return True
        return self.add(now_ns, connection)

    def made(self, original: Tuple) -> Connection:
        """A new one, which is not in the table."""
        self._number += 1
        return Connection(original, self._number)

    def add(self, now_ns: int, connection: Connection) -> bool:
        """Into the table. False: another has such a tuple, or there is no room."""
        if connection.original in self._found or connection.reply in self._found:
            return False
        self._look(now_ns)
        if len(self.connections) >= min(self.setting("nf_conntrack_max"), MAX_CONNECTIONS):
            self.dropped += 1
            return False
        connection.status |= IPS_CONFIRMED
        self.connections[connection.number] = connection
        self._found[connection.original] = connection, False
        self._found[connection.reply] = connection, True
        connection.told = connection.shown
        if self.hears is not None:
            self.hears(now_ns, NFNLGRP_CONNTRACK_NEW, connection)
        return True

    def _look(self, now_ns: int) -> None:
        """At a few: whether they are over; where there is no room one that nobody has answered
        goes. early_drop()."""
        is_full = len(self.connections) >= min(self.setting("nf_conntrack_max"), MAX_CONNECTIONS)
        for _ in range(LOOKED_AT):
            number = next(self._looks, None)
            if number is None:
                self._looks = iter(list(self.connections))
                break
            one = self.connections.get(number)
            if one is None:
                continue
            if one.expires_ns <= now_ns or (is_full and not one.status & IPS_ASSURED):
                self.forget(now_ns, one)
                is_full = False

    # --- packets

    def track(self, now_ns: int, packet: Packet) -> None:
        """Which connection it belongs to: nf_conntrack_in(). Of none, it is INVALID."""
        if not packet.tracked or packet.connection is not None:
            return
        if is_icmp(packet) and packet.has(1):
            kind = packet.data[packet.at]
            if not packet.is_v4 and kind in NEIGHBOURS:
                packet.tracked = False
                return
        wanted = tuple_of(packet)
        if wanted is None:
            return
        found = self.find(now_ns, wanted)
        if found is None:
            self._begin(now_ns, packet, wanted)
            return
        connection, is_reply = found
        is_tcp = wanted.protocol == IPPROTO_TCP
        if is_tcp and not self._segment(now_ns, packet, connection, is_reply):
            if connection.status & IPS_DYING:  # a new one in its place
                self._begin(now_ns, packet, wanted)
            return
        packet.connection = connection
        if is_reply:
            connection.status |= IPS_SEEN_REPLY
            packet.info = IP_CT_ESTABLISHED + IP_CT_IS_REPLY
        elif connection.status & IPS_SEEN_REPLY:
            packet.info = IP_CT_ESTABLISHED
        else:
            packet.info = IP_CT_NEW
        if is_reply and wanted.protocol != IPPROTO_TCP:
            connection.status |= IPS_ASSURED
        self._moved(now_ns, packet, connection, is_reply)

    def relate(self, packet: Packet, quoted: Tuple, now_ns: int) -> None:
        """An error about a packet with this tuple: nf_conntrack_inet_error()."""
        found = self.find(now_ns, quoted.inverted)
        if found is not None:
            packet.connection = found[0]
            packet.info = IP_CT_RELATED + (IP_CT_IS_REPLY if found[1] else 0)

    def _begin(self, now_ns: int, packet: Packet, wanted: Tuple) -> None:
        """init_conntrack()."""
        if is_icmp(packet) and (packet.is_v4, wanted.target_id >> 8) not in ASKS:
            return
        connection = self.made(wanted)
        if wanted.protocol == IPPROTO_TCP:
            if not packet.has(TCP_LEAST):
                return
            kind = tcp_states.kind_of(packet.data[packet.at + FLAGS_AT])
            if kind not in ("syn", "ack") or (
                kind == "ack" and not self.setting("nf_conntrack_tcp_loose")
            ):
                return
            connection.state = tcp_states.NEXT[kind, False][tcp_states.NONE]
        packet.connection, packet.info = connection, IP_CT_NEW
        self._moved(now_ns, packet, connection, False)

    def _segment(
        self, now_ns: int, packet: Packet, connection: Connection, is_reply: bool
    ) -> bool:
        """nf_conntrack_tcp_packet(). False: it cannot be of this connection."""
        if not packet.has(TCP_LEAST):
            return False
        kind = tcp_states.kind_of(packet.data[packet.at + FLAGS_AT])
        if kind is None:
            return False
        before = connection.state
        after = tcp_states.NEXT[kind, is_reply][before]
        if after == tcp_states.INVALID:
            return False
        if after == tcp_states.IGNORED:
            return True
        if kind == "syn" and after == tcp_states.SYN_SENT and before >= tcp_states.FIRST_OVER:
            self.forget(now_ns, connection)
            return False
        connection.state = after
        if after == tcp_states.ESTABLISHED and (is_reply or connection.status & IPS_SEEN_REPLY):
            connection.status |= IPS_ASSURED
        return True

    def _moved(
        self, now_ns: int, packet: Packet, connection: Connection, is_reply: bool
    ) -> None:
        """Something did: it is remembered for longer."""
        counted = connection.moved[is_reply]
        counted[0] += 1
        counted[1] += len(packet.data)
        connection.expires_ns = now_ns + self._seconds(connection) * SECOND_NS

    def _seconds(self, connection: Connection) -> int:
        protocol = connection.original.protocol
        if protocol == IPPROTO_TCP:
            return self.setting(tcp_states.SETTINGS[connection.state])
        if protocol in (IPPROTO_UDP, IPPROTO_UDPLITE):
            is_stream = connection.status & IPS_SEEN_REPLY
            return self.setting(f"nf_conntrack_udp_timeout{'_stream' if is_stream else ''}")
        if protocol == IPPROTO_ICMP:
            return self.setting("nf_conntrack_icmp_timeout")
        if protocol == IPPROTO_ICMPV6:
            return self.setting("nf_conntrack_icmpv6_timeout")
        return self.setting("nf_conntrack_generic_timeout")
