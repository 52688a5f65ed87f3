"""Expressions that look at a packet: what stands in it, and what is done with that.

net/netfilter/nft_payload.c, nft_cmp.c, nft_range.c, nft_bitwise.c, nft_byteorder.c,
nft_fib.c, nft_exthdr.c.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import nftables as nft
from sentry.abi.netlink import RTN_LOCAL
from sentry.abi.socket import IPPROTO_TCP
from sentry.errors import EINVAL, EOPNOTSUPP
from sentry.net.netfilter.machine import (
    Attributes,
    Expression,
    Run,
    Scope,
    expression,
    number,
    register,
    value_of,
)

if TYPE_CHECKING:
    from sentry.net.netfilter.packet import Packet

BREAK: Final = nft.NFT_BREAK
NAME_SIZE: Final = 16
"""IFNAMSIZ: names of interfaces, padded."""
KEPT4: Final = (0, 2, 3, 6, 7, 9, 10, 11)
KEPT6: Final = (0, 4, 5, 6)
"""Bytes of a header that no rule writes."""


@expression("payload")
class Payload(Expression):
    """Bytes of the packet, read or written."""

    __slots__ = ("base", "is_write", "offset", "registers", "size", "sum_at", "sum_kind", "sum_too")
    base: int
    is_write: bool
    offset: int
    registers: slice
    size: int
    sum_at: int
    sum_kind: int
    sum_too: bool

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.base = number(data, nft.NFTA_PAYLOAD_BASE)
        made.offset = number(data, nft.NFTA_PAYLOAD_OFFSET)
        made.size = number(data, nft.NFTA_PAYLOAD_LEN)
        if made.base not in (nft.NFT_PAYLOAD_NETWORK_HEADER, nft.NFT_PAYLOAD_TRANSPORT_HEADER):
            raise EOPNOTSUPP(f"payload base {made.base}")
        if made.offset > 0xFFFF:
            raise EINVAL("offset")
        made.is_write = nft.NFTA_PAYLOAD_SREG in data
        kind = nft.NFTA_PAYLOAD_SREG if made.is_write else nft.NFTA_PAYLOAD_DREG
        made.registers = register(data, kind, made.size)
        made.sum_kind = number(data, nft.NFTA_PAYLOAD_CSUM_TYPE, nft.NFT_PAYLOAD_CSUM_NONE)
        made.sum_at = number(data, nft.NFTA_PAYLOAD_CSUM_OFFSET, 0)
        flags = number(data, nft.NFTA_PAYLOAD_CSUM_FLAGS, 0)
        if flags & ~nft.NFT_PAYLOAD_L4CSUM_PSEUDOHDR:
            raise EINVAL("flags")
        made.sum_too = bool(flags)
        if made.sum_kind not in (nft.NFT_PAYLOAD_CSUM_NONE, nft.NFT_PAYLOAD_CSUM_INET):
            raise EOPNOTSUPP("checksum")
        return made

    def run(self, run: Run) -> int | None:
        packet = run.packet
        start = self.offset
        if self.base == nft.NFT_PAYLOAD_TRANSPORT_HEADER:
            if packet.is_later:
                return BREAK
            start += packet.at
        found = packet.data[start : start + self.size]
        if len(found) < self.size:
            return BREAK
        if not self.is_write:
            run.put(self.registers, bytes(found))
            return None
        return self._write(packet, start, run.get(self.registers))

    def _write(self, packet: Packet, start: int, value: bytes) -> int | None:
        """nft_payload_set_eval(): what would change where headers end is left alone."""
        is_header = self.base == nft.NFT_PAYLOAD_NETWORK_HEADER
        if is_header and not _may_write(packet, start, value):
            return BREAK
        even, end = start & ~1, start + self.size + 1 & ~1
        old = bytes(packet.data[even:end].ljust(end - even, b"\0"))
        packet.data[start : start + self.size] = value
        packet.is_changed = True
        new = bytes(packet.data[even:end].ljust(end - even, b"\0"))
        if is_header and packet.is_v4:
            packet.sum_header()
        if self.sum_too or (not is_header and self.sum_kind == nft.NFT_PAYLOAD_CSUM_INET):
            packet.words_changed(old, new, of_pseudo_header=is_header)
        return None


def _may_write(packet: Packet, start: int, value: bytes) -> bool:
    """The version, sizes, the protocol, and what makes a fragment of it stay as they are."""
    end = start + len(value)
    if end > packet.at:
        return False
    made = packet.data[:start] + value + packet.data[end : packet.at]
    return all(made[at] == packet.data[at] for at in (KEPT4 if packet.is_v4 else KEPT6))


@expression("cmp")
class Compare(Expression):
    """Registers and a value."""

    __slots__ = ("op", "registers", "value")
    op: int
    registers: slice
    value: bytes

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.value = value_of(data, nft.NFTA_CMP_DATA)
        made.registers = register(data, nft.NFTA_CMP_SREG, len(made.value))
        made.op = number(data, nft.NFTA_CMP_OP)
        if made.op not in range(nft.NFT_CMP_EQ, nft.NFT_CMP_GTE + 1):
            raise EINVAL("op")
        return made

    def run(self, run: Run) -> int | None:
        found, value, op = run.get(self.registers), self.value, self.op
        if op == nft.NFT_CMP_EQ:
            fits = found == value
        elif op == nft.NFT_CMP_NEQ:
            fits = found != value
        elif op in (nft.NFT_CMP_LT, nft.NFT_CMP_LTE):
            fits = found < value or (op == nft.NFT_CMP_LTE and found == value)
        else:
            fits = found > value or (op == nft.NFT_CMP_GTE and found == value)
        return None if fits else BREAK


@expression("range")
class Between(Expression):
    """Registers and two values."""

    __slots__ = ("first", "is_not", "last", "registers")
    first: bytes
    is_not: bool
    last: bytes
    registers: slice

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.first = value_of(data, nft.NFTA_RANGE_FROM_DATA)
        made.last = value_of(data, nft.NFTA_RANGE_TO_DATA)
        if len(made.first) != len(made.last):
            raise EINVAL("values of two sizes")
        made.registers = register(data, nft.NFTA_RANGE_SREG, len(made.first))
        op = number(data, nft.NFTA_RANGE_OP)
        if op not in (nft.NFT_RANGE_EQ, nft.NFT_RANGE_NEQ):
            raise EINVAL("op")
        made.is_not = op == nft.NFT_RANGE_NEQ
        return made

    def run(self, run: Run) -> int | None:
        is_in = self.first <= run.get(self.registers) <= self.last
        return BREAK if is_in == self.is_not else None


@expression("bitwise")
class Bitwise(Expression):
    """Masks, and shifts of 32-bit words that make one number."""

    __slots__ = ("mask", "op", "shift", "source", "target", "xor")
    mask: int
    op: int
    shift: int
    source: slice
    target: slice
    xor: int

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        size = number(data, nft.NFTA_BITWISE_LEN)
        made.source = register(data, nft.NFTA_BITWISE_SREG, size)
        made.target = register(data, nft.NFTA_BITWISE_DREG, size)
        made.op = number(data, nft.NFTA_BITWISE_OP, nft.NFT_BITWISE_MASK_XOR)
        made.mask = made.xor = made.shift = 0
        if made.op == nft.NFT_BITWISE_MASK_XOR:
            mask, xor = value_of(data, nft.NFTA_BITWISE_MASK), value_of(data, nft.NFTA_BITWISE_XOR)
            if len(mask) != size or len(xor) != size or nft.NFTA_BITWISE_DATA in data:
                raise EINVAL("mask")
            made.mask, made.xor = int.from_bytes(mask), int.from_bytes(xor)
        elif made.op in (nft.NFT_BITWISE_LSHIFT, nft.NFT_BITWISE_RSHIFT):
            value = value_of(data, nft.NFTA_BITWISE_DATA)
            made.shift = int.from_bytes(value[:4], "little")
            if len(value) != 4 or made.shift >= 32 or nft.NFTA_BITWISE_MASK in data:
                raise EINVAL("shift")
        else:
            raise EOPNOTSUPP("op")
        return made

    def run(self, run: Run) -> int | None:
        value = run.get(self.source)
        if self.op == nft.NFT_BITWISE_MASK_XOR:
            made = int.from_bytes(value) & self.mask ^ self.xor
            run.put(self.target, made.to_bytes(len(value)))
            return None
        padded = value.ljust(len(value) + 3 & ~3, b"\0")
        words = struct.unpack(f"<{len(padded) // 4}I", padded)
        wide = int.from_bytes(struct.pack(f">{len(words)}I", *words))
        bits = len(words) * 32
        shifted = wide << self.shift if self.op == nft.NFT_BITWISE_LSHIFT else wide >> self.shift
        back = struct.unpack(f">{len(words)}I", (shifted & (1 << bits) - 1).to_bytes(bits // 8))
        run.put(self.target, struct.pack(f"<{len(words)}I", *back)[: len(value)])
        return None


@expression("byteorder")
class ByteOrder(Expression):
    """Numbers in registers, from one order of bytes to the other."""

    __slots__ = ("size", "source", "target")
    size: int
    source: slice
    target: slice

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        size = number(data, nft.NFTA_BYTEORDER_LEN)
        made.size = number(data, nft.NFTA_BYTEORDER_SIZE)
        if made.size not in (2, 4, 8) or number(data, nft.NFTA_BYTEORDER_OP) not in (
            nft.NFT_BYTEORDER_NTOH, nft.NFT_BYTEORDER_HTON,
        ):  # fmt: skip
            raise EINVAL("byteorder")
        made.source = register(data, nft.NFTA_BYTEORDER_SREG, size)
        made.target = register(data, nft.NFTA_BYTEORDER_DREG, size)
        return made

    def run(self, run: Run) -> int | None:
        value, size = run.get(self.source), self.size
        turned = b"".join(value[at : at + size][::-1] for at in range(0, len(value), size))
        run.put(self.target, turned)
        return None


def padded(name: str) -> bytes:
    """Of an interface, as registers have it."""
    return name.encode(errors="replace")[:NAME_SIZE].ljust(NAME_SIZE, b"\0")


@expression("fib")
class Fib(Expression):
    """What the routes say of an address of the packet."""

    __slots__ = ("flags", "registers", "result")
    flags: int
    registers: slice
    result: int

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.flags = number(data, nft.NFTA_FIB_FLAGS)
        made.result = number(data, nft.NFTA_FIB_RESULT)
        ends = made.flags & (nft.NFTA_FIB_F_SADDR | nft.NFTA_FIB_F_DADDR)
        links = made.flags & (nft.NFTA_FIB_F_IIF | nft.NFTA_FIB_F_OIF)
        both = nft.NFTA_FIB_F_SADDR | nft.NFTA_FIB_F_DADDR, nft.NFTA_FIB_F_IIF | nft.NFTA_FIB_F_OIF
        if not ends or ends == both[0] or links == both[1]:
            raise EINVAL("flags")
        sizes = {
            nft.NFT_FIB_RESULT_OIF: 4, nft.NFT_FIB_RESULT_OIFNAME: NAME_SIZE,
            nft.NFT_FIB_RESULT_ADDRTYPE: 4,
        }  # fmt: skip
        if made.result not in sizes:
            raise EOPNOTSUPP("result")
        made.registers = register(data, nft.NFTA_FIB_DREG, sizes[made.result])
        return made

    def run(self, run: Run) -> int | None:
        packet, place = run.packet, run.place
        is_source = bool(self.flags & nft.NFTA_FIB_F_SADDR)
        ip = packet.source if is_source else packet.target
        index = packet.iif if self.flags & nft.NFTA_FIB_F_IIF else 0
        index = packet.oif if self.flags & nft.NFTA_FIB_F_OIF else index
        kind = place.kind_of(ip, index)
        if self.result == nft.NFT_FIB_RESULT_ADDRTYPE:
            run.put(self.registers, struct.pack("<I", kind))
            return None
        found = place.out_index(ip)
        if kind == RTN_LOCAL or (index and found != index):
            found = index if kind == RTN_LOCAL else 0
        if self.flags & nft.NFTA_FIB_F_PRESENT:
            run.put(self.registers, struct.pack("<I", bool(found)))
        elif self.result == nft.NFT_FIB_RESULT_OIF:
            run.put(self.registers, struct.pack("<I", found))
        else:
            run.put(self.registers, padded(place.name_of(found)))
        return None


@expression("exthdr")
class Option(Expression):
    """An option of TCP: where it is, whether it is there. Other extension headers are not known."""

    __slots__ = ("asks_present", "kind", "offset", "registers", "size")
    asks_present: bool
    kind: int
    offset: int
    registers: slice
    size: int

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        op = number(data, nft.NFTA_EXTHDR_OP, nft.NFT_EXTHDR_OP_IPV6)
        if op != nft.NFT_EXTHDR_OP_TCPOPT or nft.NFTA_EXTHDR_SREG in data:
            raise EOPNOTSUPP("an extension header of another kind")
        made.kind = number(data, nft.NFTA_EXTHDR_TYPE, size=1)
        made.offset = number(data, nft.NFTA_EXTHDR_OFFSET)
        made.size = number(data, nft.NFTA_EXTHDR_LEN)
        made.asks_present = bool(
            number(data, nft.NFTA_EXTHDR_FLAGS, 0) & nft.NFT_EXTHDR_F_PRESENT
        )
        made.registers = register(data, nft.NFTA_EXTHDR_DREG, made.size)
        return made

    def run(self, run: Run) -> int | None:
        option = tcp_option(run.packet, self.kind)
        if self.asks_present:
            run.put(self.registers, bytes([option is not None]))
            return None
        found = b"" if option is None else option[self.offset : self.offset + self.size]
        if len(found) < self.size:
            return BREAK
        run.put(self.registers, found)
        return None


def tcp_option(packet: Packet, wanted: int) -> bytes | None:
    """With its kind and size; None: it is not there."""
    if packet.protocol != IPPROTO_TCP or not packet.has(20):
        return None
    begin = packet.at
    options = bytes(packet.data[begin + 20 : begin + (packet.data[begin + 12] >> 4) * 4])
    at = 0
    while at < len(options) and options[at]:
        size = 1
        if options[at] != 1:
            size = options[at + 1] if at + 1 < len(options) else 0
            if size < 2:
                return None
        if options[at] == wanted:
            return options[at : at + size]
        at += size
    return None
