"""Rules: what programs ask and change. nf_tables_newrule() and its like."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from sentry.abi import netlink as abi
from sentry.abi import nftables as nft
from sentry.errors import E2BIG, EEXIST, EINVAL, ENOENT, EOPNOTSUPP
from sentry.net.netfilter.machine import (
    MAX_EXPRESSIONS,
    elements,
    number,
    parse_expression,
    string,
)
from sentry.net.netfilter.ruleset import Chain, Rule, Table
from sentry.net.netfilter.transaction import Scope, Transaction
from sentry.net.netlink.message import Reply, parse_attributes
from sentry.net.netlink.nfnetlink import Asked, asks, changes
from sentry.net.netlink.nft_messages import rule_body
from sentry.net.netlink.nft_requests import (
    find_chain,
    find_table,
    is_destroyed,
    own_table,
    tables_of,
    userdata,
)

if TYPE_CHECKING:
    from sentry.net.netfilter.machine import Expression

MOST_TOLD: Final = 0xFFFF
"""Bytes of expressions: the size of an attribute is 16 bits."""
TOLD_MORE, NAME_MOST = 48, 288
"""Bytes that an expression is told in more than it came in, and those of a name besides."""


@asks(nft.NFT_MSG_GETRULE, nft.NFT_MSG_GETRULE_RESET)
def get_rule(asked: Asked) -> Iterable[Reply]:
    """NFT_MSG_GETRULE."""
    data = asked.attributes
    resets = is_destroyed(asked, nft.NFT_MSG_GETRULE_RESET)
    if not asked.is_dump:
        table = find_table(asked, nft.NFTA_RULE_TABLE)
        chain = find_chain(table, asked, nft.NFTA_RULE_CHAIN)
        rule = find_rule(chain, asked, nft.NFTA_RULE_HANDLE)
        at = chain.rules.index(rule)
        yield _told_rule(asked, rule, chain.rules[at - 1].handle if at else 0, resets)
        return
    wanted = string(data, nft.NFTA_RULE_CHAIN) if nft.NFTA_RULE_CHAIN in data else ""
    for table in tables_of(asked, nft.NFTA_RULE_TABLE):
        chains = list(table.chains.values())
        if wanted:
            chains = [table.chains[wanted]] if wanted in table.chains else []
        for chain in chains:
            before = 0
            for rule in list(chain.rules):
                yield _told_rule(asked, rule, before, resets)
                before = rule.handle


def _told_rule(asked: Asked, rule: Rule, before: int, resets: bool) -> Reply:
    body = rule_body(rule, before)
    if resets:
        for each in rule.expressions:
            each.reset()
    return asked.reply(nft.NFT_MSG_NEWRULE, rule.chain.table.family, body)


def find_rule(chain: Chain, asked: Asked, kind: int) -> Rule:
    """By a handle. Raises: ENOENT, EINVAL."""
    with asked.about(kind):
        handle = number(asked.attributes, kind, size=8)
        found = chain.table.rules.get(handle)
        if found is None or found.chain is not chain:
            raise ENOENT(f"rule {handle}")
    return found


@changes(nft.NFT_MSG_NEWRULE)
def new_rule(asked: Asked, batch: Transaction) -> None:
    """nf_tables_newrule()."""
    data = asked.attributes
    table = own_table(asked, nft.NFTA_RULE_TABLE, batch)
    chain = _chain_of_rule(table, asked, batch)
    old, at = None, 0
    if nft.NFTA_RULE_HANDLE in data:
        old = find_rule(chain, asked, nft.NFTA_RULE_HANDLE)
        if asked.flags & abi.NLM_F_EXCL:
            with asked.about(nft.NFTA_RULE_HANDLE):
                raise EEXIST("rule")
        if not asked.flags & abi.NLM_F_REPLACE:
            raise EOPNOTSUPP("neither replaced nor new")
        at = chain.rules.index(old)
    elif not asked.flags & abi.NLM_F_CREATE or asked.flags & abi.NLM_F_REPLACE:
        raise EINVAL("flags")
    else:
        at = _place(chain, asked, batch)
    scope = Scope(batch, table, chain)
    if nft.NFTA_RULE_COMPAT in data:
        scope.protocol = _protocol(data[nft.NFTA_RULE_COMPAT])
    rule = Rule(chain, _expressions(scope, asked), userdata(data, nft.NFTA_RULE_USERDATA))
    rule.number = number(data, nft.NFTA_RULE_ID, 0)
    batch.check_anonymous(rule)
    if old is not None:
        batch.remove_rule(old)
    batch.add_rule(rule, at)
    if rule.number:
        batch.rules[rule.number] = rule


def _chain_of_rule(table: Table, asked: Asked, batch: Transaction) -> Chain:
    if nft.NFTA_RULE_CHAIN in asked.attributes:
        return find_chain(table, asked, nft.NFTA_RULE_CHAIN)
    with asked.about(nft.NFTA_RULE_CHAIN_ID):
        found = batch.chains.get(number(asked.attributes, nft.NFTA_RULE_CHAIN_ID))
        if found is None or found.table is not table:
            raise ENOENT("chain")
    return found


def _place(chain: Chain, asked: Asked, batch: Transaction) -> int:
    """Where it goes: behind another one, before it, at the end or the beginning."""
    data, appends = asked.attributes, bool(asked.flags & abi.NLM_F_APPEND)
    beside = None
    if nft.NFTA_RULE_POSITION in data:
        beside = find_rule(chain, asked, nft.NFTA_RULE_POSITION)
    elif nft.NFTA_RULE_POSITION_ID in data:
        with asked.about(nft.NFTA_RULE_POSITION_ID):
            beside = batch.rules.get(number(data, nft.NFTA_RULE_POSITION_ID))
            if beside is None or beside.chain is not chain:
                raise ENOENT("rule")
    if beside is None:
        return len(chain.rules) if appends else 0
    return chain.rules.index(beside) + appends


def _protocol(raw: bytes) -> tuple[int, bool]:
    """NFTA_RULE_COMPAT. Raises: EINVAL."""
    inner = parse_attributes(raw)
    flags = number(inner, nft.NFTA_RULE_COMPAT_FLAGS)
    if flags & ~(nft.NFT_RULE_COMPAT_F_INV | nft.NFT_RULE_COMPAT_F_UNUSED):
        raise EINVAL("flags")
    protocol = number(inner, nft.NFTA_RULE_COMPAT_PROTO) & 0xFFFF
    return protocol, bool(flags & nft.NFT_RULE_COMPAT_F_INV)


def _expressions(scope: Scope, asked: Asked) -> list[Expression]:
    kind = nft.NFTA_RULE_EXPRESSIONS
    listed = elements(asked.attributes.get(kind, b""), nft.NFTA_LIST_ELEM)
    if len(listed) > MAX_EXPRESSIONS:
        raise E2BIG("expressions")
    made: list[Expression] = []
    for index, each in enumerate(listed):
        with asked.about(kind, index):
            made.append(parse_expression(scope, each))
    names = sum(len(list(each.uses)) for each in made)
    if sum(map(len, listed)) + len(made) * TOLD_MORE + names * NAME_MOST > MOST_TOLD:
        raise E2BIG("more than could be told")
    return made


@changes(nft.NFT_MSG_DELRULE, nft.NFT_MSG_DESTROYRULE)
def delete_rule(asked: Asked, batch: Transaction) -> None:
    """nf_tables_delrule(): one, all of a chain, or all of a table."""
    data = asked.attributes
    try:
        table = own_table(asked, nft.NFTA_RULE_TABLE, batch)
        if nft.NFTA_RULE_CHAIN not in data:
            for chain in list(table.chains.values()):
                batch.remove_rules(chain)
            return
        chain = find_chain(table, asked, nft.NFTA_RULE_CHAIN)
        if nft.NFTA_RULE_HANDLE in data:
            batch.remove_rule(find_rule(chain, asked, nft.NFTA_RULE_HANDLE))
        elif nft.NFTA_RULE_ID in data:
            with asked.about(nft.NFTA_RULE_ID):
                mine = batch.rules.get(number(data, nft.NFTA_RULE_ID))
                if mine is None or mine.chain is not chain:
                    raise ENOENT("rule")
            batch.remove_rule(mine)
        else:
            batch.remove_rules(chain)
    except ENOENT:
        if not is_destroyed(asked, nft.NFT_MSG_DESTROYRULE):
            raise
