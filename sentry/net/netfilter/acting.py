"""Expressions that decide, count and limit: net/netfilter/nft_immediate.c, nft_counter.c,
nft_limit.c, nft_quota.c, nft_log.c, nft_reject.c, nft_numgen.c, nft_hash.c, nft_objref.c.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from zlib import crc32

from sentry.abi import nftables as nft
from sentry.errors import EINVAL, EOPNOTSUPP, EOVERFLOW
from sentry.net.netfilter.machine import (
    Attributes,
    Chain,
    Expression,
    Named,
    Run,
    Scope,
    Used,
    Verdict,
    be32,
    be64,
    expression,
    number,
    parse_expression,
    register,
    string,
    text,
    value_of,
    verdict_of,
)
from sentry.net.netlink.message import attribute, parse_attributes

SECOND_NS: Final = 1_000_000_000
MAX_PREFIX: Final = 128
"""NF_LOG_PREFIXLEN."""
U64: Final = (1 << 64) - 1


@expression("immediate")
class Immediate(Expression):
    """A value into registers, or a verdict."""

    __slots__ = ("registers", "value", "verdict")
    registers: slice
    value: bytes
    verdict: Verdict | None

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.verdict, made.value, made.registers = None, b"", slice(0, 0)
        if number(data, nft.NFTA_IMMEDIATE_DREG) == nft.NFT_REG_VERDICT:
            inner = parse_attributes(data.get(nft.NFTA_IMMEDIATE_DATA, b""))
            if nft.NFTA_DATA_VERDICT not in inner:
                raise EINVAL("no verdict")
            made.verdict = verdict_of(scope, inner[nft.NFTA_DATA_VERDICT])
            return made
        made.value = value_of(data, nft.NFTA_IMMEDIATE_DATA)
        made.registers = register(data, nft.NFTA_IMMEDIATE_DREG, len(made.value))
        return made

    def run(self, run: Run) -> int | None:
        if self.verdict is None:
            run.put(self.registers, self.value)
            return None
        run.to = self.verdict.chain
        return self.verdict.code

    def dump(self) -> bytes:
        """The chain by its name, also where it was named by an id."""
        if self.verdict is None or self.verdict.chain is None:
            return self.raw
        inner = attribute(nft.NFTA_IMMEDIATE_DATA | 0x8000, self.verdict.dump())
        return be32(nft.NFTA_IMMEDIATE_DREG, nft.NFT_REG_VERDICT) + inner

    @property
    def uses(self) -> Iterable[Used]:
        """The chain of a jump."""
        chain = None if self.verdict is None else self.verdict.chain
        return () if chain is None else (chain,)


@expression("counter")
class Counter(Expression):
    """Packets and bytes."""

    __slots__ = ("octets", "packets")
    octets: int
    packets: int

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.packets = number(data, nft.NFTA_COUNTER_PACKETS, 0, 8)
        made.octets = number(data, nft.NFTA_COUNTER_BYTES, 0, 8)
        return made

    def run(self, run: Run) -> int | None:
        self.packets = self.packets + 1 & U64
        self.octets = self.octets + len(run.packet.data) & U64
        return None

    def dump(self) -> bytes:
        return be64(nft.NFTA_COUNTER_BYTES, self.octets) + be64(
            nft.NFTA_COUNTER_PACKETS, self.packets
        )

    def reset(self) -> None:
        self.packets = self.octets = 0


@expression("quota")
class Quota(Expression):
    """So many bytes: up to there it fits, or from there on."""

    __slots__ = ("consumed", "is_over", "most")
    consumed: int
    is_over: bool
    most: int

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.most = number(data, nft.NFTA_QUOTA_BYTES, size=8)
        made.consumed = number(data, nft.NFTA_QUOTA_CONSUMED, 0, 8)
        flags = number(data, nft.NFTA_QUOTA_FLAGS, 0)
        if made.most > U64 >> 1:
            raise EOVERFLOW("quota")
        if made.consumed > made.most:
            raise EINVAL("more is consumed than there is")
        if flags & ~nft.NFT_QUOTA_F_INV:
            raise EINVAL("flags") if flags & ~3 else EOPNOTSUPP("flags")
        made.is_over = bool(flags)
        return made

    def run(self, run: Run) -> int | None:
        self.consumed = self.consumed + len(run.packet.data) & U64
        return nft.NFT_BREAK if (self.consumed >= self.most) != self.is_over else None

    def dump(self) -> bytes:
        flags = nft.NFT_QUOTA_F_INV if self.is_over else 0
        flags |= nft.NFT_QUOTA_F_DEPLETED if self.consumed >= self.most else 0
        return (
            be64(nft.NFTA_QUOTA_BYTES, self.most)
            + be64(nft.NFTA_QUOTA_CONSUMED, min(self.consumed, self.most))
            + be32(nft.NFTA_QUOTA_FLAGS, flags)
        )

    def reset(self) -> None:
        self.consumed = 0


@expression("limit")
class Limit(Expression):
    """A token bucket of packets or bytes: struct nft_limit."""

    __slots__ = ("cost_ns", "is_over", "is_packets", "last_ns", "left_ns", "most_ns", "rate")
    cost_ns: int
    is_over: bool
    is_packets: bool
    last_ns: int
    left_ns: int
    most_ns: int
    rate: int

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.rate = number(data, nft.NFTA_LIMIT_RATE, size=8)
        seconds = number(data, nft.NFTA_LIMIT_UNIT, size=8)
        burst = number(data, nft.NFTA_LIMIT_BURST, 0)
        kind = number(data, nft.NFTA_LIMIT_TYPE, nft.NFT_LIMIT_PKTS)
        if not made.rate or not seconds or seconds > 1 << 32:
            raise EINVAL("rate")
        if kind not in (nft.NFT_LIMIT_PKTS, nft.NFT_LIMIT_PKT_BYTES):
            raise EOPNOTSUPP("type")
        made.is_packets = kind == nft.NFT_LIMIT_PKTS
        if made.is_packets and not burst:
            burst = 5
        nsecs = seconds * SECOND_NS
        made.cost_ns = nsecs
        if made.is_packets:
            made.most_ns = nsecs // made.rate * burst
        else:
            made.most_ns = nsecs * (made.rate + burst) // made.rate
        made.left_ns, made.last_ns = made.most_ns, 0
        made.is_over = bool(number(data, nft.NFTA_LIMIT_FLAGS, 0) & nft.NFT_LIMIT_F_INV)
        return made

    def run(self, run: Run) -> int | None:
        if self.last_ns:
            self.left_ns = min(self.most_ns, self.left_ns + run.now_ns - self.last_ns)
        self.last_ns = run.now_ns
        amount = 1 if self.is_packets else len(run.packet.data)
        cost_ns = self.cost_ns * amount // self.rate
        if self.left_ns >= cost_ns:
            self.left_ns -= cost_ns
            return nft.NFT_BREAK if self.is_over else None
        return None if self.is_over else nft.NFT_BREAK


@expression("log")
class Log(Expression):
    """A line in the log of the sandbox."""

    __slots__ = ("prefix",)
    prefix: str

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.prefix = ""
        if nft.NFTA_LOG_PREFIX in data:
            made.prefix = data[nft.NFTA_LOG_PREFIX].split(b"\0", 1)[0].decode(errors="replace")
        if len(made.prefix) >= MAX_PREFIX:
            raise EINVAL("prefix")
        if number(data, nft.NFTA_LOG_LEVEL, 4) > nft.NFT_LOGLEVEL_AUDIT:
            raise EINVAL("level")
        return made

    def run(self, run: Run) -> int | None:
        run.place.log(run.packet, self.prefix)
        return None


@expression("reject")
class Reject(Expression):
    """It is lost, and who sent it is told."""

    __slots__ = ("code", "kind")
    code: int
    kind: int

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.kind = number(data, nft.NFTA_REJECT_TYPE)
        made.code = 0
        if made.kind == nft.NFT_REJECT_TCP_RST:
            return made
        if made.kind not in (nft.NFT_REJECT_ICMP_UNREACH, nft.NFT_REJECT_ICMPX_UNREACH):
            raise EINVAL("type")
        made.code = number(data, nft.NFTA_REJECT_ICMP_CODE, size=1)
        is_own = made.kind == nft.NFT_REJECT_ICMPX_UNREACH
        if is_own and made.code > nft.NFT_REJECT_ICMPX_ADMIN_PROHIBITED:
            raise EINVAL("code")
        return made

    def run(self, run: Run) -> int | None:
        run.place.reject(run, self.kind, self.code)
        return nft.NF_DROP

    def check(self, base: Chain) -> None:
        if base.hook == nft.NF_INET_POST_ROUTING:
            raise EOPNOTSUPP("reject at postrouting")


@expression("numgen")
class Numbers(Expression):
    """One after the other, or by chance."""

    __slots__ = ("at", "is_random", "modulus", "offset", "registers")
    at: int
    is_random: bool
    modulus: int
    offset: int
    registers: slice

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.modulus = number(data, nft.NFTA_NG_MODULUS)
        made.offset = number(data, nft.NFTA_NG_OFFSET, 0)
        kind = number(data, nft.NFTA_NG_TYPE)
        if not made.modulus:
            raise EINVAL("modulus")
        if made.offset + made.modulus - 1 >= 1 << 32:
            raise EOVERFLOW("offset")
        if kind not in (nft.NFT_NG_INCREMENTAL, nft.NFT_NG_RANDOM):
            raise EINVAL("type")
        made.is_random = kind == nft.NFT_NG_RANDOM
        made.registers = register(data, nft.NFTA_NG_DREG, 4)
        made.at = made.modulus - 1
        return made

    def run(self, run: Run) -> int | None:
        if self.is_random:
            found = int.from_bytes(run.place.chance(4)) * self.modulus >> 32
        else:
            found = self.at = (self.at + 1) % self.modulus
        run.put(self.registers, (found + self.offset).to_bytes(4, "little"))
        return None


@expression("hash")
class Hash(Expression):
    """Of registers. Linux has another function, so which number it is differs."""

    __slots__ = ("modulus", "offset", "seed", "source", "target")
    modulus: int
    offset: int
    seed: int
    source: slice
    target: slice

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        if number(data, nft.NFTA_HASH_TYPE, nft.NFT_HASH_JENKINS) != nft.NFT_HASH_JENKINS:
            raise EOPNOTSUPP("type")
        made.modulus = number(data, nft.NFTA_HASH_MODULUS)
        made.offset = number(data, nft.NFTA_HASH_OFFSET, 0)
        made.seed = number(data, nft.NFTA_HASH_SEED, 0)
        if made.modulus < 1 or made.offset + made.modulus - 1 >= 1 << 32:
            raise EOVERFLOW("modulus")
        size = number(data, nft.NFTA_HASH_LEN)
        made.source = register(data, nft.NFTA_HASH_SREG, size)
        made.target = register(data, nft.NFTA_HASH_DREG, 4)
        return made

    def run(self, run: Run) -> int | None:
        found = (crc32(run.get(self.source), self.seed) * self.modulus >> 32) + self.offset
        run.put(self.target, found.to_bytes(4, "little"))
        return None


@expression("objref")
class ObjectReference(Expression):
    """A counter, quota or limit that has a name. Of a map of objects: `looking_up.ObjectMap`."""

    __slots__ = ("named",)
    named: Named

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        if nft.NFTA_OBJREF_SET_SREG in data:
            from sentry.net.netfilter.looking_up import ObjectMap  # noqa: PLC0415  which needs this

            return ObjectMap.parse(scope, data, raw)
        made = cls(raw)
        name = string(data, nft.NFTA_OBJREF_IMM_NAME)
        kind = number(data, nft.NFTA_OBJREF_IMM_TYPE)
        made.named = scope.table.object_named(name, kind)
        return made

    def run(self, run: Run) -> int | None:
        return self.named.state.run(run)

    def dump(self) -> bytes:
        """With a NUL behind the name, which need not have come."""
        made = text(nft.NFTA_OBJREF_IMM_NAME, self.named.name)
        return made + be32(nft.NFTA_OBJREF_IMM_TYPE, self.named.kind)

    @property
    def uses(self) -> Iterable[Used]:
        return (self.named,)


STATEFUL: Final = (Counter, Limit, Quota)
"""What may belong to an element of a set."""


def parse_stateful(scope: Scope, data: bytes) -> Expression:
    """One of a list of an element's. Raises: EOPNOTSUPP for what has no state, and what
    `parse_expression` raises."""
    name = string(parse_attributes(data), nft.NFTA_EXPR_NAME)
    kind = Expression.kinds.get(name)
    if kind is not None and not issubclass(kind, STATEFUL):
        raise EOPNOTSUPP("an expression without a state")
    return parse_expression(scope, data)


