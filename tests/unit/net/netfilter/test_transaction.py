"""A batch of changes is undone as a whole."""

from __future__ import annotations

import gc
import weakref
from collections import Counter

import pytest

from sentry.abi import nftables as nft
from sentry.errors import EBUSY, EINVAL, EMFILE
from sentry.net.netfilter import hooks
from sentry.net.netfilter.machine import Verdict, be32, nested, parse_expression, text
from sentry.net.netfilter.ruleset import MOST, Chain, Rule, Ruleset, Table
from sentry.net.netfilter.sets import Element, Set
from sentry.net.netfilter.transaction import Scope, Transaction
from tests.unit.net.netfilter.router import COUNTER, made, verdict

assert hooks.EXPRESSIONS


class Rules:
    """A table with two chains, of which the first jumps to the second."""

    def __init__(self) -> None:
        self.ruleset = Ruleset(Counter())
        self.table = Table(nft.NFPROTO_INET, "t")
        batch = self.batch()
        batch.add_table(self.table)
        self.one, self.two = Chain(self.table, "one"), Chain(self.table, "two")
        batch.add_chain(self.one)
        batch.add_chain(self.two)
        self.add(batch, self.one, COUNTER)
        self.add(batch, self.one, verdict(nft.NFT_JUMP, "two"))
        batch.commit()

    def batch(self) -> Transaction:
        return Transaction(self.ruleset, 0, 1)

    def add(self, batch: Transaction, chain: Chain, *expressions: bytes) -> Rule:
        scope = Scope(batch, self.table, chain)
        made = Rule(chain, [parse_expression(scope, each) for each in expressions], b"")
        batch.add_rule(made, len(chain.rules))
        return made

    def shown(self) -> object:
        """All that is there."""
        return (
            [
                (table.name, sorted(table.sets), [
                    (chain.name, chain.use, chain.policy, [rule.handle for rule in chain.rules])
                    for chain in sorted(table.chains.values(), key=lambda each: each.name)
                ], sorted(table.rules))
                for table in self.ruleset.tables.values()
            ],
            {what: count for what, count in self.ruleset.counts.items() if count},
        )  # fmt: skip


def test_each_change_is_undone() -> None:
    rules = Rules()
    before = rules.shown()
    batch = rules.batch()
    rules.add(batch, rules.two, COUNTER)
    batch.remove_rule(rules.one.rules[0])
    batch.change(rules.one, "policy", nft.NF_DROP)
    batch.rename_chain(rules.two, "three")
    group = Set(rules.table, "s")
    batch.add_set(group)
    batch.add_element(group, Element(b"1234"))
    batch.remove_set(group)
    batch.remove_table(rules.table)
    other = Table(nft.NFPROTO_IPV4, "other")
    batch.add_table(other)
    batch.abort()
    assert rules.shown() == before
    assert not len(group)


def test_chain_that_is_jumped_to_stays() -> None:
    rules = Rules()
    with pytest.raises(EBUSY):
        rules.batch().remove_chain(rules.two)
    batch = rules.batch()
    batch.remove_chain(rules.one)
    batch.remove_chain(rules.two)
    batch.commit()
    assert not rules.table.chains
    assert not rules.ruleset.counts["rules"] + rules.ruleset.counts["chains"]


def test_anonymous_set_that_nobody_uses_is_an_error() -> None:
    rules = Rules()
    batch = rules.batch()
    group = Set(rules.table, "__set%d")
    group.flags = nft.NFT_SET_ANONYMOUS
    batch.add_set(group)
    with pytest.raises(EINVAL):
        batch.commit()
    batch.abort()
    assert not rules.table.sets


def test_generation_counts_batches() -> None:
    rules = Rules()
    before = rules.ruleset.generation
    rules.batch().commit()
    assert rules.ruleset.generation == before + 1


def test_there_is_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules()
    monkeypatch.setitem(MOST, "rules", 3)
    batch = rules.batch()
    rules.add(batch, rules.two, COUNTER)
    with pytest.raises(EMFILE):
        rules.add(batch, rules.two, COUNTER)


def test_chain_is_not_in_use_by_an_element_that_gave_its_place_when_its_time_was_up() -> None:
    rules = Rules()
    batch = rules.batch()
    group = Set(rules.table, "s")
    group.flags, group.size = nft.NFT_SET_MAP | nft.NFT_SET_TIMEOUT, 1
    batch.add_set(group)
    old, new = Element(b"old"), Element(b"new")
    old.data, old.expires_ns = Verdict(nft.NFT_JUMP, rules.two), 1
    batch.add_element(group, old)
    batch.commit()
    before = rules.two.use

    batch = Transaction(rules.ruleset, 2, 1)
    batch.add_element(group, new)
    batch.commit()

    assert list(group) == [new] and rules.two.use == before - 1


def test_chain_is_in_use_as_before_when_an_element_gave_its_place_in_a_batch_that_fails() -> None:
    rules = Rules()
    batch = rules.batch()
    group = Set(rules.table, "s")
    group.flags, group.size = nft.NFT_SET_MAP | nft.NFT_SET_TIMEOUT, 1
    batch.add_set(group)
    old = Element(b"old")
    old.data, old.expires_ns = Verdict(nft.NFT_JUMP, rules.two), 1
    batch.add_element(group, old)
    batch.commit()
    before = rules.shown()

    batch = Transaction(rules.ruleset, 2, 1)
    batch.add_element(group, Element(b"new"))
    batch.abort()

    assert rules.shown() == before and list(group) == [old]


def test_rule_that_fills_a_set_keeps_nothing_of_its_batch() -> None:
    rules = Rules()
    batch = rules.batch()
    group = Set(rules.table, "s")
    group.key_size, group.flags = 4, nft.NFT_SET_EVAL
    batch.add_set(group)
    rules.add(batch, rules.one, made(
        "dynset", text(nft.NFTA_DYNSET_SET_NAME, "s"), be32(nft.NFTA_DYNSET_OP, 0),
        be32(nft.NFTA_DYNSET_SREG_KEY, nft.NFT_REG32_00), nested(nft.NFTA_DYNSET_EXPR, COUNTER),
    ))  # fmt: skip
    batch.commit()
    kept = weakref.ref(batch)
    del batch
    gc.collect()
    assert kept() is None
