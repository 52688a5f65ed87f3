"""Tables, chains, rules and named objects of a network namespace: struct nft_table and its parts.

They are values here; what programs may do with them is in `transaction.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sentry.abi import nftables as nft
from sentry.errors import EMFILE, ENOENT
from sentry.net.netfilter.ip_sets import IpSets

if TYPE_CHECKING:
    from collections import Counter as Counted

    from sentry.net.netfilter import machine
    from sentry.net.netfilter.machine import Expression
    from sentry.net.netfilter.packet import Packet
    from sentry.net.netfilter.sets import Set

MOST: Final = {
    "tables": 256, "chains": 2048, "rules": 8192, "sets": 2048, "elements": 32768, "objects": 2048,
    "expressions": 131072,
}  # fmt: skip
"""Of one namespace: ceilings of ours."""
U64: Final = (1 << 64) - 1


class Rule:
    """struct nft_rule."""

    __slots__ = ("chain", "expressions", "handle", "number", "userdata")

    def __init__(self, chain: Chain, expressions: list[Expression], userdata: bytes) -> None:
        self.chain = chain
        self.expressions = expressions
        self.userdata = userdata
        self.handle = 0
        self.number = 0
        """NFTA_RULE_ID: its name within a batch."""


class Chain:
    """struct nft_chain, and struct nft_base_chain."""

    levels: ClassVar = 1

    __slots__ = (
        "flags", "handle", "has_counters", "hook", "is_base", "kind", "met", "name", "number",
        "octets", "packets", "policy", "priority", "rules", "table", "use", "userdata",
    )  # fmt: skip

    def __init__(self, table: Table, name: str) -> None:
        self.table = table
        self.name = name
        self.handle = 0
        self.number = 0
        """NFTA_CHAIN_ID: its name within a batch."""
        self.rules: list[Rule] = []
        self.met = self.rules
        """Those that packets meet: what there was before a long batch that is under way."""
        self.use = 0
        """Rules and elements that lead here."""
        self.userdata = b""
        self.flags = 0
        self.is_base = False
        self.hook = self.priority = 0
        self.kind = ""
        """filter, nat, or route."""
        self.policy = nft.NF_ACCEPT
        self.has_counters = False
        self.packets = self.octets = 0
        """That the policy has decided about."""

    @property
    def is_anonymous(self) -> bool:
        """It belongs to a rule."""
        return bool(self.flags & nft.NFT_CHAIN_BINDING)

    def take_policy(self, packet: Packet) -> int:
        """No rule has decided."""
        if self.has_counters:
            self.packets = self.packets + 1 & U64
            self.octets = self.octets + len(packet.data) & U64
        return self.policy

    def leads_to(self) -> Iterable[machine.Node]:
        """The chains that its rules may jump to, and the maps that they ask: each once."""
        found: dict[int, Any] = {}
        for rule in self.rules:
            for each in rule.expressions:
                for used in each.uses:
                    if hasattr(used, "leads_to"):
                        found[id(used)] = used
        return found.values()

    def check(self, base: machine.Chain) -> None:
        """All its expressions. Raises: EOPNOTSUPP, EINVAL."""
        for rule in self.rules:
            for each in rule.expressions:
                each.check(base)


class Object:
    """Something with a state that has a name: struct nft_object."""

    __slots__ = ("handle", "kind", "name", "state", "table", "use", "userdata")

    def __init__(self, table: Table, name: str, kind: int, state: Expression) -> None:
        self.table = table
        self.name = name
        self.kind = kind
        """NFT_OBJECT_*."""
        self.state = state
        self.handle = 0
        self.use = 0
        self.userdata = b""


class Table:
    """struct nft_table."""

    __slots__ = (
        "chains", "family", "flags", "handle", "last_handle", "name", "objects", "owner", "rules",
        "sets", "userdata",
    )  # fmt: skip

    def __init__(self, family: int, name: str) -> None:
        self.family = family
        self.name = name
        self.handle = 0
        self.last_handle = 0
        self.flags = 0
        self.owner = 0
        """The port of the netlink socket that alone may change it, and with which it goes."""
        self.userdata = b""
        self.chains: dict[str, Chain] = {}
        self.rules: dict[int, Rule] = {}
        """By handle."""
        self.sets: dict[str, Set] = {}
        self.objects: dict[tuple[str, int], Object] = {}

    def new_handle(self) -> int:
        """For a part of it."""
        self.last_handle += 1
        return self.last_handle

    def object_named(self, name: str, kind: int) -> Object:
        """Raises: ENOENT."""
        found = self.objects.get((name, kind))
        if found is None:
            raise ENOENT(f"object {name}")
        return found

    @property
    def use(self) -> int:
        """Its parts."""
        return len(self.chains) + len(self.sets) + len(self.objects)


class Ruleset:
    """Of one namespace."""

    def __init__(self, counts: Counted[str]) -> None:
        self.tables: dict[tuple[int, str], Table] = {}
        self.generation = 1
        self.last_handle = 0
        self.counts = counts
        """How many of what there are."""
        self.ip_sets = IpSets(counts, MOST["elements"])

    def take_room(self, what: str, number: int = 1) -> None:
        """For so many more. Raises: EMFILE."""
        if self.counts[what] + number > MOST[what]:
            raise EMFILE(f"too many {what}")
        self.counts[what] += number

    def base_chains(self) -> Iterator[Chain]:
        """Of tables that do not sleep."""
        for table in self.tables.values():
            if not table.flags & nft.NFT_TABLE_F_DORMANT:
                yield from (each for each in table.chains.values() if each.is_base)
