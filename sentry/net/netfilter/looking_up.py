"""Expressions that ask sets: net/netfilter/nft_lookup.c, nft_dynset.c, and maps of objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sentry.abi import nftables as nft
from sentry.copied import copied
from sentry.errors import EBUSY, EINVAL, EOPNOTSUPP
from sentry.net.netfilter.acting import ObjectReference, parse_stateful
from sentry.net.netfilter.machine import (
    Attributes,
    Expression,
    Run,
    Scope,
    Used,
    Verdict,
    be32,
    elements,
    expression,
    number,
    register,
    text,
)
from sentry.net.netfilter.sets import Element
from sentry.net.netlink.message import parse_attributes

if TYPE_CHECKING:
    from sentry.net.netfilter.sets import Set

MS_NS = 1_000_000


@expression("lookup")
class Lookup(Expression):
    """It is in a set, or not; what a map has for it."""

    __slots__ = ("flags", "group", "is_inverted", "key", "registers")
    flags: int
    group: Set
    is_inverted: bool
    key: slice
    registers: slice | None

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.group = scope.set_named(data, nft.NFTA_LOOKUP_SET, nft.NFTA_LOOKUP_SET_ID)
        made.key = register(data, nft.NFTA_LOOKUP_SREG, made.group.key_size)
        made.flags = number(data, nft.NFTA_LOOKUP_FLAGS, 0)
        if made.flags & ~nft.NFT_LOOKUP_F_INV:
            raise EINVAL("flags")
        made.is_inverted = bool(made.flags)
        made.registers = None
        if nft.NFTA_LOOKUP_DREG in data:
            if made.is_inverted or not made.group.flags & nft.NFT_SET_MAP:
                raise EINVAL("no map")
            if number(data, nft.NFTA_LOOKUP_DREG) != nft.NFT_REG_VERDICT:
                made.registers = register(data, nft.NFTA_LOOKUP_DREG, made.group.data_size)
            elif made.group.data_type != nft.NFT_DATA_VERDICT:
                raise EINVAL("no map of verdicts")
        elif made.group.flags & nft.NFT_SET_MAP:
            raise EINVAL("a map")
        return made

    def run(self, run: Run) -> int | None:
        found = self.group.find(run, run.get(self.key))
        if (found is not None) == self.is_inverted:
            return nft.NFT_BREAK
        if found is None or found.data is None:
            return None
        if isinstance(found.data, Verdict):
            run.to = found.data.chain
            return found.data.code
        if self.registers is not None:
            run.put(self.registers, found.data)
        return None

    def dump(self) -> bytes:
        """The set by its name, which an anonymous one has since it was made."""
        data = parse_attributes(self.raw)
        made = text(nft.NFTA_LOOKUP_SET, self.group.name)
        made += be32(nft.NFTA_LOOKUP_SREG, number(data, nft.NFTA_LOOKUP_SREG))
        if nft.NFTA_LOOKUP_DREG in data:
            made += be32(nft.NFTA_LOOKUP_DREG, number(data, nft.NFTA_LOOKUP_DREG))
        return made + be32(nft.NFTA_LOOKUP_FLAGS, self.flags)

    @property
    def uses(self) -> Iterable[Used]:
        return (self.group,)


class ObjectMap(ObjectReference):
    """The object that a map has for it."""

    __slots__ = ("group", "key")
    group: Set
    key: slice

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.group = scope.set_named(data, nft.NFTA_OBJREF_SET_NAME, nft.NFTA_OBJREF_SET_ID)
        if not made.group.flags & nft.NFT_SET_OBJECT:
            raise EINVAL("no map of objects")
        made.key = register(data, nft.NFTA_OBJREF_SET_SREG, made.group.key_size)
        return made

    def run(self, run: Run) -> int | None:
        found = self.group.find(run, run.get(self.key))
        if found is None or found.named is None:
            return nft.NFT_BREAK
        return found.named.state.run(run)

    def dump(self) -> bytes:
        data = parse_attributes(self.raw)
        made = be32(nft.NFTA_OBJREF_SET_SREG, number(data, nft.NFTA_OBJREF_SET_SREG))
        return made + text(nft.NFTA_OBJREF_SET_NAME, self.group.name)

    @property
    def uses(self) -> Iterable[Used]:
        return (self.group,)


@expression("dynset")
class Remember(Expression):
    """An element is added to a set, or taken from it, by what a packet says."""

    __slots__ = ("expressions", "group", "is_inverted", "key", "op", "timeout_ms", "value")
    expressions: list[Expression]
    """What each element gets: as it is made, for none of these is ever run."""
    group: Set
    is_inverted: bool
    key: slice
    op: int
    timeout_ms: int
    value: slice | None

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        made = cls(raw)
        made.group = scope.set_named(data, nft.NFTA_DYNSET_SET_NAME, nft.NFTA_DYNSET_SET_ID)
        if made.group.flags & nft.NFT_SET_CONSTANT:
            raise EBUSY("a constant set")
        if made.group.flags & (nft.NFT_SET_OBJECT | nft.NFT_SET_INTERVAL):
            raise EOPNOTSUPP("such a set")
        made.op = number(data, nft.NFTA_DYNSET_OP)
        if made.op > nft.NFT_DYNSET_OP_DELETE:
            raise EOPNOTSUPP("op")
        made.key = register(data, nft.NFTA_DYNSET_SREG_KEY, made.group.key_size)
        flags = number(data, nft.NFTA_DYNSET_FLAGS, 0)
        made.is_inverted = bool(flags & nft.NFT_DYNSET_F_INV)
        made.timeout_ms = number(data, nft.NFTA_DYNSET_TIMEOUT, 0, 8)
        if nft.NFTA_DYNSET_TIMEOUT in data and not made.group.flags & nft.NFT_SET_TIMEOUT:
            raise EOPNOTSUPP("a set without timeouts")
        made.value = None
        if nft.NFTA_DYNSET_SREG_DATA in data:
            if not made.group.flags & nft.NFT_SET_MAP or not made.group.data_size:
                raise EOPNOTSUPP("no map of values")
            made.value = register(data, nft.NFTA_DYNSET_SREG_DATA, made.group.data_size)
        elif made.group.flags & nft.NFT_SET_MAP:
            raise EINVAL("a map")
        listed = elements(data.get(nft.NFTA_DYNSET_EXPRESSIONS, b""), nft.NFTA_LIST_ELEM)
        if nft.NFTA_DYNSET_EXPR in data:
            listed = [data[nft.NFTA_DYNSET_EXPR]]
        if len(listed) > 2:
            raise EOPNOTSUPP("more than two expressions")
        made.expressions = [parse_stateful(scope, each) for each in listed]
        return made

    def run(self, run: Run) -> int | None:
        wanted = Element(run.get(self.key))
        group = self.group if self.group.met is None else self.group.met
        known = group.known(wanted)
        if known is not None and known.is_over(run.now_ns):
            self._forget(run, known)
            known = None
        if self.op == nft.NFT_DYNSET_OP_DELETE:
            if known is None:
                return None if self.is_inverted else nft.NFT_BREAK
            self._forget(run, known)
        elif known is None and not self._add(run, wanted):
            return None if self.is_inverted else nft.NFT_BREAK
        elif known is not None and self.op == nft.NFT_DYNSET_OP_UPDATE and known.timeout_ms:
            known.expires_ns = run.now_ns + known.timeout_ms * MS_NS
        for each in (known or wanted).expressions:
            verdict = each.run(run)
            if verdict is not None:
                return None if self.is_inverted else verdict
        return nft.NFT_BREAK if self.is_inverted else None

    def _add(self, run: Run, wanted: Element) -> bool:
        """False: there is no room."""
        if not run.place.may_remember(self.group, run.now_ns):
            return False
        wanted.timeout_ms = self.timeout_ms or self.group.timeout_ms
        if wanted.timeout_ms:
            wanted.expires_ns = run.now_ns + wanted.timeout_ms * MS_NS
        if self.value is not None:
            wanted.data = run.get(self.value)
        wanted.expressions = [copied(each) for each in self.expressions or self.group.expressions]
        if not self.group.learn(wanted):
            run.place.forgot(1)
        return True

    def _forget(self, run: Run, known: Element) -> None:
        if self.group.unlearn(known):
            run.place.forgot(1)

    @property
    def uses(self) -> Iterable[Used]:
        return (self.group,)
