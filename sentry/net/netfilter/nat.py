"""Translation of addresses and ports: net/netfilter/nf_nat_core.c.

What a connection becomes is chosen once for its source and once for its target, when its first
packet meets the chains of type nat; its other packets, and what is said about them, follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from sentry.abi.nftables import (
    IP_CT_IS_REPLY,
    IPS_DST_NAT,
    IPS_DST_NAT_DONE,
    IPS_NAT_MASK,
    IPS_SRC_NAT,
    IPS_SRC_NAT_DONE,
    NF_NAT_RANGE_MAP_IPS,
    NF_NAT_RANGE_NETMAP,
    NF_NAT_RANGE_PERSISTENT,
    NF_NAT_RANGE_PROTO_OFFSET,
    NF_NAT_RANGE_PROTO_RANDOM,
    NF_NAT_RANGE_PROTO_RANDOM_FULLY,
    NF_NAT_RANGE_PROTO_SPECIFIED,
)
from sentry.abi.socket import IPPROTO_ICMP, IPPROTO_ICMPV6
from sentry.net.netfilter import related
from sentry.net.netfilter.tuples import PORTED, Tuple

if TYPE_CHECKING:
    from sentry.net.netfilter.conntrack import Connection, Conntrack
    from sentry.net.netfilter.packet import Packet

TRIES: Final = 128
"""Ports that are tried: NF_NAT_MAX_ATTEMPTS."""
RANDOM: Final = NF_NAT_RANGE_PROTO_RANDOM | NF_NAT_RANGE_PROTO_RANDOM_FULLY
MASKED: Final = (
    NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED | RANDOM | NF_NAT_RANGE_PERSISTENT
    | NF_NAT_RANGE_PROTO_OFFSET | NF_NAT_RANGE_NETMAP
)  # fmt: skip
"""NF_NAT_RANGE_MASK."""
KNOWN: Final = MASKED & ~NF_NAT_RANGE_PROTO_OFFSET
WELL_KNOWN, RESERVED, ANY_PORT = range(1, 512), range(600, 1024), range(1024, 65536)
"""From where the port of a source comes that is below 512, below 1024, or not."""


class Range(Struct, frozen=True):
    """struct nf_nat_range2: what an address and a port may become."""

    flags: int = 0
    first: bytes = b""
    last: bytes = b""
    first_port: int = 0
    last_port: int = 0


class Translation:
    """Of a network namespace."""

    def __init__(self, table: Conntrack, chance: Callable[[int], bytes]) -> None:
        self._table = table
        self._chance = chance

    def is_set_up(self, connection: Connection, *, is_source: bool) -> bool:
        """It was chosen."""
        return bool(connection.status & (IPS_SRC_NAT_DONE if is_source else IPS_DST_NAT_DONE))

    def set_up(self, connection: Connection, wanted: Range, *, is_source: bool) -> bool:
        """Choose. False: nothing is free. nf_nat_setup_info()."""
        if self.is_set_up(connection, is_source=is_source):
            return True
        if connection.is_confirmed:  # its tuples are in the table as they are
            connection.status |= IPS_SRC_NAT_DONE if is_source else IPS_DST_NAT_DONE
            return True
        now = connection.reply.inverted
        made = self._choose(now, wanted, is_source)
        if made is None:
            return False
        if made != now:
            connection.reply = made.inverted
            connection.status |= IPS_SRC_NAT if is_source else IPS_DST_NAT
        connection.status |= IPS_SRC_NAT_DONE if is_source else IPS_DST_NAT_DONE
        return True

    def apply(self, packet: Packet, *, is_source: bool) -> None:
        """What was chosen: nf_nat_packet()."""
        connection = packet.connection
        if connection is None:
            return
        is_reply = packet.info >= IP_CT_IS_REPLY
        bit = IPS_SRC_NAT if is_source else IPS_DST_NAT
        if is_reply:
            bit ^= IPS_NAT_MASK
        if not connection.status & bit:
            return
        other = connection.tuple_in(is_reply=not is_reply)
        if related.is_error(packet):
            related.translate(packet, other, is_source=not is_source)
        elif other.protocol != packet.protocol:
            return
        related.rewrite(packet, other.inverted, is_source=is_source)

    def _choose(self, now: Tuple, wanted: Range, is_source: bool) -> Tuple | None:
        """get_unique_tuple()."""
        made = now
        if wanted.flags & NF_NAT_RANGE_MAP_IPS:
            ip = self._address(now, wanted, is_source)
            made = now._replace(source=ip) if is_source else now._replace(target=ip)
        has_ports = made.protocol in PORTED
        is_echo = made.protocol in (IPPROTO_ICMP, IPPROTO_ICMPV6)
        if not wanted.flags & RANDOM and not self._table.is_used(made.inverted):
            if not wanted.flags & NF_NAT_RANGE_PROTO_SPECIFIED or not (has_ports or is_echo):
                return made
            number = made.source_id if is_source or is_echo else made.target_id
            if wanted.first_port <= number <= wanted.last_port:
                return made
        if has_ports:
            return self._port(made, wanted, is_source)
        if is_echo and is_source:
            return self._free(made, range(65536), wanted.flags, is_source)
        return None if self._table.is_used(made.inverted) else made

    def _address(self, now: Tuple, wanted: Range, is_source: bool) -> bytes:
        """find_best_ips_proto(): the same for the same ends."""
        first, last = int.from_bytes(wanted.first), int.from_bytes(wanted.last)
        size = len(wanted.first)
        if wanted.flags & NF_NAT_RANGE_NETMAP:
            mask = (first ^ last) ^ ((1 << size * 8) - 1)
            own = int.from_bytes(now.source if is_source else now.target)
            return (own & ~mask | first & mask).to_bytes(size)
        if first >= last:
            return wanted.first
        is_persistent = wanted.flags & NF_NAT_RANGE_PERSISTENT
        seed = (now.source, b"" if is_persistent else now.target)
        return (first + hash(seed) % (last - first + 1)).to_bytes(size)

    def _port(self, made: Tuple, wanted: Range, is_source: bool) -> Tuple | None:
        """nf_nat_l4proto_unique_tuple()."""
        if wanted.flags & NF_NAT_RANGE_PROTO_SPECIFIED:
            ports = range(wanted.first_port, wanted.last_port + 1)
            if not is_source and len(ports) == 1:
                return made._replace(target_id=wanted.first_port)
        elif not is_source:  # of a target that is chosen nobody wants another port
            return made
        else:
            own = made.source_id
            ports = ANY_PORT if own >= 1024 else RESERVED if own >= 512 else WELL_KNOWN
        return self._free(made, ports, wanted.flags, is_source)

    def _free(self, made: Tuple, ports: range, flags: int, is_source: bool) -> Tuple | None:
        for number in self._numbers(made, ports, flags, is_source):
            one = made._replace(source_id=number) if is_source else made._replace(target_id=number)
            if not self._table.is_used(one.inverted):
                return one
        return None

    def _numbers(self, made: Tuple, ports: range, flags: int, is_source: bool) -> Iterator[int]:
        """Some of them: from its own on, or from anywhere."""
        if not ports:
            return
        begin = made.source_id if is_source else made.target_id
        if flags & RANDOM or begin not in ports:
            begin = int.from_bytes(self._chance(4))
        else:
            begin -= ports.start
        for step in range(min(TRIES, len(ports))):
            yield ports[(begin + step) % len(ports)]
        begin = int.from_bytes(self._chance(4))
        for step in range(min(TRIES, len(ports))):
            yield ports[(begin + step) % len(ports)]
