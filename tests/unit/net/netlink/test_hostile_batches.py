"""Batches of nftables that nobody would send but to do harm."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import pytest

from sentry.abi import netlink as abi
from sentry.abi import nftables as nft
from sentry.errors import E2BIG, EBUSY, EINVAL, EOPNOTSUPP
from sentry.net.netfilter.machine import MAX_RAW, be32, nested, text
from sentry.net.netlink.message import attribute, parse_attributes
from tests.unit.net.netlink.test_nfnetlink import (
    CHAIN,
    GONE,
    TABLE,
    TABLES,
    Port,
    change,
    expression,
    message,
    rule,
)
from tests.world import World

IMPLICIT: Final = 7
"""The id of a chain in its batch."""
NAME: Final = "n" * 250
LOADED: Final = expression(
    "meta",
    be32(nft.NFTA_META_KEY, nft.NFT_META_LEN) + be32(nft.NFTA_META_DREG, nft.NFT_REG32_00),
)

LIMIT: Final = attribute(nft.NFTA_LIMIT_RATE, (1).to_bytes(8)) + attribute(
    nft.NFTA_LIMIT_UNIT, (1).to_bytes(8)
)


@pytest.fixture
def port() -> Iterator[Port]:
    with World() as world:
        yield Port(world.program())


def of_table(kind: int, *attributes: bytes, flags: int = 0) -> bytes:
    return change(kind, text(nft.NFTA_RULE_TABLE, "t") + b"".join(attributes), flags)


def chain(name: str, *attributes: bytes) -> bytes:
    return of_table(nft.NFT_MSG_NEWCHAIN, text(nft.NFTA_CHAIN_NAME, name), *attributes)


def implicit(name: str, number: int) -> bytes:
    """A chain that belongs to a rule."""
    flags = be32(nft.NFTA_CHAIN_FLAGS, nft.NFT_CHAIN_BINDING)
    return chain(name, flags, be32(nft.NFTA_CHAIN_ID, number))


def verdict(where: bytes, code: int = nft.NFT_JUMP) -> bytes:
    return nested(nft.NFTA_DATA_VERDICT, be32(nft.NFTA_VERDICT_CODE, code) + where)


def jump(number: int) -> bytes:
    where = verdict(be32(nft.NFTA_VERDICT_CHAIN_ID, number))
    register = be32(nft.NFTA_IMMEDIATE_DREG, nft.NFT_REG_VERDICT)
    return expression("immediate", register + nested(nft.NFTA_IMMEDIATE_DATA, where))


def group(name: str, *attributes: bytes) -> bytes:
    head = text(nft.NFTA_SET_NAME, name) + be32(nft.NFTA_SET_KEY_LEN, 4)
    return of_table(nft.NFT_MSG_NEWSET, head, be32(nft.NFTA_SET_ID, 1), *attributes)


MAP: Final = group(
    "s",
    be32(nft.NFTA_SET_FLAGS, nft.NFT_SET_MAP),
    be32(nft.NFTA_SET_DATA_TYPE, nft.NFT_DATA_VERDICT),
)
ANONYMOUS: Final = group(
    "__set%d", be32(nft.NFTA_SET_FLAGS, nft.NFT_SET_ANONYMOUS | nft.NFT_SET_CONSTANT)
)


def element(key: int, *attributes: bytes) -> bytes:
    value = attribute(nft.NFTA_DATA_VALUE, struct.pack(">I", key))
    inner = nested(nft.NFTA_SET_ELEM_KEY, value) + b"".join(attributes)
    return nested(nft.NFTA_LIST_ELEM, inner)


def elements(*listed: bytes) -> bytes:
    name = text(nft.NFTA_SET_ELEM_LIST_SET, "s")
    inside = nested(nft.NFTA_SET_ELEM_LIST_ELEMENTS, b"".join(listed))
    return of_table(nft.NFT_MSG_NEWSETELEM, name, inside)


def lookup(name: str, *attributes: bytes) -> bytes:
    head = text(nft.NFTA_LOOKUP_SET, name) + be32(nft.NFTA_LOOKUP_SET_ID, 1)
    register = be32(nft.NFTA_LOOKUP_SREG, nft.NFT_REG32_00)
    return expression("lookup", head + register + b"".join(attributes))


def told(port: Port, kind: int, *attributes: bytes) -> list[dict[int, bytes]]:
    """What a dump says."""
    body = text(nft.NFTA_RULE_TABLE, "t") + b"".join(attributes)
    port.send(message(TABLES | kind, abi.NLM_F_DUMP, body))
    *found, last = port.receive()
    assert last.kind == abi.NLMSG_DONE
    return [each.attributes for each in found]


# --- chains and sets that belong to a rule


@pytest.mark.parametrize(
    "rules, error",
    [
        ((rule("b", jump(IMPLICIT)),), EOPNOTSUPP.number),
        ((rule("out", jump(IMPLICIT)), rule("b", jump(IMPLICIT + 1))), EOPNOTSUPP.number),
        ((rule("out", jump(IMPLICIT), jump(IMPLICIT)),), EINVAL.number),
        ((rule("out", jump(IMPLICIT)), rule("out", jump(IMPLICIT))), EINVAL.number),
    ],
    ids=["from_itself", "from_another", "twice_in_a_rule", "from_two_rules"],
)
def test_chain_of_a_rule_is_met_from_it_alone(
    port: Port, rules: tuple[bytes, ...], error: int
) -> None:
    chains = implicit("b", IMPLICIT), implicit("c", IMPLICIT + 1)
    (found,) = port.batch(TABLE, CHAIN, *chains, *rules)
    assert found.error == error


def test_chain_of_a_rule_is_no_target_of_a_map(port: Port) -> None:
    where = nested(nft.NFTA_SET_ELEM_DATA, verdict(be32(nft.NFTA_VERDICT_CHAIN_ID, IMPLICIT)))
    (found,) = port.batch(TABLE, CHAIN, implicit("b", IMPLICIT), MAP, elements(element(1, where)))
    assert found.error == EINVAL.number


def test_chain_of_a_rule_goes_with_it(port: Port) -> None:
    assert not port.batch(TABLE, CHAIN, implicit("b", IMPLICIT), rule("out", jump(IMPLICIT)))
    assert len(told(port, nft.NFT_MSG_GETCHAIN)) == 2
    assert not port.batch(of_table(nft.NFT_MSG_DELRULE, text(nft.NFTA_RULE_CHAIN, "out")))
    assert len(told(port, nft.NFT_MSG_GETCHAIN)) == 1
    assert not port.batch(GONE)


def test_set_of_a_rule_is_not_taken_by_what_takes_its_place(port: Port) -> None:
    assert not port.batch(TABLE, CHAIN, ANONYMOUS, rule("out", LOADED, lookup("__set%d")))
    (made,) = told(port, nft.NFT_MSG_GETSET)
    (old,) = told(port, nft.NFT_MSG_GETRULE)
    name = made[nft.NFTA_SET_NAME].rstrip(b"\0").decode()
    listed = nested(nft.NFTA_RULE_EXPRESSIONS, LOADED + lookup(name))
    handle = attribute(nft.NFTA_RULE_HANDLE, old[nft.NFTA_RULE_HANDLE])
    (found,) = port.batch(of_table(
        nft.NFT_MSG_NEWRULE, text(nft.NFTA_RULE_CHAIN, "out"), handle, listed,
        flags=abi.NLM_F_REPLACE,
    ))  # fmt: skip
    assert found.error == EBUSY.number
    assert not port.batch(GONE)


# --- what is in expressions


@pytest.mark.parametrize("flags", [nft.NF_NAT_RANGE_MAP_IPS, nft.NF_NAT_RANGE_NETMAP, 0x41])
def test_translation_to_no_address_is_refused(port: Port, flags: int) -> None:
    data = be32(nft.NFTA_NAT_TYPE, nft.NFT_NAT_DNAT) + be32(nft.NFTA_NAT_FAMILY, nft.NFPROTO_IPV4)
    wrong = rule("out", expression("nat", data + be32(nft.NFTA_NAT_FLAGS, flags)))
    (found,) = port.batch(TABLE, chain("out"), wrong)
    assert found.error == EINVAL.number


@pytest.mark.parametrize("deep", [1, 1000])
def test_what_fills_a_set_is_not_in_what_fills_a_set(port: Port, deep: int) -> None:
    head = text(nft.NFTA_DYNSET_SET_NAME, "s") + be32(nft.NFTA_DYNSET_OP, 0)
    data = head = head + be32(nft.NFTA_DYNSET_SREG_KEY, nft.NFT_REG32_00)
    for _ in range(deep):
        inner = text(nft.NFTA_EXPR_NAME, "dynset") + nested(nft.NFTA_EXPR_DATA, data)
        data = head + nested(nft.NFTA_DYNSET_EXPR, inner)
    filled = group("s", be32(nft.NFTA_SET_FLAGS, nft.NFT_SET_EVAL))
    (found,) = port.batch(TABLE, CHAIN, filled, rule("out", LOADED, expression("dynset", data)))
    assert found.error == (EOPNOTSUPP.number if deep == 1 else E2BIG.number)


def test_expression_of_too_many_bytes_is_refused(port: Port) -> None:
    longest = expression("counter", attribute(99, bytes(MAX_RAW - 4)))
    assert not port.batch(TABLE, CHAIN, rule("out", longest))
    (found,) = port.batch(rule("out", expression("counter", attribute(99, bytes(MAX_RAW)))))
    assert found.error == E2BIG.number


# --- what is told


def test_rule_that_could_not_be_told_is_refused(port: Port) -> None:
    named = chain(NAME, be32(nft.NFTA_CHAIN_ID, 1))
    kept = expression("log", attribute(99, bytes(MAX_RAW - 4)))
    assert not port.batch(TABLE, CHAIN, named, rule("out", *[jump(1)] * 120))
    (found,) = told(port, nft.NFT_MSG_GETRULE)
    assert len(parse_attributes(found[nft.NFTA_RULE_EXPRESSIONS])) == 1
    assert found[nft.NFTA_RULE_EXPRESSIONS].count(NAME.encode()) == 120
    (wrong,) = port.batch(
        chain("m" * 250, be32(nft.NFTA_CHAIN_ID, 1)), rule("out", *[kept] * 10, *[jump(1)] * 110)
    )
    assert wrong.error == E2BIG.number


def test_large_elements_are_told_in_several_messages(port: Port) -> None:
    about = attribute(nft.NFTA_SET_ELEM_USERDATA, bytes(200))
    where = nested(nft.NFTA_SET_ELEM_DATA, verdict(text(nft.NFTA_VERDICT_CHAIN, NAME)))
    kept = attribute(99, bytes(1000))
    counted = nested(
        nft.NFTA_SET_ELEM_EXPR,
        text(nft.NFTA_EXPR_NAME, "limit") + nested(nft.NFTA_EXPR_DATA, LIMIT + kept),
    )
    assert not port.batch(TABLE, chain(NAME), MAP)
    for begin in range(0, 64, 16):
        every = [element(begin + each, where, about, counted) for each in range(16)]
        assert not port.batch(elements(*every))
    found = told(port, nft.NFT_MSG_GETSETELEM, text(nft.NFTA_SET_ELEM_LIST_SET, "s"))
    listed = [each[nft.NFTA_SET_ELEM_LIST_ELEMENTS] for each in found]
    assert len(listed) > 1 and sum(each.count(NAME.encode()) for each in listed) == 64


# --- what a batch costs


def test_map_is_looked_through_once_however_often_it_is_asked(port: Port) -> None:
    where = nested(nft.NFTA_SET_ELEM_DATA, verdict(text(nft.NFTA_VERDICT_CHAIN, "c")))
    assert not port.batch(TABLE, CHAIN, chain("c"), MAP)
    for begin in range(0, 16000, 1000):
        assert not port.batch(elements(*[element(begin + each, where) for each in range(1000)]))
    asked = lookup("s", be32(nft.NFTA_LOOKUP_DREG, nft.NFT_REG_VERDICT))
    assert not port.batch(*[rule("out", LOADED, *[asked] * 100)] * 4)
