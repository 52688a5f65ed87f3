"""The virtual machine of nftables: registers, expressions, chains. net/netfilter/nf_tables_core.c.

An expression is made of the attributes that a program has sent, checked once (`Expression.parse`),
and keeps them as they came: so it is told to programs as it was.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar

from sentry.abi import nftables as nft
from sentry.abi.netlink import NLA_TYPE_MASK
from sentry.errors import E2BIG, EINVAL, EMLINK, ENOENT, EOPNOTSUPP, ERANGE
from sentry.net.netlink.message import attribute, parse_attributes

if TYPE_CHECKING:
    from sentry.net.netfilter.conntrack import Conntrack
    from sentry.net.netfilter.ip_sets import IpSets
    from sentry.net.netfilter.nat import Range
    from sentry.net.netfilter.packet import Packet

REGISTERS_SIZE: Final = 64
NESTED: Final = 0x8000
MAX_EXPRESSIONS: Final = 128
"""Of a rule: NFT_RULE_MAXEXPRS."""
MAX_RAW: Final = 4096
"""Bytes that an expression is made of: a ceiling of ours, for they are kept."""
MAX_DEPTH: Final = 16
"""Chains inside of each other: NFT_JUMP_STACK_SIZE."""
MAX_STEPS: Final = 16384
"""Expressions and rules that a packet may meet; beyond them it is lost. A ceiling of ours, which
holds its cost: chains can jump to each other in more ways than there is time for."""
BASE_STEPS: Final = 8
"""That a base chain counts as."""
Attributes = dict[int, bytes]


class Used(Protocol):
    """What an expression needs: it stays as long as that is in use."""

    use: int


class Node(Used, Protocol):
    """What leads to chains: a chain, or a map of verdicts."""

    name: str
    levels: ClassVar[int]
    """How deep it is by itself: of a chain 1, of a map 0."""

    def leads_to(self) -> Iterable[Node]:
        """What is met from it, each once."""

    def check(self, base: Chain) -> None:
        """What stands in it may be met from this base chain. Raises: EOPNOTSUPP, EINVAL."""


class Chain(Node, Protocol):
    """sentry.net.netfilter.ruleset.Chain."""

    rules: list[Any]
    met: list[Any]
    is_base: bool
    hook: int
    kind: str

    @property
    def is_anonymous(self) -> bool:
        """It belongs to a rule."""

    def take_policy(self, packet: Packet) -> int: ...


class Named(Used, Protocol):
    """sentry.net.netfilter.ruleset.Object."""

    name: str
    kind: int

    @property
    def state(self) -> Expression: ...


class Table(Protocol):
    """sentry.net.netfilter.ruleset.Table."""

    family: int

    def object_named(self, name: str, kind: int) -> Named: ...


class Place(Protocol):
    """What expressions ask the namespace for."""

    conntrack: Conntrack

    def translate(self, run: Run, wanted: Range, *, is_source: bool) -> int:
        """A connection gets another source or target: the verdict."""

    def redirect_to(self, packet: Packet) -> bytes:
        """The address of ours that `redirect` means; empty: there is none."""

    def kind_of(self, ip: bytes, index: int) -> int:
        """RTN_*: by the interface if `index` is not 0."""

    def out_index(self, ip: bytes) -> int:
        """By which interface there is a way to an address; 0: there is none."""

    def name_of(self, index: int) -> str:
        """Of an interface; empty: there is none."""

    def type_of(self, index: int) -> int:
        """ARPHRD_* of it."""

    def reject(self, run: Run, kind: int, code: int) -> None:
        """Tell who sent it: NFT_REJECT_*."""

    def log(self, packet: Packet, prefix: str) -> None:
        """To the log of the sandbox."""

    def may_remember(self, group: Any, now_ns: int) -> bool:
        """There is room for one more element of a set, which is counted."""

    def forgot(self, number: int) -> None:
        """So many elements are no more."""

    def chance(self, size: int) -> bytes:
        """So many random bytes."""

    def wall_ns(self) -> int:
        """Since 1970."""


class Run:
    """A packet at a hook."""

    __slots__ = ("hook", "now_ns", "packet", "place", "registers", "to")

    def __init__(self, place: Place, packet: Packet, hook: int, now_ns: int) -> None:
        self.place = place
        self.packet = packet
        self.hook = hook
        self.now_ns = now_ns
        self.registers = bytearray(REGISTERS_SIZE)
        self.to: Chain | None = None
        """Where a verdict leads."""

    def get(self, where: slice) -> bytes:
        """What stands in registers."""
        return bytes(self.registers[where])

    def put(self, where: slice, value: bytes) -> None:
        """Into registers, padded up to the next one."""
        end = where.start + (len(value) + 3 & ~3)
        self.registers[where.start : end] = value.ljust(end - where.start, b"\0")


class Scope(Protocol):
    """What an expression is made in: `sentry.net.netfilter.transaction`."""

    protocol: tuple[int, bool]
    """Of NFTA_RULE_COMPAT, and whether it is any other."""

    @property
    def table(self) -> Table: ...
    @property
    def ip_sets(self) -> IpSets:
        """Of ipset(8)."""

    def set_named(self, data: Attributes, name: int, number: int) -> Any:
        """By its name, or by its id in this batch. Raises: ENOENT, EINVAL."""

    def chain_named(self, data: Attributes) -> Chain:
        """By NFTA_VERDICT_CHAIN or its id. Raises: ENOENT, EINVAL."""


class Expression:
    """One of a rule."""

    __slots__ = ("raw",)
    name: ClassVar[str]
    kinds: ClassVar[dict[str, type[Expression]]] = {}
    """All that there are, by name; `sentry.net.netfilter.hooks` imports them."""
    needs_tracking = False
    """It asks for connections."""

    def __init__(self, raw: bytes) -> None:
        """Raises: E2BIG."""
        if len(raw) > MAX_RAW:
            raise E2BIG(f"an expression of {len(raw)} bytes")
        self.raw = raw
        """NFTA_EXPR_DATA, as it came."""

    @classmethod
    def parse(cls, scope: Scope, data: Attributes, raw: bytes) -> Expression:
        """Raises: E2BIG, EINVAL, ERANGE, ENOENT, EOPNOTSUPP."""
        raise NotImplementedError

    def run(self, run: Run) -> int | None:
        """A verdict; None: go on with the next one."""
        raise NotImplementedError

    def dump(self) -> bytes:
        """NFTA_EXPR_DATA."""
        return self.raw

    def reset(self) -> None:
        """What was counted is told, and counted from 0 on."""

    @property
    def uses(self) -> Iterable[Used]:
        """What it needs."""
        return ()

    def check(self, base: Chain) -> None:
        """It may be met from this base chain. Raises: EOPNOTSUPP, EINVAL."""


Made = TypeVar("Made", bound=Expression)


def expression(name: str) -> Callable[[type[Made]], type[Made]]:
    """Register a kind of expression."""

    def register(kind: type[Made]) -> type[Made]:
        kind.name = name
        Expression.kinds[name] = kind
        return kind

    return register


# --- attributes


def number(data: Attributes, kind: int, default: int | None = None, size: int = 4) -> int:
    """A number, most significant byte first. Raises: EINVAL where there is none, ERANGE."""
    value = data.get(kind)
    if value is None:
        if default is None:
            raise EINVAL(f"attribute {kind} is missing")
        return default
    if len(value) < size:
        raise ERANGE(f"attribute {kind} has {len(value)} bytes")
    return int.from_bytes(value[:size])


def string(data: Attributes, kind: int, most: int = 256) -> str:
    """A text. Raises: EINVAL where there is none, ERANGE."""
    value = data.get(kind)
    if value is None:
        raise EINVAL(f"attribute {kind} is missing")
    text = value.split(b"\0", 1)[0]
    if not text or len(text) >= most:
        raise ERANGE(f"a name of {len(text)} bytes")
    return text.decode(errors="surrogateescape")


def be32(kind: int, value: int) -> bytes:
    """An attribute."""
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def be64(kind: int, value: int) -> bytes:
    """An attribute."""
    return attribute(kind, struct.pack(">Q", value & (1 << 64) - 1))


def text(kind: int, value: str) -> bytes:
    """An attribute, with its NUL."""
    return attribute(kind, value.encode(errors="surrogateescape") + b"\0")


def nested(kind: int, value: bytes) -> bytes:
    """Attributes in an attribute."""
    return attribute(kind | NESTED, value)


def elements(data: bytes, wanted: int = 0) -> list[bytes]:
    """A list of attributes of one type, or of any if that is 0. Raises: EINVAL."""
    found: list[bytes] = []
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("<HH", data, at)
        if size < 4 or at + size > len(data) or wanted not in (0, kind & NLA_TYPE_MASK):
            raise EINVAL("a list of something else")
        found.append(data[at + 4 : at + size])
        at += size + 3 & ~3
    return found


def register(data: Attributes, kind: int, size: int) -> slice:
    """Registers with room for so many bytes. Raises: EINVAL, ERANGE."""
    found = number(data, kind)
    if nft.NFT_REG_1 <= found <= nft.NFT_REG_4:
        start = (found - nft.NFT_REG_1) * 16
    elif nft.NFT_REG32_00 <= found <= nft.NFT_REG32_15:
        start = (found - nft.NFT_REG32_00) * 4
    else:
        raise ERANGE(f"register {found}")
    if not 0 < size <= REGISTERS_SIZE - start:
        raise ERANGE(f"{size} bytes in register {found}")
    return slice(start, start + size)


def value_of(data: Attributes, kind: int) -> bytes:
    """The value of a nested NFTA_DATA_VALUE. Raises: EINVAL."""
    inner = parse_attributes(data.get(kind, b""))
    value = inner.get(nft.NFTA_DATA_VALUE)
    if value is None or not 0 < len(value) <= nft.NFT_DATA_VALUE_MAXLEN:
        raise EINVAL(f"attribute {kind} has no value")
    return value


class Verdict:
    """A code, and where it leads: struct nft_verdict."""

    __slots__ = ("chain", "code")

    def __init__(self, code: int, chain: Chain | None = None) -> None:
        self.code = code
        self.chain = chain

    def dump(self) -> bytes:
        """NFTA_DATA_VERDICT."""
        inner = be32(nft.NFTA_VERDICT_CODE, self.code)
        if self.chain is not None:
            inner += text(nft.NFTA_VERDICT_CHAIN, self.chain.name)
        return nested(nft.NFTA_DATA_VERDICT, inner)


PLAIN: Final = (nft.NF_ACCEPT, nft.NF_DROP, nft.NFT_CONTINUE, nft.NFT_BREAK, nft.NFT_RETURN)


def verdict_of(scope: Scope, data: bytes) -> Verdict:
    """Of NFTA_DATA_VERDICT. Raises: EINVAL, ENOENT, EOPNOTSUPP."""
    inner = parse_attributes(data)
    code = number(inner, nft.NFTA_VERDICT_CODE)
    code -= (code & 0x80000000) << 1
    if code in PLAIN:
        return Verdict(code)
    if code not in (nft.NFT_JUMP, nft.NFT_GOTO):
        raise EINVAL(f"verdict {code}")
    chain = scope.chain_named(inner)
    if chain.is_base:
        raise EOPNOTSUPP("a jump to a base chain")
    return Verdict(code, chain)


# --- rules


def parse_expression(scope: Scope, data: bytes) -> Expression:
    """One of a list. Raises: what its kind raises, ENOENT for one that is not known."""
    attributes = parse_attributes(data)
    name = string(attributes, nft.NFTA_EXPR_NAME)
    kind = Expression.kinds.get(name)
    if kind is None:
        raise ENOENT(f"expression {name}")
    raw = attributes.get(nft.NFTA_EXPR_DATA, b"")
    return kind.parse(scope, parse_attributes(raw), raw)


def dump_expression(made: Expression) -> bytes:
    """Its name, and its data."""
    return text(nft.NFTA_EXPR_NAME, made.name) + nested(nft.NFTA_EXPR_DATA, made.dump())


def evaluate(base: Chain, run: Run) -> int:
    """NF_ACCEPT or NF_DROP: nft_do_chain()."""
    packet = run.packet
    packet.steps += BASE_STEPS
    if packet.steps > MAX_STEPS:
        return nft.NF_DROP
    back: list[tuple[list[Any], int]] = []
    rules, at = base.met, 0
    while True:
        if at >= len(rules):
            if not back:
                return base.take_policy(packet)
            rules, at = back.pop()
            continue
        verdict = run_rule(rules[at], run)
        at += 1
        if packet.steps > MAX_STEPS:
            return nft.NF_DROP
        if verdict is None or verdict in (nft.NFT_CONTINUE, nft.NFT_BREAK):
            continue
        if verdict == nft.NFT_RETURN:
            at = len(rules)
        elif verdict in (nft.NFT_JUMP, nft.NFT_GOTO):
            assert run.to is not None
            if verdict == nft.NFT_JUMP:
                if len(back) >= MAX_DEPTH:
                    return nft.NF_DROP
                back.append((rules, at))
            rules, at = run.to.met, 0
        else:
            return verdict


def run_rule(rule: Any, run: Run) -> int | None:
    """The verdict of one rule."""
    packet = run.packet
    packet.steps += 1
    for each in rule.expressions:
        packet.steps += 1
        verdict: int | None = each.run(run)
        if verdict is not None:
            return verdict
    return None


def check_jumps(base: Chain, depth: dict[int, int]) -> None:
    """What a base chain leads to: no deeper than may be, and only what may stand there.

    `depth`: of what was looked at from a base chain of the same type at the same hook, by identity.
    Raises: EMLINK, and what `Node.check` raises.
    """
    under_way: set[int] = set()
    stack: list[tuple[Node, list[Node], Iterator[Node]]] = []
    inside = 0

    def enter(node: Node) -> None:
        nonlocal inside
        under_way.add(id(node))
        inside += node.levels
        node.check(base)
        every = list(node.leads_to())
        stack.append((node, every, iter(every)))

    enter(base)
    while stack:
        node, every, left = stack[-1]
        following = next(left, None)
        if following is not None:
            known = depth.get(id(following))
            deep = inside + (following.levels if known is None else known)
            if id(following) in under_way or deep > MAX_DEPTH:
                raise EMLINK(f"{following.name} is jumped to from itself, or too deep")
            if known is None:
                enter(following)
            continue
        stack.pop()
        under_way.discard(id(node))
        inside -= node.levels
        depth[id(node)] = node.levels + max((depth[id(each)] for each in every), default=0)
