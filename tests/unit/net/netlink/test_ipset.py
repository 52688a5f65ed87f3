"""ipset's protocol: sets and elements come back as they were said, and Linux's errors."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import pytest

from sentry.abi import ipset as abi
from sentry.abi.netlink import NLA_F_NET_BYTEORDER, NLM_F_ACK, NLM_F_EXCL, NLMSG_DONE, NLMSG_ERROR
from sentry.abi.nftables import NFNL_SUBSYS_IPSET, NFPROTO_IPV4, NFPROTO_IPV6
from sentry.errors import EEXIST, EINVAL, ENOENT, ENOMEM, ERANGE
from sentry.net.netfilter.machine import elements, nested, text
from sentry.net.netlink.message import attribute, parse_attributes, u8, u32
from tests.unit.net.netlink.test_nfnetlink import Message, Port, message
from tests.world import World

SUBSYSTEM: Final = NFNL_SUBSYS_IPSET << 8
VERSION: Final = u8(abi.IPSET_ATTR_PROTOCOL, abi.IPSET_PROTOCOL)
TCP, UDP, GRE = 6, 17, 47
HERE: Final = 10 << 24
"""10.0.0.0."""


def net(kind: int, value: int, size: int = 4) -> bytes:
    return attribute(kind | NLA_F_NET_BYTEORDER, value.to_bytes(size))


def address(value: int, kind: int = abi.IPSET_ATTR_IP) -> bytes:
    if value < 1 << 32:
        return nested(kind, net(abi.IPSET_ATTR_IPADDR_IPV4, value))
    return nested(kind, net(abi.IPSET_ATTR_IPADDR_IPV6, value, 16))


def port(value: int, kind: int = abi.IPSET_ATTR_PORT) -> bytes:
    return net(kind, value, 2)


def protocol(value: int) -> bytes:
    return u8(abi.IPSET_ATTR_PROTO, value)


def prefix(value: int) -> bytes:
    return u8(abi.IPSET_ATTR_CIDR, value)


def flags(value: int) -> bytes:
    return net(abi.IPSET_ATTR_CADT_FLAGS, value)


def named(name: str) -> bytes:
    return text(abi.IPSET_ATTR_SETNAME, name)


class Sets:
    """A program that is ipset."""

    def __init__(self, port: Port) -> None:
        self.port = port

    def send(self, command: int, body: bytes, flags: int) -> list[Message]:
        """A message, and what is answered."""
        self.port.send(message(SUBSYSTEM | command, flags, VERSION + body))
        return self.port.receive()

    def do(self, command: int, body: bytes = b"", flags: int = NLM_F_EXCL) -> int:
        """0, or an error."""
        (found,) = self.send(command, body, NLM_F_ACK | flags)
        return found.error

    def create(
        self, kind: str, about: bytes = b"", name: str = "s", family: int = NFPROTO_IPV4,
        flags: int = NLM_F_EXCL, revision: int = 0,
    ) -> int:  # fmt: skip
        """A new set."""
        body = named(name) + text(abi.IPSET_ATTR_TYPENAME, kind)
        body += u8(abi.IPSET_ATTR_REVISION, revision) + u8(abi.IPSET_ATTR_FAMILY, family)
        body += nested(abi.IPSET_ATTR_DATA, about)
        return self.do(abi.IPSET_CMD_CREATE, body, flags)

    def of(self, command: int, element: bytes, flags: int = NLM_F_EXCL, name: str = "s") -> int:
        """Something is done with an element."""
        return self.do(command, named(name) + nested(abi.IPSET_ATTR_DATA, element), flags)

    def add(self, element: bytes, flags: int = NLM_F_EXCL, name: str = "s") -> int:
        """It is in the set."""
        return self.of(abi.IPSET_CMD_ADD, element, flags, name)

    def told(self, body: bytes = b"", flags: int = 0) -> list[dict[int, bytes]]:
        """What IPSET_CMD_LIST says."""
        *found, last = self.send(abi.IPSET_CMD_LIST, body, flags)
        assert last.kind == NLMSG_DONE
        assert {each.kind for each in found} <= {SUBSYSTEM | abi.IPSET_CMD_LIST}
        return [each.attributes for each in found]

    def elements(self, name: str = "s") -> list[dict[int, bytes]]:
        """Of a set."""
        told = [each[abi.IPSET_ATTR_ADT] for each in self.told(named(name))]
        return [parse_attributes(each) for part in told for each in elements(part)]

    def ips(self, name: str = "s") -> list[int]:
        """Of them, above 10.0.0.0."""
        found = [each[abi.IPSET_ATTR_IP] for each in self.elements(name)]
        raw = [parse_attributes(each)[abi.IPSET_ATTR_IPADDR_IPV4] for each in found]
        return [int.from_bytes(each) - HERE for each in raw]


@pytest.fixture
def sets() -> Iterator[Sets]:
    with World() as world:
        yield Sets(Port(world.program()))


# --- what is asked


def test_protocol_and_kinds_are_told(sets: Sets) -> None:
    (found,) = sets.send(abi.IPSET_CMD_PROTOCOL, b"", 0)
    assert found.kind == SUBSYSTEM | abi.IPSET_CMD_PROTOCOL
    assert found.attributes == {
        abi.IPSET_ATTR_PROTOCOL: b"\7", abi.IPSET_ATTR_PROTOCOL_MIN: b"\6",
    }  # fmt: skip
    body = text(abi.IPSET_ATTR_TYPENAME, "hash:net") + u8(abi.IPSET_ATTR_FAMILY, NFPROTO_IPV4)
    (found,) = sets.send(abi.IPSET_CMD_TYPE, body, 0)
    told = found.attributes
    assert told[abi.IPSET_ATTR_REVISION] == b"\5" and told[abi.IPSET_ATTR_REVISION_MIN] == b"\0"
    body = text(abi.IPSET_ATTR_TYPENAME, "hash:mac") + u8(abi.IPSET_ATTR_FAMILY, NFPROTO_IPV4)
    (found,) = sets.send(abi.IPSET_CMD_TYPE, body, 0)
    assert found.error == abi.IPSET_ERR_FIND_TYPE


def test_set_is_told_by_name_and_by_index(sets: Sets) -> None:
    assert not sets.create("hash:ip", name="a") and not sets.create("hash:ip", name="b")
    (found,) = sets.send(abi.IPSET_CMD_GET_BYNAME, named("b"), 0)
    assert found.attributes[abi.IPSET_ATTR_INDEX] == b"\0\1"
    (found,) = sets.send(abi.IPSET_CMD_GET_BYINDEX, net(abi.IPSET_ATTR_INDEX, 1, 2), 0)
    assert found.attributes[abi.IPSET_ATTR_SETNAME] == b"b\0"
    (found,) = sets.send(abi.IPSET_CMD_HEADER, named("a"), 0)
    assert found.attributes[abi.IPSET_ATTR_TYPENAME] == b"hash:ip\0"
    (found,) = sets.send(abi.IPSET_CMD_HEADER, named("c"), 0)
    assert found.error == ENOENT.number


def test_old_protocol_is_refused(sets: Sets) -> None:
    old = u8(abi.IPSET_ATTR_PROTOCOL, 5)
    sets.port.send(message(SUBSYSTEM | abi.IPSET_CMD_FLUSH, 0, old))
    (found,) = sets.port.receive()
    assert found.error == abi.IPSET_ERR_PROTOCOL


# --- sets


@pytest.mark.parametrize(
    "kind, about, family, revision, error",
    [
        ("hash:mac", b"", NFPROTO_IPV4, 0, abi.IPSET_ERR_FIND_TYPE),
        ("hash:ip", b"", NFPROTO_IPV4, 4, abi.IPSET_ERR_FIND_TYPE),
        ("hash:ip", b"", 0, 0, abi.IPSET_ERR_INVALID_FAMILY),
        ("hash:ip", u8(abi.IPSET_ATTR_NETMASK, 33), NFPROTO_IPV4, 0,
         abi.IPSET_ERR_INVALID_NETMASK),
        ("hash:ip", u32(abi.IPSET_ATTR_MAXELEM, 5), NFPROTO_IPV4, 0, abi.IPSET_ERR_PROTOCOL),
        ("bitmap:port", port(1), 0, 0, abi.IPSET_ERR_PROTOCOL),
        ("hash:ip", b"", NFPROTO_IPV6, 3, 0),
        ("hash:ip", u8(abi.IPSET_ATTR_NETMASK, 33), NFPROTO_IPV6, 0, 0),
        ("list:set", net(abi.IPSET_ATTR_SIZE, 4), 0, 2, 0),
    ],
)  # fmt: skip
def test_set_is_made_or_refused(
    sets: Sets, kind: str, about: bytes, family: int, revision: int, error: int
) -> None:
    assert sets.create(kind, about, family=family, revision=revision) == error
    assert len(sets.told()) == (not error)


def test_set_is_made_once_unless_it_is_the_same(sets: Sets) -> None:
    assert not sets.create("hash:ip")
    assert sets.create("hash:ip") == EEXIST.number
    assert not sets.create("hash:ip", flags=0)
    assert sets.create("hash:ip", net(abi.IPSET_ATTR_MAXELEM, 5), flags=0) == EEXIST.number
    assert sets.create("hash:net", flags=0) == EEXIST.number


def test_what_a_set_is_comes_back(sets: Sets) -> None:
    about = net(abi.IPSET_ATTR_HASHSIZE, 100) + net(abi.IPSET_ATTR_MAXELEM, 7)
    about += net(abi.IPSET_ATTR_TIMEOUT, 60) + flags(abi.IPSET_FLAG_WITH_COUNTERS)
    assert not sets.create("hash:ip", about, revision=1)
    (told,) = sets.told(named("s"))
    assert told[abi.IPSET_ATTR_REVISION] == b"\1" and told[abi.IPSET_ATTR_FAMILY] == b"\2"
    inner = parse_attributes(told[abi.IPSET_ATTR_DATA])
    values = {
        abi.IPSET_ATTR_HASHSIZE: 128, abi.IPSET_ATTR_MAXELEM: 7, abi.IPSET_ATTR_TIMEOUT: 60,
        abi.IPSET_ATTR_REFERENCES: 0, abi.IPSET_ATTR_ELEMENTS: 0,
        abi.IPSET_ATTR_CADT_FLAGS: abi.IPSET_FLAG_WITH_COUNTERS,
    }  # fmt: skip
    assert {kind: int.from_bytes(inner[kind]) for kind in values} == values


def test_sets_go_and_get_other_names(sets: Sets) -> None:
    assert not sets.create("hash:ip", name="a") and not sets.create("hash:ip", name="b")
    both = named("a") + text(abi.IPSET_ATTR_SETNAME2, "b")
    other = named("a") + text(abi.IPSET_ATTR_SETNAME2, "c")
    assert not sets.add(address(HERE + 1), name="a")
    assert sets.do(abi.IPSET_CMD_RENAME, both) == abi.IPSET_ERR_EXIST_SETNAME2
    assert sets.do(abi.IPSET_CMD_SWAP, other) == abi.IPSET_ERR_EXIST_SETNAME2
    assert not sets.do(abi.IPSET_CMD_SWAP, both)
    assert (sets.ips("a"), sets.ips("b")) == ([], [1])
    assert not sets.do(abi.IPSET_CMD_RENAME, other)
    assert sets.do(abi.IPSET_CMD_DESTROY, named("a")) == ENOENT.number
    assert not sets.do(abi.IPSET_CMD_DESTROY, named("a"), 0)
    assert not sets.do(abi.IPSET_CMD_FLUSH) and not sets.ips("b")
    assert not sets.do(abi.IPSET_CMD_DESTROY) and not sets.told()
    assert sets.do(abi.IPSET_CMD_FLUSH, named("b")) == ENOENT.number


# --- elements

PLACE = address(HERE + 1)
KINDS: Final = [
    ("hash:ip", b"", PLACE),
    ("hash:net", b"", address(HERE) + prefix(24)),
    ("hash:ip,port", b"", PLACE + port(80) + protocol(TCP)),
    ("hash:net,port", b"", address(HERE) + prefix(8) + port(0) + protocol(GRE)),
    ("bitmap:port", port(70) + port(90, abi.IPSET_ATTR_PORT_TO), port(80)),
]


@pytest.mark.parametrize("kind, about, element", KINDS)
def test_element_comes_back_and_goes(
    sets: Sets, kind: str, about: bytes, element: bytes
) -> None:
    about += flags(abi.IPSET_FLAG_WITH_COMMENT | abi.IPSET_FLAG_WITH_COUNTERS)
    about += net(abi.IPSET_ATTR_TIMEOUT, 0)
    assert not sets.create(kind, about)
    more = text(abi.IPSET_ATTR_COMMENT, "why") + net(abi.IPSET_ATTR_TIMEOUT, 9)
    more += net(abi.IPSET_ATTR_PACKETS, 5, 8) + net(abi.IPSET_ATTR_BYTES, 50, 8)
    assert not sets.add(element + more)
    (found,) = sets.elements()
    wanted = parse_attributes(element + more)
    place = found.pop(abi.IPSET_ATTR_IP, b"")
    assert place[4:] == wanted.pop(abi.IPSET_ATTR_IP, b"")[4:]
    wanted.update({abi.IPSET_ATTR_TIMEOUT: found[abi.IPSET_ATTR_TIMEOUT]})
    assert found == wanted
    assert int.from_bytes(found[abi.IPSET_ATTR_TIMEOUT]) in (8, 9)
    assert sets.add(element) == abi.IPSET_ERR_EXIST
    assert not sets.add(element, 0)
    assert not sets.of(abi.IPSET_CMD_TEST, element)
    assert not sets.of(abi.IPSET_CMD_DEL, element)
    assert sets.of(abi.IPSET_CMD_TEST, element) == abi.IPSET_ERR_EXIST
    assert sets.of(abi.IPSET_CMD_DEL, element) == abi.IPSET_ERR_EXIST
    assert not sets.of(abi.IPSET_CMD_DEL, element, 0)
    assert not sets.elements()


@pytest.mark.parametrize(
    "kind, element, error",
    [
        ("hash:ip", b"", abi.IPSET_ERR_PROTOCOL),
        ("hash:ip", address(0), abi.IPSET_ERR_HASH_ELEM),
        ("hash:ip", address(1 << 100), abi.IPSET_ERR_PROTOCOL),
        ("hash:ip", PLACE + prefix(33), abi.IPSET_ERR_INVALID_CIDR),
        ("hash:ip", PLACE + prefix(8), ERANGE.number),
        ("hash:ip", PLACE + net(abi.IPSET_ATTR_TIMEOUT, 1), abi.IPSET_ERR_TIMEOUT),
        ("hash:ip", PLACE + net(abi.IPSET_ATTR_BYTES, 1, 8), abi.IPSET_ERR_COUNTER),
        ("hash:ip", PLACE + text(abi.IPSET_ATTR_COMMENT, "x"), abi.IPSET_ERR_COMMENT),
        ("hash:net", PLACE + prefix(0), abi.IPSET_ERR_INVALID_CIDR),
        ("hash:net", address(0) + address((1 << 32) - 1, abi.IPSET_ATTR_IP_TO),
         abi.IPSET_ERR_HASH_RANGE),
        ("hash:ip,port", PLACE + port(1), abi.IPSET_ERR_MISSING_PROTO),
        ("hash:ip,port", PLACE + port(1) + protocol(0), abi.IPSET_ERR_INVALID_PROTO),
        ("hash:ip,port", PLACE + protocol(UDP), abi.IPSET_ERR_PROTOCOL),
    ],
)  # fmt: skip
def test_element_that_is_wrong_is_refused(
    sets: Sets, kind: str, element: bytes, error: int
) -> None:
    assert not sets.create(kind)
    assert sets.add(element) == error
    assert not sets.elements()


def test_ranges_are_elements(sets: Sets) -> None:
    assert not sets.create("hash:ip")
    assert not sets.add(PLACE + address(HERE + 5, abi.IPSET_ATTR_IP_TO))
    assert sets.ips() == [1, 2, 3, 4, 5]
    assert sets.add(address(HERE) + prefix(29)) == abi.IPSET_ERR_EXIST
    assert not sets.of(abi.IPSET_CMD_DEL, address(HERE) + prefix(29), 0)
    assert not sets.ips()
    assert not sets.create("hash:net", name="n")
    assert not sets.add(PLACE + address(HERE + 8, abi.IPSET_ATTR_IP_TO), name="n")
    sizes = [each[abi.IPSET_ATTR_CIDR][0] for each in sets.elements("n")]
    assert list(zip(sets.ips("n"), sizes, strict=True)) == [
        (1, 32), (2, 31), (4, 30), (8, 32),
    ]  # fmt: skip
    ports = port(10) + port(12, abi.IPSET_ATTR_PORT_TO) + protocol(UDP)
    assert not sets.create("hash:ip,port", name="p")
    assert not sets.add(address(HERE) + prefix(31) + ports, name="p")
    assert len(sets.elements("p")) == 6
    assert not sets.create("bitmap:port", port(10) + port(20, abi.IPSET_ATTR_PORT_TO), "b")
    assert not sets.add(port(12) + port(10, abi.IPSET_ATTR_PORT_TO), name="b")
    assert sets.add(port(9), name="b") == abi.IPSET_ERR_BITMAP_RANGE
    assert len(sets.elements("b")) == 3


def test_network_holds_its_addresses_but_for_exceptions(sets: Sets) -> None:
    assert not sets.create("hash:net")
    assert not sets.add(address(HERE) + prefix(24))
    nomatch = flags(abi.IPSET_FLAG_NOMATCH)
    assert not sets.add(address(HERE + 4) + prefix(30) + nomatch)
    told = [each.get(abi.IPSET_ATTR_CADT_FLAGS, b"") for each in sets.elements()]
    assert [int.from_bytes(each) for each in told] == [0, abi.IPSET_FLAG_NOMATCH]
    inside = [sets.of(abi.IPSET_CMD_TEST, address(HERE + each)) for each in (1, 5, 300)]
    assert inside == [0, abi.IPSET_ERR_EXIST, abi.IPSET_ERR_EXIST]
    assert not sets.of(abi.IPSET_CMD_TEST, address(HERE + 5) + nomatch)


def test_some_elements_come_at_once_and_the_wrong_line_is_told(sets: Sets) -> None:
    assert not sets.create("hash:ip")
    lines = [(3, HERE + 1), (4, HERE + 2), (5, HERE + 1), (6, HERE + 3)]
    listed = b"".join(
        nested(abi.IPSET_ATTR_DATA, address(ip) + u32(abi.IPSET_ATTR_LINENO, line))
        for line, ip in lines
    )
    body = named("s") + u32(abi.IPSET_ATTR_LINENO, 3) + nested(abi.IPSET_ATTR_ADT, listed)
    (found,) = sets.send(abi.IPSET_CMD_ADD, body, NLM_F_ACK | NLM_F_EXCL)
    assert (found.kind, found.error) == (NLMSG_ERROR, abi.IPSET_ERR_EXIST)
    quoted = parse_attributes(found.body[4 + 16 + 4 :])
    assert quoted[abi.IPSET_ATTR_LINENO] == struct.pack("<I", 5)
    assert sets.ips() == [1, 2]
    assert not sets.do(abi.IPSET_CMD_ADD, body, 0)
    assert sets.ips() == [1, 2, 3]


def test_list_has_an_order(sets: Sets) -> None:
    assert not sets.create("list:set", name="l", family=0)
    for name in "abcd":
        assert not sets.create("hash:ip", name=name)

    def place(name: str, other: str = "", before: bool = False) -> bytes:
        made = text(abi.IPSET_ATTR_NAME, name) + flags(before and abi.IPSET_FLAG_BEFORE)
        return made + (text(abi.IPSET_ATTR_NAMEREF, other) if other else b"")

    def add(name: str, other: str = "", before: bool = False) -> int:
        return sets.add(place(name, other, before), name="l")

    assert not add("a") and not add("b")
    assert not add("c", "b", True) and not add("d", "a")
    assert [each[abi.IPSET_ATTR_NAME] for each in sets.elements("l")] == [
        b"a\0", b"d\0", b"c\0", b"b\0",
    ]  # fmt: skip
    assert add("a") == abi.IPSET_ERR_EXIST
    assert add("x") == abi.IPSET_ERR_NAME
    assert add("l") == abi.IPSET_ERR_LOOP
    assert add("a", "", True) == abi.IPSET_ERR_BEFORE
    assert add("a", "x") == abi.IPSET_ERR_NAMEREF
    assert not sets.of(abi.IPSET_CMD_TEST, place("d", "a"), name="l")
    assert sets.of(abi.IPSET_CMD_TEST, place("d", "b"), name="l") == abi.IPSET_ERR_EXIST
    assert sets.do(abi.IPSET_CMD_DESTROY, named("a")) == abi.IPSET_ERR_BUSY
    assert sets.do(abi.IPSET_CMD_DESTROY) == abi.IPSET_ERR_BUSY
    wrong = sets.of(abi.IPSET_CMD_DEL, place("a", "b"), name="l")
    assert wrong == abi.IPSET_ERR_REF_EXIST
    assert not sets.of(abi.IPSET_CMD_DEL, place("a"), name="l")
    assert add("a", "a") == abi.IPSET_ERR_REF_EXIST
    assert not sets.do(abi.IPSET_CMD_DESTROY, named("a"))
    assert [each[abi.IPSET_ATTR_SETNAME] for each in sets.told()][-1] == b"l\0"
    assert not sets.do(abi.IPSET_CMD_DESTROY, named("l"))
    assert not sets.do(abi.IPSET_CMD_DESTROY)


def test_names_and_heads_are_told_alone(sets: Sets) -> None:
    assert not sets.create("hash:ip") and not sets.add(PLACE)
    only = net(abi.IPSET_ATTR_FLAGS, abi.IPSET_FLAG_LIST_SETNAME)
    assert [set(each) for each in sets.told(only)] == [
        {abi.IPSET_ATTR_PROTOCOL, abi.IPSET_ATTR_SETNAME}
    ]
    (told,) = sets.told(net(abi.IPSET_ATTR_FLAGS, abi.IPSET_FLAG_LIST_HEADER))
    assert abi.IPSET_ATTR_DATA in told and abi.IPSET_ATTR_ADT not in told
    (found,) = sets.send(abi.IPSET_CMD_LIST, named("x"), 0)
    assert found.error == ENOENT.number


def test_large_set_is_told_in_pieces(sets: Sets) -> None:
    assert not sets.create("hash:ip")
    assert not sets.add(address(HERE + 1) + address(HERE + 1000, abi.IPSET_ATTR_IP_TO))
    assert sets.ips() == list(range(1, 1001))
    heads = [abi.IPSET_ATTR_TYPENAME in each for each in sets.told(named("s"))]
    assert heads[0] and not any(heads[1:]) and len(heads) > 10


def test_datagram_changes_a_bounded_number_of_elements(sets: Sets) -> None:
    assert not sets.create("hash:ip")
    many = nested(abi.IPSET_ATTR_DATA, address(HERE) + prefix(18))
    one = message(SUBSYSTEM | abi.IPSET_CMD_ADD, NLM_F_ACK, VERSION + named("s") + many)
    sets.port.send(one * 2)
    assert [each.error for each in sets.port.receive()] == [0, ENOMEM.number]
    sets.port.send(one)
    (found,) = sets.port.receive()
    assert not found.error


def test_name_without_an_end_is_refused(sets: Sets) -> None:
    name = attribute(abi.IPSET_ATTR_SETNAME, b"x" * 40)
    assert sets.do(abi.IPSET_CMD_FLUSH, name) == EINVAL.number
