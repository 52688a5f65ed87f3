"""Batches that are more than a step: others run beside them, and see all of one or nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import pytest

from sentry.abi import netlink as abi
from sentry.abi import nftables as nft
from sentry.abi.ip_tables import IPT_SO_GET_INFO
from sentry.abi.signal import SIGKILL
from sentry.abi.socket import AF_INET, IPPROTO_IP, SOCK_DGRAM
from sentry.errors import EMSGSIZE, ENOENT, EPERM
from sentry.net.netfilter.ip_tables import INFO
from sentry.net.netfilter.machine import be32, be64, nested, text
from sentry.net.netlink.message import attribute
from sentry.net.netlink.nfnetlink import MAX_MESSAGES, netfilter_of
from tests.unit.net.netfilter import router
from tests.unit.net.netlink.test_nfnetlink import (
    CHAIN,
    GONE,
    TABLE,
    Port,
    change,
    expression,
    message,
    rule,
)
from tests.world import Call, Program, World

MANY: Final = 1500
COUNTED: Final = nested(nft.NFTA_LIST_ELEM, text(nft.NFTA_EXPR_NAME, "counter"))
DROP: Final = nested(nft.NFTA_LIST_ELEM, router.DROP)
TO: Final = struct.pack("<H", AF_INET) + struct.pack(">H4s8x", 9, b"\x7f\0\0\1")
SET: Final = change(
    nft.NFT_MSG_NEWSET,
    text(nft.NFTA_SET_TABLE, "t") + text(nft.NFTA_SET_NAME, "s") + be32(nft.NFTA_SET_KEY_LEN, 4)
    + be32(nft.NFTA_SET_ID, 1),
)  # fmt: skip
KEY: Final = b"abcd"


@pytest.fixture
def program() -> Iterator[Program]:
    with World() as world:
        yield world.program()


@pytest.fixture
def port(program: Program) -> Port:
    return Port(program)


@pytest.fixture
def other(program: Program, port: Port) -> Program:
    """It has the same sockets."""
    return program.fork()


def begun(port: Port, *changes: bytes, ends: bool = True) -> Call:
    """A batch that is under way."""
    begin = message(nft.NFNL_MSG_BATCH_BEGIN, 0, b"", resource=nft.NFNL_SUBSYS_NFTABLES)
    end = message(nft.NFNL_MSG_BATCH_END, 0, b"", resource=nft.NFNL_SUBSYS_NFTABLES)
    data = begin + b"".join(changes) + (end if ends else b"")
    call = port.program.begin("sendto", port.fd, data, len(data), 0, 0, 0)
    assert not call.done
    return call


def sends(program: Program) -> int:
    """A datagram to nobody: what sendto(2) says."""
    fd = program.ok("socket", AF_INET, SOCK_DGRAM, 0)
    result = program.call("sendto", fd, b"x", 1, 0, TO, len(TO))
    program.ok("close", fd)
    return result


def rules(port: Port) -> int:
    """How many are told of."""
    port.send(message(nft.NFNL_SUBSYS_NFTABLES << 8 | nft.NFT_MSG_GETRULE, abi.NLM_F_DUMP, b""))
    return sum(each.kind & 0xFF == nft.NFT_MSG_NEWRULE for each in port.receive())


def elements(kind: int) -> bytes:
    listed = nested(nft.NFTA_LIST_ELEM, nested(nft.NFTA_SET_ELEM_KEY, attribute(1, KEY)))
    body = text(nft.NFTA_SET_ELEM_LIST_TABLE, "t") + text(nft.NFTA_SET_ELEM_LIST_SET, "s")
    return change(kind, body + nested(nft.NFTA_SET_ELEM_LIST_ELEMENTS, listed))


def in_set() -> tuple[bytes, ...]:
    """What a rule has that drops what is in the set."""
    data = text(nft.NFTA_LOOKUP_SET, "s") + be32(nft.NFTA_LOOKUP_SREG, nft.NFT_REG_1)
    key = nested(nft.NFTA_LIST_ELEM, router.immediate(KEY))
    return key, expression("lookup", data), DROP


def learns(op: int) -> bytes:
    """A rule by which packets change the set."""
    data = text(nft.NFTA_DYNSET_SET_NAME, "s") + be32(nft.NFTA_DYNSET_OP, op)
    data += be32(nft.NFTA_DYNSET_SREG_KEY, nft.NFT_REG_1)
    key = nested(nft.NFTA_LIST_ELEM, router.immediate(KEY))
    return rule("out", key, expression("dynset", data))


def test_packets_beside_a_batch_meet_nothing_of_it(port: Port, other: Program) -> None:
    call = begun(port, TABLE, CHAIN, rule("out", DROP), *[rule("out", COUNTED)] * MANY)
    assert sends(other) == 1
    assert not call.done
    call.wait()
    assert not port.receive()
    assert sends(other) == -EPERM.number
    assert rules(port) == MANY + 1


def test_packets_meet_what_a_batch_takes_away_until_its_end(port: Port, other: Program) -> None:
    assert not port.batch(TABLE, CHAIN, rule("out", DROP))
    flush = change(nft.NFT_MSG_DELRULE, text(nft.NFTA_RULE_TABLE, "t")
                   + text(nft.NFTA_RULE_CHAIN, "out"))  # fmt: skip
    call = begun(port, flush, *[rule("out", COUNTED)] * MANY)
    assert sends(other) == -EPERM.number
    call.wait()
    assert sends(other) == 1
    assert rules(port) == MANY


def test_packets_meet_the_elements_and_the_policy_of_before(port: Port, other: Program) -> None:
    assert not port.batch(TABLE, CHAIN, SET, rule("out", *in_set()))
    drops = change(
        nft.NFT_MSG_NEWCHAIN, text(nft.NFTA_CHAIN_TABLE, "t") + text(nft.NFTA_CHAIN_NAME, "out")
        + be32(nft.NFTA_CHAIN_POLICY, nft.NF_DROP)
    )  # fmt: skip
    call = begun(port, elements(nft.NFT_MSG_NEWSETELEM), *[rule("out", COUNTED)] * MANY)
    assert sends(other) == 1
    call.wait()
    assert sends(other) == -EPERM.number
    call = begun(port, elements(nft.NFT_MSG_DELSETELEM), drops, *[rule("out", COUNTED)] * MANY)
    assert sends(other) == -EPERM.number
    call.wait()
    assert sends(other) == -EPERM.number
    assert not port.batch(GONE)
    assert sends(other) == 1


@pytest.mark.parametrize("ends", [False, True], ids=["without_an_end", "with_an_error"])
def test_batch_that_does_not_count_leaves_nothing(
    port: Port, other: Program, ends: bool
) -> None:
    assert not port.batch(TABLE, CHAIN, SET, elements(nft.NFT_MSG_NEWSETELEM),
                          rule("out", *in_set()))  # fmt: skip
    wrong = [rule("none")] if ends else []
    call = begun(
        port, elements(nft.NFT_MSG_DELSETELEM), *[rule("out", COUNTED)] * MANY, *wrong, ends=ends
    )
    call.wait()
    assert [each.error for each in port.receive()] == [ENOENT.number] * ends
    assert sends(other) == -EPERM.number
    assert rules(port) == 1


@pytest.mark.parametrize("ends", [False, True], ids=["undone", "done"])
@pytest.mark.parametrize(
    ("op", "kind"),
    [
        (nft.NFT_DYNSET_OP_ADD, nft.NFT_MSG_NEWSETELEM),
        (nft.NFT_DYNSET_OP_ADD, nft.NFT_MSG_DELTABLE),
        (nft.NFT_DYNSET_OP_DELETE, nft.NFT_MSG_DELSETELEM),
        (nft.NFT_DYNSET_OP_DELETE, nft.NFT_MSG_DELTABLE),
    ],
    ids=["both_add", "added_to_what_goes", "both_remove", "removed_from_what_goes"],
)
def test_count_of_elements_is_right_when_packets_change_what_a_batch_does(
    port: Port, other: Program, op: int, kind: int, ends: bool
) -> None:
    """Else the ceiling would be another one, and who repeats it had none."""
    removes = op == nft.NFT_DYNSET_OP_DELETE
    before = [elements(nft.NFT_MSG_NEWSETELEM)] * removes
    assert not port.batch(TABLE, CHAIN, SET, *before, learns(op))
    ruleset = netfilter_of(port.program.task.ns.net.stack).ruleset
    assert ruleset.counts["elements"] == removes
    first = [GONE, TABLE, CHAIN] if kind == nft.NFT_MSG_DELTABLE else [elements(kind)]
    call = begun(port, *first, *[rule("out", COUNTED)] * MANY, ends=ends)
    assert sends(other) == 1 and not call.done
    call.wait()
    sets = [each for table in ruleset.tables.values() for each in table.sets.values()]
    assert ruleset.counts["elements"] == sum(map(len, sets))


def test_batch_of_who_is_killed_leaves_nothing(port: Port, program: Program) -> None:
    killed = program.fork()
    mine = Port(killed)
    begun(mine, TABLE, CHAIN, rule("out", DROP), *[rule("out", COUNTED)] * MANY)
    program.ok("kill", killed.task.group.tgid, SIGKILL)
    program.world.settle()
    assert killed.task.dead
    assert sends(program) == 1 and not rules(port)
    assert not port.batch(TABLE, CHAIN, *[rule("out", COUNTED)] * MANY)


def test_batch_of_too_many_messages_is_refused_and_its_sender_hears_of_it(port: Port) -> None:
    begun(port, *[TABLE] * MAX_MESSAGES).wait()
    assert [each.error for each in port.receive()] == [EMSGSIZE.number]
    begun(port, *[TABLE] * (MAX_MESSAGES - 1)).wait()
    assert not port.receive()


def test_table_of_iptables_comes_after_the_batch(port: Port, other: Program) -> None:
    """What stands at the hooks depends on rules that want connections followed, which it may take
    away for now."""
    fd = other.ok("socket", AF_INET, SOCK_DGRAM, 0)
    at = other.place(b"filter".ljust(INFO.size, b"\0"))
    size = other.place(struct.pack("<I", INFO.size))
    call = begun(port, TABLE, CHAIN, *[rule("out", COUNTED)] * MANY)
    asked = other.begin("getsockopt", fd, IPPROTO_IP, IPT_SO_GET_INFO, at, size)
    assert not asked.done and not call.done
    call.wait()
    assert asked.wait() == 0


def test_who_asks_or_changes_waits_for_the_batch(port: Port, other: Program) -> None:
    """Each by a socket of its own; one that was closed meanwhile takes its table along then."""
    asks, owner = Port(other.fork()), Port(other)
    owned = change(
        nft.NFT_MSG_NEWTABLE,
        text(nft.NFTA_TABLE_NAME, "owned") + be32(nft.NFTA_TABLE_FLAGS, nft.NFT_TABLE_F_OWNER),
    )
    assert not owner.batch(owned)
    call = begun(port, TABLE, CHAIN, *[rule("out", COUNTED)] * MANY)
    other.ok("close", owner.fd)
    asked = message(nft.NFNL_SUBSYS_NFTABLES << 8 | nft.NFT_MSG_GETTABLE, abi.NLM_F_DUMP, b"")
    question = asks.program.begin("sendto", asks.fd, asked, len(asked), 0, 0, 0)
    assert not question.done and not call.done
    call.wait()
    question.wait()
    told = [each for each in asks.receive() if each.kind & 0xFF == nft.NFT_MSG_NEWTABLE]
    assert len(told) == 1 and be64(nft.NFTA_TABLE_HANDLE, 2) in told[0].body
