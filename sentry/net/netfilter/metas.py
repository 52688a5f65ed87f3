"""What is known of a packet beside what stands in it: net/netfilter/nft_meta.c."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from sentry.abi import nftables as nft
from sentry.abi.socket import ETH_P_IP, ETH_P_IPV6
from sentry.errors import EOPNOTSUPP
from sentry.net.netfilter.machine import (
    Attributes,
    Expression,
    Run,
    Scope,
    expression,
    number,
    register,
)
from sentry.net.netfilter.matching import BREAK, NAME_SIZE, padded

HOST, BROADCAST, MULTICAST = 0, 1, 2
"""PACKET_HOST and others."""


def _u32(value: int) -> bytes:
    return struct.pack("<I", value & 0xFFFFFFFF)


def _link_name(run: Run, index: int) -> bytes | None:
    name = run.place.name_of(index)
    return padded(name) if name else None


def _link_type(run: Run, index: int) -> bytes | None:
    return struct.pack("<H", run.place.type_of(index)) if index else None


def _owner(run: Run, which: int) -> bytes | None:
    owner = run.packet.owner
    return None if owner is None else _u32(owner[which])


def _kind_of_packet(run: Run) -> bytes:
    packet = run.packet
    if not packet.is_group:
        return bytes([HOST])
    is_many = packet.target[0] >> 4 == 14 if packet.is_v4 else True
    return bytes([MULTICAST if is_many else BROADCAST])


def _day(run: Run) -> bytes:
    return bytes([(datetime.fromtimestamp(run.place.wall_ns() / 1e9, UTC).weekday() + 1) % 7])


METAS: Final[dict[int, tuple[int, Callable[[Run], bytes | None]]]] = {
    nft.NFT_META_LEN: (4, lambda run: _u32(len(run.packet.data))),
    nft.NFT_META_PROTOCOL: (
        2, lambda run: struct.pack(">H", ETH_P_IP if run.packet.is_v4 else ETH_P_IPV6)
    ),
    nft.NFT_META_PRIORITY: (4, lambda run: _u32(0)),
    nft.NFT_META_MARK: (4, lambda run: _u32(run.packet.mark)),
    nft.NFT_META_IIF: (4, lambda run: _u32(run.packet.iif)),
    nft.NFT_META_OIF: (4, lambda run: _u32(run.packet.oif)),
    nft.NFT_META_IIFNAME: (NAME_SIZE, lambda run: _link_name(run, run.packet.iif)),
    nft.NFT_META_OIFNAME: (NAME_SIZE, lambda run: _link_name(run, run.packet.oif)),
    nft.NFT_META_IIFTYPE: (2, lambda run: _link_type(run, run.packet.iif)),
    nft.NFT_META_OIFTYPE: (2, lambda run: _link_type(run, run.packet.oif)),
    nft.NFT_META_SKUID: (4, lambda run: _owner(run, 0)),
    nft.NFT_META_SKGID: (4, lambda run: _owner(run, 1)),
    nft.NFT_META_NFPROTO: (
        1, lambda run: bytes([nft.NFPROTO_IPV4 if run.packet.is_v4 else nft.NFPROTO_IPV6])
    ),
    nft.NFT_META_L4PROTO: (
        1, lambda run: None if run.packet.is_later else bytes([run.packet.protocol])
    ),
    nft.NFT_META_PKTTYPE: (1, _kind_of_packet),
    nft.NFT_META_CPU: (4, lambda run: _u32(0)),
    nft.NFT_META_IIFGROUP: (4, lambda run: _u32(0) if run.packet.iif else None),
    nft.NFT_META_OIFGROUP: (4, lambda run: _u32(0) if run.packet.oif else None),
    nft.NFT_META_PRANDOM: (4, lambda run: run.place.chance(4)),
    nft.NFT_META_TIME_NS: (8, lambda run: struct.pack("<Q", run.place.wall_ns())),
    nft.NFT_META_TIME_DAY: (1, _day),
    nft.NFT_META_TIME_HOUR: (4, lambda run: _u32(run.place.wall_ns() // 10**9 % 86400)),
}  # fmt: skip
"""By key: how many bytes it has, and what it is of a packet; None: it has none."""


@expression("meta")
class Meta(Expression):
    """What is known of a packet, beside what stands in it."""

    __slots__ = ("is_write", "key", "registers")
    is_write: bool
    key: int
    registers: slice

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.key = number(data, nft.NFTA_META_KEY)
        made.is_write = nft.NFTA_META_SREG in data
        if made.is_write:
            settable = {nft.NFT_META_MARK: 4, nft.NFT_META_PRIORITY: 4, nft.NFT_META_NFTRACE: 1}
            if made.key not in settable:
                raise EOPNOTSUPP(f"meta key {made.key}")
            made.registers = register(data, nft.NFTA_META_SREG, settable[made.key])
            return made
        if made.key not in METAS:
            raise EOPNOTSUPP(f"meta key {made.key}")
        made.registers = register(data, nft.NFTA_META_DREG, METAS[made.key][0])
        return made

    def run(self, run: Run) -> int | None:
        if self.is_write:
            if self.key == nft.NFT_META_MARK:
                run.packet.mark = int.from_bytes(run.get(self.registers), "little")
            return None
        value = METAS[self.key][1](run)
        if value is None:
            return BREAK
        run.put(self.registers, value)
        return None
