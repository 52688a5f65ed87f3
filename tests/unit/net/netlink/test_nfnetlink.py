"""NETLINK_NETFILTER: where in a message an error is, and notices of what has changed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from sentry.abi import netlink as abi
from sentry.abi import nftables as nft
from sentry.abi.socket import (
    AF_INET,
    AF_NETLINK,
    MSG_TRUNC,
    SO_RCVBUF,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_STREAM,
    SOL_SOCKET,
)
from sentry.errors import (
    EAGAIN,
    EBUSY,
    EEXIST,
    EINVAL,
    ENOBUFS,
    ENOENT,
    EOPNOTSUPP,
    Errno,
)
from sentry.net.netfilter.machine import be32, be64, nested, text
from sentry.net.netlink.message import attribute, parse_attributes
from tests.world import Program, World

TABLES: Final = nft.NFNL_SUBSYS_NFTABLES << 8
CONNECTIONS: Final = nft.NFNL_SUBSYS_CTNETLINK << 8
HEAD: Final = 20
"""Bytes before the attributes of a message."""
MAKES: Final = abi.NLM_F_CREATE | abi.NLM_F_APPEND
DONTWAIT: Final = 0x40
TCP: Final = 6


class Message(NamedTuple):
    """One that came."""

    kind: int
    flags: int
    sequence: int
    port: int
    body: bytes

    @property
    def error(self) -> int:
        """Of NLMSG_ERROR."""
        assert self.kind == abi.NLMSG_ERROR
        return -int(struct.unpack_from("<i", self.body)[0])

    @property
    def attributes(self) -> dict[int, bytes]:
        """Behind struct nfgenmsg."""
        return parse_attributes(self.body[4:])


class Port:
    """A socket of a program."""

    def __init__(self, program: Program, groups: int = 0) -> None:
        self.program = program
        self.fd = program.ok("socket", AF_NETLINK, SOCK_RAW, abi.NETLINK_NETFILTER)
        program.ok("bind", self.fd, struct.pack("<HHII", AF_NETLINK, 0, 0, groups), 12)

    def send(self, data: bytes) -> None:
        """As it is."""
        self.program.ok("sendto", self.fd, data, len(data), 0, 0, 0)

    def receive(self) -> list[Message]:
        """All that has come."""
        found: list[Message] = []
        room = self.program.buffer(65536)
        while (size := self.program.call("recvfrom", self.fd, room, 65536, DONTWAIT, 0, 0)) > 0:
            data = self.program.read(room, size)
            while data:
                length, *head = struct.unpack_from("<IHHII", data)
                found.append(Message(*head, data[16:length]))
                data = data[length + 3 & ~3 :]
        assert size in (-EAGAIN.number, -ENOBUFS.number)
        return found

    def sizes(self, room: int) -> list[int]:
        """Of the datagrams that have come, read into so much room."""
        at, found = self.program.buffer(room), []
        flags = DONTWAIT | MSG_TRUNC
        while (size := self.program.call("recvfrom", self.fd, at, room, flags, 0, 0)) > 0:
            found.append(size)
        assert size == -EAGAIN.number
        return found

    def batch(self, *changes: bytes) -> list[Message]:
        """Changes of nftables, and what is answered."""
        begin = message(nft.NFNL_MSG_BATCH_BEGIN, 0, b"", resource=nft.NFNL_SUBSYS_NFTABLES)
        end = message(nft.NFNL_MSG_BATCH_END, 0, b"", resource=nft.NFNL_SUBSYS_NFTABLES)
        self.send(begin + b"".join(changes) + end)
        return self.receive()

    def ask(self, kind: int, flags: int, body: bytes) -> int:
        """A change of a connection: its errno, or 0."""
        self.send(message(CONNECTIONS | kind, abi.NLM_F_ACK | flags, body))
        (found,) = self.receive()
        return found.error


def message(kind: int, flags: int, body: bytes, sequence: int = 1, resource: int = 0) -> bytes:
    inside = struct.pack(">BBH", nft.NFPROTO_IPV4, 0, resource) + body
    flags |= abi.NLM_F_REQUEST
    return struct.pack("<IHHII", 16 + len(inside), kind, flags, sequence, 0) + inside


def change(kind: int, body: bytes, flags: int = 0, sequence: int = 1) -> bytes:
    """One of nftables."""
    return message(TABLES | kind, MAKES | flags, body, sequence)


def expression(name: str, data: bytes = b"") -> bytes:
    return nested(
        nft.NFTA_LIST_ELEM,
        text(nft.NFTA_EXPR_NAME, name) + nested(nft.NFTA_EXPR_DATA, data),
    )


def rule(chain: str, *expressions: bytes, flags: int = 0, sequence: int = 1) -> bytes:
    body = text(nft.NFTA_RULE_TABLE, "t") + text(nft.NFTA_RULE_CHAIN, chain)
    body += nested(nft.NFTA_RULE_EXPRESSIONS, b"".join(expressions))
    return change(nft.NFT_MSG_NEWRULE, body, flags, sequence)


TABLE: Final = change(nft.NFT_MSG_NEWTABLE, text(nft.NFTA_TABLE_NAME, "t"))
PLACE: Final = be32(nft.NFTA_HOOK_HOOKNUM, nft.NF_INET_LOCAL_OUT) + be32(nft.NFTA_HOOK_PRIORITY, 0)
CHAIN: Final = change(
    nft.NFT_MSG_NEWCHAIN,
    text(nft.NFTA_CHAIN_TABLE, "t") + text(nft.NFTA_CHAIN_NAME, "out")
    + nested(nft.NFTA_CHAIN_HOOK, PLACE),
)  # fmt: skip
GONE: Final = message(
    TABLES | nft.NFT_MSG_DELTABLE, 0, text(nft.NFTA_TABLE_NAME, "t"), sequence=9
)


@pytest.fixture
def program() -> Iterator[Program]:
    with World() as world:
        yield world.program()


@pytest.fixture
def port(program: Program) -> Port:
    return Port(program)


# --- where an error is


def with_places(port: Port) -> Port:
    one = port.program.place(struct.pack("<i", 1))
    port.program.ok("setsockopt", port.fd, 270, abi.NETLINK_EXT_ACK, one, 4)
    return port


def place_in(found: Message, sent: bytes) -> int:
    """NLMSGERR_ATTR_OFFS; 0: it is not told."""
    if not found.flags & abi.NLM_F_ACK_TLVS:
        return 0
    told = parse_attributes(found.body[4 + len(sent) :])
    return int.from_bytes(told[abi.NLMSGERR_ATTR_OFFS], "little")


def test_error_says_which_attribute_it_is_about(port: Port) -> None:
    wrong = rule("none", expression("counter"))
    (found,) = port.batch(TABLE, wrong)
    assert (found.error, place_in(found, wrong)) == (ENOENT.number, 0)
    (found,) = with_places(port).batch(TABLE, wrong)
    assert (found.error, place_in(found, wrong)) == (
        ENOENT.number, HEAD + len(text(nft.NFTA_RULE_TABLE, "t"))
    )  # fmt: skip


def test_error_says_which_expression_it_is_about(port: Port) -> None:
    first = expression("counter")
    wrong = rule("out", first, expression("nothing"))
    (found,) = with_places(port).batch(TABLE, CHAIN, wrong)
    before = text(nft.NFTA_RULE_TABLE, "t") + text(nft.NFTA_RULE_CHAIN, "out")
    assert place_in(found, wrong) == HEAD + len(before) + 4 + len(first)


@pytest.mark.parametrize(
    "wrong, at",
    [
        (rule("out", expression("counter")).replace(b"t\0", b"u\0", 1), HEAD),
        (change(nft.NFT_MSG_NEWTABLE, text(nft.NFTA_TABLE_NAME, "t"), abi.NLM_F_EXCL), HEAD),
        (message(TABLES | nft.NFT_MSG_DELTABLE, 0, text(nft.NFTA_TABLE_NAME, "none")), HEAD),
        (change(nft.NFT_MSG_NEWSET, text(nft.NFTA_SET_TABLE, "t")), 0),
    ],
)  # fmt: skip
def test_error_about_a_name_is_told_with_it(port: Port, wrong: bytes, at: int) -> None:
    (found,) = with_places(port).batch(TABLE, CHAIN, wrong)
    assert found.error and place_in(found, wrong) == at


def test_quoted_request_may_be_short(port: Port) -> None:
    one = port.program.place(struct.pack("<i", 1))
    port.program.ok("setsockopt", port.fd, 270, abi.NETLINK_CAP_ACK, one, 4)
    (found,) = with_places(port).batch(TABLE, rule("none"))
    assert found.flags & abi.NLM_F_CAPPED
    assert place_in(found, bytes(16))


# --- ids within a batch


def by_id(kind: int, *attributes: bytes) -> bytes:
    return change(kind, text(nft.NFTA_RULE_TABLE, "t") + b"".join(attributes))


FLUSH: Final = by_id(nft.NFT_MSG_DELRULE, text(nft.NFTA_RULE_CHAIN, "out"))
NUMBERED: Final = by_id(
    nft.NFT_MSG_NEWRULE, text(nft.NFTA_RULE_CHAIN, "out"), be32(nft.NFTA_RULE_ID, 1)
)
A_SET: Final = (
    text(nft.NFTA_SET_NAME, "s"), be32(nft.NFTA_SET_KEY_LEN, 4), be32(nft.NFTA_SET_ID, 1),
)  # fmt: skip
ELEMENT: Final = nested(nft.NFTA_LIST_ELEM, nested(nft.NFTA_SET_ELEM_KEY, attribute(1, b"abcd")))
A_CHAIN: Final = text(nft.NFTA_CHAIN_NAME, "c"), be32(nft.NFTA_CHAIN_ID, 1)


@pytest.mark.parametrize(
    "changes",
    [
        (NUMBERED, FLUSH, by_id(nft.NFT_MSG_DELRULE, text(nft.NFTA_RULE_CHAIN, "out"),
                                be32(nft.NFTA_RULE_ID, 1))),
        (NUMBERED, FLUSH, by_id(nft.NFT_MSG_NEWRULE, text(nft.NFTA_RULE_CHAIN, "out"),
                                be32(nft.NFTA_RULE_POSITION_ID, 1))),
        (by_id(nft.NFT_MSG_NEWSET, *A_SET), by_id(nft.NFT_MSG_DELSET, A_SET[0]),
         by_id(nft.NFT_MSG_NEWSETELEM, be32(nft.NFTA_SET_ELEM_LIST_SET_ID, 1),
               text(nft.NFTA_SET_ELEM_LIST_SET, "s"),
               nested(nft.NFTA_SET_ELEM_LIST_ELEMENTS, ELEMENT))),
        (by_id(nft.NFT_MSG_NEWCHAIN, *A_CHAIN), by_id(nft.NFT_MSG_DELCHAIN, A_CHAIN[0]),
         by_id(nft.NFT_MSG_NEWRULE, be32(nft.NFTA_RULE_CHAIN_ID, 1))),
    ],
    ids=["rule_again", "rule_beside_it", "element_of_a_set", "rule_of_a_chain"],
)  # fmt: skip
def test_what_a_batch_has_removed_is_not_found_by_its_id(
    port: Port, changes: tuple[bytes, ...]
) -> None:
    (found,) = port.batch(TABLE, CHAIN, *changes)
    assert found.error == ENOENT.number


# --- notices


def test_dump_comes_in_datagrams_for_which_there_is_room(program: Program, port: Port) -> None:
    names = [text(nft.NFTA_CHAIN_NAME, f"chain{number}") for number in range(200)]
    table = text(nft.NFTA_CHAIN_TABLE, "t")
    chains = [change(nft.NFT_MSG_NEWCHAIN, table + each) for each in names]
    assert not port.batch(TABLE, *chains)
    reader = Port(program)
    ask = message(TABLES | nft.NFT_MSG_GETCHAIN, abi.NLM_F_DUMP, b"")
    found: list[list[int]] = []
    for room in (4096, 65536):
        reader.send(ask)
        found.append(reader.sizes(room))
    small, large = found
    assert all(3000 < each <= 4096 for each in small[:-2]) and max(small) <= 4096
    assert sum(small) == sum(large) > 2 * 4096
    assert large[0] <= 4096 < large[1]


def member(program: Program, *groups: int) -> Port:
    return Port(program, sum(1 << group - 1 for group in groups))


def kinds(found: list[Message]) -> list[int]:
    """Types of nftables."""
    assert all(each.kind & 0xFF00 == TABLES for each in found)
    return [each.kind & 0xFF for each in found]


def test_each_change_of_a_batch_is_told(program: Program, port: Port) -> None:
    heard = member(program, nft.NFNLGRP_NFTABLES)
    assert not port.batch(TABLE, CHAIN, rule("out", expression("counter"), sequence=7))
    found = heard.receive()
    assert kinds(found) == [
        nft.NFT_MSG_NEWTABLE, nft.NFT_MSG_NEWCHAIN, nft.NFT_MSG_NEWRULE, nft.NFT_MSG_NEWGEN,
    ]  # fmt: skip
    told = found[2]
    assert (told.sequence, told.flags) == (7, MAKES)
    assert told.attributes[nft.NFTA_RULE_CHAIN] == b"out\0"
    assert nft.NFTA_RULE_EXPRESSIONS in told.attributes
    assert not port.batch(GONE)
    found = heard.receive()
    assert kinds(found) == [
        nft.NFT_MSG_DELRULE, nft.NFT_MSG_DELCHAIN, nft.NFT_MSG_DELTABLE, nft.NFT_MSG_NEWGEN,
    ]  # fmt: skip
    assert found[0].attributes[nft.NFTA_RULE_HANDLE] == told.attributes[nft.NFTA_RULE_HANDLE]
    assert found[0].flags == 0


def test_place_of_a_rule_is_told_between_others_alone(program: Program, port: Port) -> None:
    assert not port.batch(TABLE, CHAIN, rule("out"), rule("out"))
    heard = member(program, nft.NFNLGRP_NFTABLES)
    assert not port.batch(rule("out"))
    assert nft.NFTA_RULE_POSITION not in heard.receive()[0].attributes
    place = be64(nft.NFTA_RULE_POSITION, 3)
    body = text(nft.NFTA_RULE_TABLE, "t") + text(nft.NFTA_RULE_CHAIN, "out") + place
    assert not port.batch(change(nft.NFT_MSG_NEWRULE, body))
    told = heard.receive()[0]
    assert int.from_bytes(told.attributes[nft.NFTA_RULE_POSITION]) == 3


def test_elements_and_other_parts_are_told(program: Program, port: Port) -> None:
    group = text(nft.NFTA_SET_TABLE, "t") + text(nft.NFTA_SET_NAME, "s")
    group += be32(nft.NFTA_SET_KEY_LEN, 4) + be32(nft.NFTA_SET_ID, 1)
    key = nested(nft.NFTA_SET_ELEM_KEY, attribute(nft.NFTA_DATA_VALUE, b"1234"))
    elements = text(nft.NFTA_SET_ELEM_LIST_TABLE, "t") + text(nft.NFTA_SET_ELEM_LIST_SET, "s")
    elements += nested(nft.NFTA_SET_ELEM_LIST_ELEMENTS, nested(nft.NFTA_LIST_ELEM, key))
    heard = member(program, nft.NFNLGRP_NFTABLES)
    made = (change(nft.NFT_MSG_NEWSET, group), change(nft.NFT_MSG_NEWSETELEM, elements))
    assert not port.batch(TABLE, *made)
    found = heard.receive()
    assert kinds(found)[1:3] == [nft.NFT_MSG_NEWSET, nft.NFT_MSG_NEWSETELEM]
    assert b"1234" in found[2].body
    assert not port.batch(change(nft.NFT_MSG_DELSETELEM, elements))
    found = heard.receive()
    assert kinds(found) == [nft.NFT_MSG_DELSETELEM, nft.NFT_MSG_NEWGEN]
    assert b"1234" in found[0].body


def test_batch_that_does_not_count_is_not_told(program: Program, port: Port) -> None:
    heard = member(program, nft.NFNLGRP_NFTABLES)
    assert port.batch(TABLE, rule("none"))
    assert not heard.receive()


def test_echo_comes_before_the_answer(program: Program, port: Port) -> None:
    asked = change(nft.NFT_MSG_NEWTABLE, text(nft.NFTA_TABLE_NAME, "t"),
                   abi.NLM_F_ECHO | abi.NLM_F_ACK, 5)  # fmt: skip
    found = port.batch(asked, CHAIN)
    told = [TABLES | nft.NFT_MSG_NEWTABLE, TABLES | nft.NFT_MSG_NEWGEN]
    assert [each.kind for each in found] == [*told, abi.NLMSG_ERROR]
    assert found[0].sequence == found[1].sequence == 5 and not found[2].error


def test_what_there_is_no_room_for_is_lost(program: Program, port: Port) -> None:
    heard = member(program, nft.NFNLGRP_NFTABLES)
    few = program.place(struct.pack("<i", 1))
    program.ok("setsockopt", heard.fd, SOL_SOCKET, SO_RCVBUF, few, 4)
    assert not port.batch(TABLE, CHAIN, *[rule("out", expression("counter"))] * 200)
    room = program.buffer(65536)
    lost = program.call("recvfrom", heard.fd, room, 65536, DONTWAIT, 0, 0)
    assert lost == -ENOBUFS.number
    assert len(heard.receive()) < 200


# --- connections


GROUPS: Final = (
    nft.NFNLGRP_CONNTRACK_NEW, nft.NFNLGRP_CONNTRACK_UPDATE, nft.NFNLGRP_CONNTRACK_DESTROY,
)  # fmt: skip


def follow(port: Port) -> None:
    """Connections are followed from now on."""
    about = be32(nft.NFTA_CT_KEY, nft.NFT_CT_STATE) + be32(nft.NFTA_CT_DREG, 1)
    assert not port.batch(TABLE, CHAIN, rule("out", expression("ct", about)))


def place(port: int) -> bytes:
    return struct.pack("<H", AF_INET) + struct.pack(">H4s8x", port, b"\x7f\0\0\1")


def test_what_happens_to_a_connection_is_told(program: Program, port: Port) -> None:
    follow(port)
    heard = member(program, *GROUPS)
    one, other = (program.ok("socket", AF_INET, SOCK_DGRAM, 0) for _ in range(2))
    program.ok("bind", one, place(1000), 16)
    program.ok("bind", other, place(2000), 16)
    program.ok("sendto", one, b"x", 1, 0, place(2000), 16)
    (found,) = heard.receive()
    assert found.kind == CONNECTIONS | nft.IPCTNL_MSG_CT_NEW and not found.port
    assert found.flags == abi.NLM_F_CREATE | abi.NLM_F_EXCL
    program.ok("sendto", one, b"x", 1, 0, place(2000), 16)
    assert not heard.receive()
    program.ok("sendto", other, b"x", 1, 0, place(1000), 16)
    (found,) = heard.receive()
    assert (found.kind, found.flags) == (CONNECTIONS | nft.IPCTNL_MSG_CT_NEW, 0)
    status = int.from_bytes(found.attributes[nft.CTA_STATUS])
    assert status & nft.IPS_SEEN_REPLY and status & nft.IPS_ASSURED
    assert not port.ask(nft.IPCTNL_MSG_CT_DELETE, 0, b"")
    (found,) = heard.receive()
    assert found.kind == CONNECTIONS | nft.IPCTNL_MSG_CT_DELETE
    program.ok("close", heard.fd)
    program.ok("sendto", one, b"x", 1, 0, place(2000), 16)


def test_connection_that_was_forgotten_is_told_no_more(program: Program, port: Port) -> None:
    follow(port)
    heard = member(program, *GROUPS)
    listener, one = (program.ok("socket", AF_INET, SOCK_STREAM, 0) for _ in range(2))
    program.ok("bind", listener, place(1000), 16)
    program.ok("listen", listener, 1)
    program.ok("connect", one, place(1000), 16)
    assert [each.kind for each in heard.receive()] == [CONNECTIONS | nft.IPCTNL_MSG_CT_NEW] * 2
    assert not port.ask(nft.IPCTNL_MSG_CT_DELETE, 0, b"")
    assert [each.kind for each in heard.receive()] == [CONNECTIONS | nft.IPCTNL_MSG_CT_DELETE]
    program.ok("close", one)
    assert not heard.receive()


def tuple_of(first: int, last: int) -> bytes:
    ends = attribute(nft.CTA_IP_V4_SRC, b"\n\0\0\1") + attribute(nft.CTA_IP_V4_DST, b"\n\0\0\2")
    if first > last:
        ends = attribute(nft.CTA_IP_V4_SRC, b"\n\0\0\2") + attribute(nft.CTA_IP_V4_DST, b"\n\0\0\1")
    about = attribute(nft.CTA_PROTO_NUM, bytes([TCP]))
    about += attribute(nft.CTA_PROTO_SRC_PORT, first.to_bytes(2))
    about += attribute(nft.CTA_PROTO_DST_PORT, last.to_bytes(2))
    return nested(nft.CTA_TUPLE_IP, ends) + nested(nft.CTA_TUPLE_PROTO, about)


ORIGINAL: Final = nested(nft.CTA_TUPLE_ORIG, tuple_of(1000, 2000))
BOTH: Final = ORIGINAL + nested(nft.CTA_TUPLE_REPLY, tuple_of(2000, 1000))
STATE: Final = nested(
    nft.CTA_PROTOINFO, nested(nft.CTA_PROTOINFO_TCP, attribute(nft.CTA_PROTOINFO_TCP_STATE, b"\3"))
)
TIME: Final = be32(nft.CTA_TIMEOUT, 100)
CREATE: Final = abi.NLM_F_CREATE | abi.NLM_F_EXCL


def test_connection_is_made_and_changed(program: Program, port: Port) -> None:
    heard = member(program, *GROUPS)
    confirmed = be32(nft.CTA_STATUS, nft.IPS_CONFIRMED | nft.IPS_ASSURED)
    made = BOTH + TIME + STATE + confirmed + be32(nft.CTA_MARK, 6)
    assert port.ask(nft.IPCTNL_MSG_CT_NEW, CREATE, made) == 0
    (found,) = heard.receive()
    assert found.flags == CREATE and found.port
    assert port.ask(nft.IPCTNL_MSG_CT_NEW, CREATE, made) == EEXIST.number
    mask = be32(nft.CTA_MARK, 1) + be32(nft.CTA_MARK_MASK, 3)
    assert port.ask(nft.IPCTNL_MSG_CT_NEW, 0, ORIGINAL + mask) == 0
    (found,) = heard.receive()
    assert int.from_bytes(found.attributes[nft.CTA_MARK]) == 5
    port.send(message(CONNECTIONS | nft.IPCTNL_MSG_CT_GET, 0, ORIGINAL))
    (found,) = port.receive()
    assert found.attributes[nft.CTA_STATUS] == confirmed[4:8]
    assert int.from_bytes(found.attributes[nft.CTA_TIMEOUT]) in (99, 100)
    assert found.attributes[nft.CTA_PROTOINFO] == STATE[4:]
    assert found.attributes[nft.CTA_USE] == be32(nft.CTA_USE, 2)[4:]
    assert port.ask(nft.IPCTNL_MSG_CT_DELETE, 0, ORIGINAL) == 0
    (found,) = heard.receive()
    assert int.from_bytes(found.attributes[nft.CTA_TIMEOUT]) in (99, 100) and found.port


@pytest.mark.parametrize(
    "flags, body, wrong",
    [
        (0, ORIGINAL + TIME, ENOENT), (CREATE, ORIGINAL + TIME, EINVAL), (CREATE, BOTH, EINVAL),
        (CREATE, BOTH + TIME + be32(nft.CTA_STATUS, nft.IPS_ASSURED), EBUSY),
        (CREATE, BOTH + TIME + nested(nft.CTA_HELP, b""), EOPNOTSUPP),
        (CREATE, BOTH + TIME + STATE.replace(b"\5\0\1\0\3", b"\5\0\1\0\x0a"), EINVAL),
    ],
)  # fmt: skip
def test_connection_that_is_wrong_is_refused(
    port: Port, flags: int, body: bytes, wrong: type[Errno]
) -> None:
    assert port.ask(nft.IPCTNL_MSG_CT_NEW, flags, body) == wrong.number
    port.send(message(CONNECTIONS | nft.IPCTNL_MSG_CT_GET, 0, ORIGINAL))
    (found,) = port.receive()
    assert found.error == ENOENT.number
