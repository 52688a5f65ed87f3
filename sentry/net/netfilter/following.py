"""Expressions about connections and their translation: net/netfilter/nft_ct.c, nft_nat.c,
nft_masq.c, nft_redir.c.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import nftables as nft
from sentry.errors import EAFNOSUPPORT, EINVAL, EOPNOTSUPP
from sentry.net.netfilter.machine import (
    Attributes,
    Chain,
    Expression,
    Run,
    Scope,
    expression,
    number,
    register,
)
from sentry.net.netfilter.nat import KNOWN, MASKED, Range

if TYPE_CHECKING:
    from sentry.net.netfilter.conntrack import Connection

BREAK: Final = nft.NFT_BREAK
MS_NS: Final = 1_000_000
UNTRACKED: Final = nft.NF_CT_STATE_UNTRACKED_BIT
SIZES: Final = {
    nft.NFT_CT_STATE: 4, nft.NFT_CT_DIRECTION: 1, nft.NFT_CT_STATUS: 4, nft.NFT_CT_MARK: 4,
    nft.NFT_CT_EXPIRATION: 4, nft.NFT_CT_L3PROTOCOL: 1, nft.NFT_CT_PROTOCOL: 1,
    nft.NFT_CT_PROTO_SRC: 2, nft.NFT_CT_PROTO_DST: 2, nft.NFT_CT_PKTS: 8, nft.NFT_CT_BYTES: 8,
    nft.NFT_CT_AVGPKT: 8, nft.NFT_CT_ZONE: 2, nft.NFT_CT_SRC_IP: 4, nft.NFT_CT_DST_IP: 4,
    nft.NFT_CT_SRC_IP6: 16, nft.NFT_CT_DST_IP6: 16, nft.NFT_CT_ID: 4, nft.NFT_CT_SRC: 0,
    nft.NFT_CT_DST: 0,
}  # fmt: skip
"""Bytes of a key; 0: as the family of the table says."""
OF_DIRECTION: Final = frozenset({
    nft.NFT_CT_SRC, nft.NFT_CT_DST, nft.NFT_CT_PROTO_SRC, nft.NFT_CT_PROTO_DST, nft.NFT_CT_SRC_IP,
    nft.NFT_CT_DST_IP, nft.NFT_CT_SRC_IP6, nft.NFT_CT_DST_IP6,
})  # fmt: skip
"""Keys that need one."""
TARGETS: Final = (nft.NF_INET_PRE_ROUTING, nft.NF_INET_LOCAL_OUT)
SOURCES: Final = (nft.NF_INET_POST_ROUTING, nft.NF_INET_LOCAL_IN)
"""Hooks where a target, or a source, is translated."""


def state_of(run: Run) -> int:
    """NF_CT_STATE_*: what nft_ct calls state."""
    packet = run.packet
    if packet.connection is not None:
        return 1 << packet.info % nft.IP_CT_IS_REPLY + 1
    return nft.NF_CT_STATE_INVALID_BIT if packet.tracked else UNTRACKED


@expression("ct")
class Ct(Expression):
    """What is known of the connection of a packet."""

    needs_tracking = True
    __slots__ = ("direction", "is_write", "key", "registers", "size")
    direction: int
    is_write: bool
    key: int
    registers: slice
    size: int

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.key = number(data, nft.NFTA_CT_KEY)
        made.is_write = nft.NFTA_CT_SREG in data
        made.direction = number(data, nft.NFTA_CT_DIRECTION, -1, 1)
        if made.direction not in (-1, 0, 1):
            raise EINVAL("direction")
        if made.is_write:
            if made.key != nft.NFT_CT_MARK:
                raise EOPNOTSUPP(f"ct key {made.key}")
            made.size = 4
            made.registers = register(data, nft.NFTA_CT_SREG, 4)
            return made
        if made.key not in SIZES:
            raise EOPNOTSUPP(f"ct key {made.key}")
        if made.key in OF_DIRECTION and made.direction < 0:
            raise EINVAL("no direction")
        made.size = SIZES[made.key]
        if not made.size:
            if scope.table.family == nft.NFPROTO_INET:
                raise EAFNOSUPPORT("of which family?")
            made.size = 4 if scope.table.family == nft.NFPROTO_IPV4 else 16
        made.registers = register(data, nft.NFTA_CT_DREG, made.size)
        return made

    def run(self, run: Run) -> int | None:
        connection = run.packet.connection
        if self.key == nft.NFT_CT_STATE:
            run.put(self.registers, state_of(run).to_bytes(4, "little"))
            return None
        if connection is None:
            return BREAK
        if self.is_write:
            connection.mark = int.from_bytes(run.get(self.registers), "little")
            return None
        value = self._value(run, connection)
        if value is None or len(value) != self.size:
            return BREAK
        run.put(self.registers, value)
        return None

    def _value(self, run: Run, connection: Connection) -> bytes | None:
        key = self.key
        if key in OF_DIRECTION:
            return self._of_tuple(connection)
        if key == nft.NFT_CT_DIRECTION:
            return bytes([run.packet.info >= nft.IP_CT_IS_REPLY])
        if key == nft.NFT_CT_L3PROTOCOL:
            is_v4 = connection.original.is_v4
            return bytes([nft.NFPROTO_IPV4 if is_v4 else nft.NFPROTO_IPV6])
        if key == nft.NFT_CT_PROTOCOL:
            return bytes([connection.original.protocol])
        if key in (nft.NFT_CT_PKTS, nft.NFT_CT_BYTES, nft.NFT_CT_AVGPKT):
            return struct.pack("<Q", self._moved(connection))
        if key == nft.NFT_CT_ZONE:
            return b"\0\0"
        left_ms = max(0, connection.expires_ns - run.now_ns) // MS_NS
        number = {
            nft.NFT_CT_STATUS: connection.status, nft.NFT_CT_MARK: connection.mark,
            nft.NFT_CT_EXPIRATION: left_ms, nft.NFT_CT_ID: connection.number,
        }[key]  # fmt: skip
        return struct.pack("<I", number & 0xFFFFFFFF)

    def _of_tuple(self, connection: Connection) -> bytes:
        own = connection.tuple_in(is_reply=self.direction == 1)
        if self.key == nft.NFT_CT_PROTO_SRC:
            return own.source_id.to_bytes(2)
        if self.key == nft.NFT_CT_PROTO_DST:
            return own.target_id.to_bytes(2)
        is_source = self.key in (nft.NFT_CT_SRC, nft.NFT_CT_SRC_IP, nft.NFT_CT_SRC_IP6)
        return own.source if is_source else own.target

    def _moved(self, connection: Connection) -> int:
        which = connection.moved if self.direction < 0 else [connection.moved[self.direction]]
        packets, octets = sum(each[0] for each in which), sum(each[1] for each in which)
        if self.key == nft.NFT_CT_PKTS:
            return packets
        return octets if self.key == nft.NFT_CT_BYTES else octets // max(packets, 1)


@expression("notrack")
class NoTrack(Expression):
    """The packet is of no connection."""

    __slots__ = ()

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        return cls(raw)

    def run(self, run: Run) -> int | None:
        if run.packet.connection is None:
            run.packet.tracked = False
        return None


class _Translating(Expression):
    """What stands in chains of type nat."""

    __slots__ = ("first", "flags", "last")
    hooks: tuple[int, ...] = ()
    first: slice | None
    last: slice | None
    flags: int

    def read_ports(self, data: Attributes, first: int, last: int, flags: int) -> None:
        """Registers of ports, and NF_NAT_RANGE_*. Raises: EINVAL, EOPNOTSUPP, ERANGE."""
        self.flags = number(data, flags, 0)
        if self.flags & ~MASKED:
            raise EINVAL("flags")
        if self.flags & ~KNOWN:
            raise EOPNOTSUPP("flags")
        self.first = self.last = None
        if first in data:
            self.first = self.last = register(data, first, 2)
            self.last = register(data, last, 2) if last in data else self.first
            self.flags |= nft.NF_NAT_RANGE_PROTO_SPECIFIED

    def ports(self, run: Run) -> tuple[int, int]:
        """The first and the last."""
        if self.first is None or self.last is None:
            return 0, 0
        return int.from_bytes(run.get(self.first)), int.from_bytes(run.get(self.last))

    def check(self, base: Chain) -> None:
        if base.kind != "nat" or base.hook not in self.hooks:
            raise EOPNOTSUPP("translation in such a chain")


@expression("masq")
class Masquerade(_Translating):
    """The source becomes the address of the interface."""

    __slots__ = ()
    hooks = (nft.NF_INET_POST_ROUTING,)

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.read_ports(
            data, nft.NFTA_MASQ_REG_PROTO_MIN, nft.NFTA_MASQ_REG_PROTO_MAX, nft.NFTA_MASQ_FLAGS
        )
        return made

    def run(self, run: Run) -> int | None:
        return masquerade(run, self.flags, *self.ports(run))


def masquerade(run: Run, flags: int, first_port: int, last_port: int) -> int:
    """nf_nat_masquerade_ipv4(), nf_nat_masquerade_ipv6()."""
    packet = run.packet
    if packet.connection is None or not any(packet.source):
        return nft.NF_ACCEPT
    if not packet.preferred:
        return nft.NF_DROP
    wanted = Range(
        flags | nft.NF_NAT_RANGE_MAP_IPS, packet.preferred, packet.preferred, first_port, last_port
    )
    return run.place.translate(run, wanted, is_source=True)


@expression("redir")
class Redirect(_Translating):
    """The target becomes an address of ours."""

    __slots__ = ()
    hooks = TARGETS

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.read_ports(
            data, nft.NFTA_REDIR_REG_PROTO_MIN, nft.NFTA_REDIR_REG_PROTO_MAX, nft.NFTA_REDIR_FLAGS
        )
        return made

    def run(self, run: Run) -> int | None:
        return redirect(run, self.flags, *self.ports(run))


def redirect(run: Run, flags: int, first_port: int, last_port: int) -> int:
    """nf_nat_redirect()."""
    ip = run.place.redirect_to(run.packet)
    if not ip:
        return nft.NF_DROP
    wanted = Range(flags | nft.NF_NAT_RANGE_MAP_IPS, ip, ip, first_port, last_port)
    return run.place.translate(run, wanted, is_source=False)


@expression("nat")
class Nat(_Translating):
    """Another source, or another target."""

    __slots__ = ("family", "first_ip", "is_source", "last_ip")
    family: int
    is_source: bool
    first_ip: slice | None
    last_ip: slice | None

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        kind = number(data, nft.NFTA_NAT_TYPE)
        if kind not in (nft.NFT_NAT_SNAT, nft.NFT_NAT_DNAT):
            raise EOPNOTSUPP("type")
        made.is_source = kind == nft.NFT_NAT_SNAT
        made.family = number(data, nft.NFTA_NAT_FAMILY)
        if scope.table.family not in (nft.NFPROTO_INET, made.family):
            raise EOPNOTSUPP("another family")
        if made.family not in (nft.NFPROTO_IPV4, nft.NFPROTO_IPV6, nft.NFPROTO_INET):
            raise EAFNOSUPPORT("family")
        made.read_ports(
            data, nft.NFTA_NAT_REG_PROTO_MIN, nft.NFTA_NAT_REG_PROTO_MAX, nft.NFTA_NAT_FLAGS
        )
        made.first_ip = made.last_ip = None
        if nft.NFTA_NAT_REG_ADDR_MIN not in data:
            if made.flags & (nft.NF_NAT_RANGE_MAP_IPS | nft.NF_NAT_RANGE_NETMAP):
                raise EINVAL("to which address?")
        else:
            size = {nft.NFPROTO_IPV4: 4, nft.NFPROTO_IPV6: 16}.get(made.family)
            if size is None:
                raise EAFNOSUPPORT("an address of which family?")
            made.first_ip = made.last_ip = register(data, nft.NFTA_NAT_REG_ADDR_MIN, size)
            if nft.NFTA_NAT_REG_ADDR_MAX in data:
                made.last_ip = register(data, nft.NFTA_NAT_REG_ADDR_MAX, size)
            made.flags |= nft.NF_NAT_RANGE_MAP_IPS
        return made

    def run(self, run: Run) -> int | None:
        families = {nft.NFPROTO_INET, nft.NFPROTO_IPV4 if run.packet.is_v4 else nft.NFPROTO_IPV6}
        if run.packet.connection is None or self.family not in families:
            return BREAK
        first = last = b""
        if self.first_ip is not None and self.last_ip is not None:
            first, last = run.get(self.first_ip), run.get(self.last_ip)
        wanted = Range(self.flags, first, last, *self.ports(run))
        return run.place.translate(run, wanted, is_source=self.is_source)

    def check(self, base: Chain) -> None:
        if base.kind != "nat" or base.hook not in (SOURCES if self.is_source else TARGETS):
            raise EOPNOTSUPP("translation in such a chain")
