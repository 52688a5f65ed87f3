"""A batch of changes to the tables: all of it, or nothing. net/netfilter/nf_tables_api.c.

A change is made at once and remembers how it is undone. Packets see nothing in between: a short
batch is one step, and of what a long one changes, which others run beside, they see what there was
before (`met`), as nft_is_active() has it. Who asks waits (`Netfilter.lock`).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from sentry.abi import nftables as nft
from sentry.abi.netlink import NLM_F_ECHO
from sentry.errors import EBUSY, EINVAL, ENOENT, EOPNOTSUPP, EPERM
from sentry.net.netfilter.machine import (
    Attributes,
    Expression,
    Verdict,
    check_jumps,
    number,
    string,
)
from sentry.net.netfilter.ruleset import Chain, Object, Rule, Ruleset, Table
from sentry.net.netfilter.sets import Set

if TYPE_CHECKING:
    from sentry.net.netfilter.ip_sets import IpSets
    from sentry.net.netfilter.machine import Used
    from sentry.net.netfilter.sets import Element


class Change(NamedTuple):
    """One of a batch, as those hear of it who want to."""

    kind: int
    """NFT_MSG_*."""
    what: Any
    """A table, chain, rule, set or object."""
    element: Element | None
    """Of the set."""
    sequence: int
    flags: int
    """Of the message that has asked for it."""


class Transaction:
    """One batch."""

    def __init__(
        self, ruleset: Ruleset, now_ns: int, port: int, *, is_long: bool = False
    ) -> None:
        """`is_long`: packets come before its end."""
        self.ruleset = ruleset
        self.is_long = is_long
        self.now_ns = now_ns
        self.port = port
        """Of the netlink socket that asks."""
        self.chains: dict[int, Chain] = {}
        self.sets: dict[int, Set] = {}
        self.rules: dict[int, Rule] = {}
        """By the ids that the batch has given them, while they are there."""
        self._undo: list[Callable[[], object]] = []
        self._staged: list[Chain | Set] = []
        """Of which packets see what there was before."""
        self._later: list[tuple[object, str, object]] = []
        """Attributes that are changed at the end."""
        self._unbound: list[Set] = []
        """Anonymous sets, which a rule has to use."""
        self.is_heard = False
        """Somebody wants to hear of each change."""
        self.asked = (0, 0)
        """Sequence number and flags of the message that is done now."""
        self.changes: list[Change] = []
        """What has changed, in order, as far as somebody wants to hear of it."""
        self.must_check = False
        """Something has come that leads to other chains, or may not stand everywhere."""

    # --- its end

    def commit(self) -> None:
        """It counts from now on. Raises: EMLINK, EOPNOTSUPP, EINVAL; then `abort` is to follow."""
        if any(not each.use for each in self._unbound):
            raise EINVAL("an anonymous set that nobody uses")
        for later in self._later:
            self._set(*later)
        if self.must_check:
            known: dict[tuple[str, int], dict[int, int]] = {}
            for each in self.ruleset.base_chains():
                check_jumps(each, known.setdefault((each.kind, each.hook), {}))
        self.ruleset.generation = self.ruleset.generation + 1 & 0xFFFFFFFF or 1
        self._undo.clear()
        self._publish()

    def abort(self) -> None:
        """As if nothing had been."""
        while self._undo:
            self._undo.pop()()
        self._publish()

    def _stage(self, what: Chain | Set) -> None:
        """It is about to be changed."""
        if not self.is_long:
            return
        if isinstance(what, Set):
            if what.met is None:
                what.stage()
                self._staged.append(what)
        elif what.met is what.rules:
            what.met = list(what.rules)
            self._staged.append(what)

    def _publish(self) -> None:
        """Packets see what there is."""
        for each in self._staged:
            if isinstance(each, Set):
                each.met = None
            else:
                each.met = each.rules
        self._staged.clear()

    # --- tools

    def _set(self, what: object, name: str, value: object) -> None:
        """An attribute, which gets its value of before if it is undone."""
        before = getattr(what, name)
        setattr(what, name, value)
        self._undo.append(lambda: setattr(what, name, before))

    def change(self, what: Chain | Table | Set | Object, name: str, value: object) -> None:
        """The same, for who changes what is there: at the end, if packets come before."""
        if self.is_long:
            self._later.append((what, name, value))
        else:
            self._set(what, name, value)

    def note(self, kind: int, what: Any, element: Element | None = None) -> None:
        """NFT_MSG_*: something is new, is another, or is gone."""
        if self.is_heard or self.asked[1] & NLM_F_ECHO:
            self.changes.append(Change(kind, what, element, *self.asked))

    def _room(self, what: str, number: int = 1) -> None:
        self.ruleset.take_room(what, number)
        self._undo.append(lambda: self._count(what, -number))

    def _count(self, what: str, by: int) -> None:
        self.ruleset.counts[what] += by

    def _gone(self, what: str) -> None:
        self._recount(what, -1)

    def _recount(self, what: str, by: int) -> None:
        """Counted, whatever there is room for."""
        self._count(what, by)
        self._undo.append(lambda: self._count(what, -by))

    def _use(self, used: Iterable[Used], by: int) -> None:
        for each in used:
            self._used(each, by)
            self._undo.append(lambda each=each: self._used(each, -by))  # type: ignore[misc]

    def _used(self, what: Used, by: int) -> None:
        what.use += by

    def check_owner(self, table: Table) -> None:
        """Raises: EPERM."""
        if table.owner not in (0, self.port):
            raise EPERM("the table is somebody else's")

    # --- tables

    def add_table(self, table: Table) -> None:
        """Raises: EMFILE."""
        self._room("tables")
        ruleset = self.ruleset
        ruleset.last_handle += 1
        table.handle = ruleset.last_handle
        key = table.family, table.name
        ruleset.tables[key] = table
        self._undo.append(lambda: ruleset.tables.pop(key))
        self.note(nft.NFT_MSG_NEWTABLE, table)

    def remove_table(self, table: Table) -> None:
        """With all that is in it."""
        for chain in list(table.chains.values()):
            self.remove_rules(chain)
        for group in list(table.sets.values()):
            self.remove_set(group)
        for named in list(table.objects.values()):
            self.remove_object(named)
        for chain in list(table.chains.values()):
            self._drop_chain(chain)
        tables, key = self.ruleset.tables, (table.family, table.name)
        del tables[key]
        self._undo.append(lambda: tables.__setitem__(key, table))
        self._gone("tables")
        self.note(nft.NFT_MSG_DELTABLE, table)

    # --- chains

    def add_chain(self, chain: Chain) -> None:
        """Raises: EMFILE."""
        self._room("chains")
        chains = chain.table.chains
        if not chain.name:
            chain.name = _free_name("__chain", chain.table.last_handle, chains)
        chain.handle = chain.table.new_handle()
        chains[chain.name] = chain
        self._undo.append(lambda: chains.pop(chain.name))
        self.note(nft.NFT_MSG_NEWCHAIN, chain)

    def remove_chain(self, chain: Chain) -> None:
        """With its rules. Raises: EBUSY if others lead to it."""
        self.remove_rules(chain)
        if chain.use:
            raise EBUSY(f"chain {chain.name} is in use")
        self._drop_chain(chain)

    def _drop_chain(self, chain: Chain) -> None:
        chains = chain.table.chains
        del chains[chain.name]
        if self.chains.get(chain.number) is chain:
            del self.chains[chain.number]
        self._undo.append(lambda: chains.__setitem__(chain.name, chain))
        self._gone("chains")
        self.note(nft.NFT_MSG_DELCHAIN, chain)

    def rename_chain(self, chain: Chain, name: str) -> None:
        """Preconditions: the name is free."""
        chains, before = chain.table.chains, chain.name

        def rename(now: str, then: str) -> None:
            del chains[now]
            chain.name = then
            chains[then] = chain

        rename(before, name)
        self._undo.append(lambda: rename(name, before))

    # --- rules

    def check_anonymous(self, rule: Rule) -> None:
        """A set or a chain that belongs to a rule is asked by it alone, and once; and from such a
        chain none leads on. Raises: EBUSY, EINVAL, EOPNOTSUPP. nf_tables_bind_set(), _chain()."""
        mine: set[int] = set()
        for used in (each for made in rule.expressions for each in made.uses):
            if not getattr(used, "is_anonymous", False):
                continue
            is_chain = isinstance(used, Chain)
            if is_chain and rule.chain.is_anonymous:
                raise EOPNOTSUPP("a chain of a rule leads to another one")
            if used.use or id(used) in mine:
                raise (EINVAL if is_chain else EBUSY)("it belongs to another rule")
            mine.add(id(used))

    def add_rule(self, rule: Rule, at: int) -> None:
        """At an index of its chain. Raises: EMFILE, and what expressions raise that may not stand
        there."""
        chain, table = rule.chain, rule.chain.table
        self._room("rules")
        self._room("expressions", len(rule.expressions))
        rule.handle = table.new_handle()
        self._stage(chain)
        chain.rules.insert(at, rule)
        table.rules[rule.handle] = rule
        self.note(nft.NFT_MSG_NEWRULE, rule)

        def undo() -> None:
            del chain.rules[at]
            del table.rules[rule.handle]

        self._undo.append(undo)
        if any(each.needs_tracking for each in rule.expressions):
            self._recount("tracking", 1)
        for each in rule.expressions:
            self._use(each.uses, 1)
            if chain.is_base:
                each.check(chain)
            self.must_check |= bool(each.uses) or type(each).check is not Expression.check

    def remove_rule(self, rule: Rule) -> None:
        """With what belongs to it alone."""
        chain, table = rule.chain, rule.chain.table
        at = len(chain.rules) - 1 if chain.rules[-1] is rule else chain.rules.index(rule)
        self._stage(chain)
        del chain.rules[at]
        del table.rules[rule.handle]
        if self.rules.get(rule.number) is rule:
            del self.rules[rule.number]

        def undo() -> None:
            chain.rules.insert(at, rule)
            table.rules[rule.handle] = rule

        self._undo.append(undo)
        self._gone("rules")
        self._recount("expressions", -len(rule.expressions))
        self.note(nft.NFT_MSG_DELRULE, rule)
        if any(each.needs_tracking for each in rule.expressions):
            self._recount("tracking", -1)
        for each in rule.expressions:
            for used in each.uses:
                self._use((used,), -1)
                if isinstance(used, Set) and used.is_anonymous and not used.use:
                    self.remove_set(used)
                elif isinstance(used, Chain) and used.is_anonymous:
                    self.remove_chain(used)

    def remove_rules(self, chain: Chain) -> None:
        """All of a chain: the last one goes first, which costs least, and is told last."""
        begin, told = len(self.changes), []
        for rule in reversed(list(chain.rules)):
            self.remove_rule(rule)
            told.append(self.changes[begin:])
            del self.changes[begin:]
        for each in reversed(told):
            self.changes += each

    # --- sets

    def add_set(self, group: Set) -> None:
        """Raises: EMFILE, EINVAL."""
        self._room("sets")
        sets = group.table.sets
        if "%d" in group.name:
            begin = group.name.replace("%d", "")
            group.name = _free_name(begin, group.table.last_handle, sets)
        group.handle = group.table.new_handle()
        sets[group.name] = group
        self._undo.append(lambda: sets.pop(group.name))
        self.note(nft.NFT_MSG_NEWSET, group)
        if group.is_anonymous:
            self._unbound.append(group)

    def remove_set(self, group: Set) -> None:
        """With its elements."""
        for each in list(group):
            self._forget_uses(each)
        sets, count = group.table.sets, len(group)
        del sets[group.name]
        if self.sets.get(group.number) is group:
            del self.sets[group.number]
        self._count("elements", -count)
        self._undo.append(lambda: self._count("elements", len(group)))
        self._undo.append(lambda: sets.__setitem__(group.name, group))
        self._gone("sets")
        self.note(nft.NFT_MSG_DELSET, group)
        if group in self._unbound:
            self._unbound.remove(group)

    def add_element(self, group: Set, element: Element) -> None:
        """Raises: EMFILE, ENFILE."""
        for each in group.expired(self.now_ns) if group.is_full else ():
            self._drop_element(group, each)
        self._room("elements")
        self._stage(group)
        group.add(element)
        self._undo.append(lambda: self._take_away(group, element))
        self.note(nft.NFT_MSG_NEWSETELEM, group, element)
        if isinstance(element.data, Verdict) and element.data.chain is not None:
            self._use((element.data.chain,), 1)
            self.must_check = True
        if element.named is not None:
            self._use((element.named,), 1)

    def remove_element(self, group: Set, element: Element) -> None:
        """Preconditions: it is there."""
        self._drop_element(group, element)
        self.note(nft.NFT_MSG_DELSETELEM, group, element)

    def _drop_element(self, group: Set, element: Element) -> None:
        self._stage(group)
        group.remove(element)
        self._undo.append(lambda: self._put_back(group, element))
        self._gone("elements")
        self._forget_uses(element)

    def _take_away(self, group: Set, element: Element) -> None:
        """Unless a packet has done so, and has counted it."""
        if group.known(element) is element:
            group.remove(element)
        else:
            self._count("elements", 1)

    def _put_back(self, group: Set, element: Element) -> None:
        """Unless packets have taken its place, and have counted that."""
        if group.known(element) is None and not group.is_full:
            group.add(element)
        else:
            self._count("elements", -1)

    def _forget_uses(self, element: Element) -> None:
        if isinstance(element.data, Verdict) and element.data.chain is not None:
            self._use((element.data.chain,), -1)
        if element.named is not None:
            self._use((element.named,), -1)

    # --- objects

    def add_object(self, named: Object) -> None:
        """Raises: EMFILE."""
        self._room("objects")
        objects, key = named.table.objects, (named.name, named.kind)
        named.handle = named.table.new_handle()
        objects[key] = named
        self._undo.append(lambda: objects.pop(key))
        self.note(nft.NFT_MSG_NEWOBJ, named)

    def remove_object(self, named: Object) -> None:
        """Preconditions: nobody uses it."""
        objects, key = named.table.objects, (named.name, named.kind)
        del objects[key]
        self._undo.append(lambda: objects.__setitem__(key, named))
        self._gone("objects")
        self.note(nft.NFT_MSG_DELOBJ, named)


def _free_name(begin: str, first: int, taken: Container[str]) -> str:
    """Of an anonymous set or chain: one that nobody has."""
    while f"{begin}{first}" in taken:
        first += 1
    return f"{begin}{first}"


class Scope:
    """Where an expression or an element is made."""

    __slots__ = ("_batch", "chain", "protocol", "table")

    def __init__(self, batch: Transaction, table: Table, chain: Chain | None) -> None:
        self._batch = batch
        self.table = table
        self.chain = chain
        self.protocol: tuple[int, bool] = (0, False)
        """Of NFTA_RULE_COMPAT, and whether it is any other."""

    @property
    def ip_sets(self) -> IpSets:
        """Of ipset(8)."""
        return self._batch.ruleset.ip_sets

    def set_named(self, data: Attributes, name: int, ident: int) -> Set:
        """By its name, or by its id in this batch. Raises: ENOENT, EINVAL."""
        if name in data:
            found = self.table.sets.get(string(data, name))
            if found is not None:
                return found
        if ident in data:
            mine = self._batch.sets.get(number(data, ident))
            if mine is not None and mine.table is self.table:
                return mine
        raise ENOENT("set")

    def chain_named(self, data: Attributes) -> Chain:
        """By NFTA_VERDICT_CHAIN or its id. Raises: ENOENT, EINVAL."""
        if nft.NFTA_VERDICT_CHAIN in data:
            found = self.table.chains.get(string(data, nft.NFTA_VERDICT_CHAIN))
        elif nft.NFTA_VERDICT_CHAIN_ID in data:
            found = self._batch.chains.get(number(data, nft.NFTA_VERDICT_CHAIN_ID))
            if found is not None and found.table is not self.table:
                found = None
        else:
            raise EINVAL("which chain?")
        if found is None:
            raise ENOENT("chain")
        return found


def check_kind(kind: int) -> None:
    """Of an object. Raises: EOPNOTSUPP."""
    if kind not in (nft.NFT_OBJECT_COUNTER, nft.NFT_OBJECT_QUOTA, nft.NFT_OBJECT_LIMIT):
        raise EOPNOTSUPP(f"object {kind}")
