"""iptables without nftables by socket options, in Linux's order of errors; SO_ORIGINAL_DST."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import pytest

from sentry.abi import ipset
from sentry.abi.ip_tables import (
    IP6T_SO_GET_REVISION_TARGET,
    IP6T_SO_ORIGINAL_DST,
    IPT_SO_GET_ENTRIES,
    IPT_SO_GET_INFO,
    IPT_SO_GET_REVISION_MATCH,
    IPT_SO_GET_REVISION_TARGET,
    IPT_SO_SET_ADD_COUNTERS,
    IPT_SO_SET_REPLACE,
    SO_ORIGINAL_DST,
)
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPPROTO_RAW,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_STREAM,
)
from sentry.errors import (
    EAGAIN,
    EBADMSG,
    EFAULT,
    EINVAL,
    ELOOP,
    ENOENT,
    ENOMEM,
    ENOPROTOOPT,
    EOPNOTSUPP,
    EPERM,
    EPROTO,
    EPROTONOSUPPORT,
    Errno,
)
from sentry.net.netfilter.ip_tables import COUNTERS, INFO
from tests.unit.net.netfilter.blobs import DROP, entry, header, part, standard, with_rules
from tests.unit.net.netlink.test_ipset import Sets
from tests.unit.net.netlink.test_nfnetlink import Port
from tests.world import Program, World

OUT: Final = 3
UDP, TCP = 17, 6
SIZE: Final = 632
"""Of a filter table without rules."""
BAD: Final = 0x10
SECOND_NS: Final = 1_000_000_000
DAY_NS: Final = 86400 * SECOND_NS


class Tables:
    """A program with a raw socket, as iptables has one."""

    def __init__(self, program: Program, family: int = AF_INET, kind: int = SOCK_RAW) -> None:
        self.program = program
        self.fd = program.ok("socket", family, kind, IPPROTO_RAW if kind == SOCK_RAW else 0)
        self.level = IPPROTO_IP if family == AF_INET else IPPROTO_IPV6

    def get(self, name: int, question: bytes, size: int = -1) -> bytes | int:
        """What it says, or -errno."""
        at = self.program.place(question.ljust(4096, b"\xa5"))
        length = self.program.place(struct.pack("<i", len(question) if size < 0 else size))
        found = self.program.call("getsockopt", self.fd, self.level, name, at, length)
        if found < 0:
            return found
        (told,) = struct.unpack("<i", self.program.read(length, 4))
        return self.program.read(at, told)

    def set(self, name: int, value: bytes) -> int:
        """0, or -errno."""
        return self.program.call(
            "setsockopt", self.fd, self.level, name, self.program.place(value), len(value)
        )

    def info(self, name: bytes = b"filter") -> bytes | int:
        """struct ipt_getinfo."""
        return self.get(IPT_SO_GET_INFO, name.ljust(INFO.size, b"\0"))

    def entries(self, size: int, name: bytes = b"filter") -> bytes | int:
        """All of them."""
        question = struct.pack("<32sI4x", name, size)
        found = self.get(IPT_SO_GET_ENTRIES, question, len(question) + size)
        return found[len(question) :] if isinstance(found, bytes) else found


@pytest.fixture
def tables() -> Iterator[Tables]:
    with World() as world:
        yield Tables(world.program())


def test_table_is_told(tables: Tables) -> None:
    found = tables.info()
    assert isinstance(found, bytes)
    assert INFO.unpack(found)[-2:] == (4, SIZE)
    dumped = tables.entries(SIZE)
    assert isinstance(dumped, bytes) and len(dumped) == SIZE


def test_table_is_replaced_and_its_old_counters_are_told(tables: Tables) -> None:
    room = tables.program.place(b"\xff" * 64)
    rule = entry(standard(DROP), head=header(protocol=UDP))
    value = with_rules("filter", OUT, [rule], counters=(4, room))
    assert tables.set(IPT_SO_SET_REPLACE, value) == 0
    assert tables.program.read(room, 64) == bytes(64)
    datagram = tables.program.ok("socket", AF_INET, SOCK_DGRAM, 0)
    there = struct.pack("<H", AF_INET) + struct.pack(">H4s8x", 9, b"\x7f\0\0\1")
    refused = tables.program.call("sendto", datagram, b"x", 1, 0, there, 16)
    assert refused == -EPERM.number
    assert tables.set(IPT_SO_SET_REPLACE, value) == -EAGAIN.number
    room = tables.program.place(bytes(80))
    again = with_rules("filter", OUT, [], counters=(5, room))
    assert tables.set(IPT_SO_SET_REPLACE, again) == 0
    assert COUNTERS.unpack(tables.program.read(room + 32, 16)) == (1, 29)
    assert tables.program.ok("sendto", datagram, b"x", 1, 0, there, 16) == 1


def test_counters_that_cannot_be_told_are_no_error(tables: Tables) -> None:
    rule = entry(standard(DROP), head=header(protocol=UDP))
    assert tables.set(IPT_SO_SET_REPLACE, with_rules("filter", OUT, [rule], counters=(4, BAD))) == 0
    assert isinstance(tables.entries(SIZE + 152), bytes)


def test_counters_are_added(tables: Tables) -> None:
    assert isinstance(tables.info(), bytes)
    head = struct.pack("<32sI4x", b"filter", 4)
    assert tables.set(IPT_SO_SET_ADD_COUNTERS, head + COUNTERS.pack(3, 4) * 4) == 0
    found = tables.entries(SIZE)
    assert isinstance(found, bytes)
    assert COUNTERS.unpack_from(found, 96) == (3, 4)


def replace(**changed: int) -> bytes:
    """struct ipt_replace of a table without rules, with other values."""
    fields = {"counters": 4, "size": SIZE, "entries": 4, "hooks": 0b1110} | changed
    value = bytearray(with_rules("filter", OUT, [], counters=(fields["counters"], 0)))
    struct.pack_into("<III", value, 32, fields["hooks"], fields["entries"], fields["size"])
    return bytes(value)


@pytest.mark.parametrize(
    "value, wrong",
    [
        (bytes(95), EINVAL), (replace(counters=0), EINVAL), (replace(counters=1 << 31), ENOMEM),
        (replace(size=SIZE + 8), EINVAL), (replace(size=1 << 20), ENOMEM),
        (replace(entries=5), EINVAL), (replace(hooks=0b110), EINVAL), (replace(counters=3), EAGAIN),
        (replace().replace(b"filter", b"nosuch", 1), ENOENT),
        (with_rules("filter", OUT, [entry(standard(304))], counters=(4, 0)), ELOOP),
    ],
)  # fmt: skip
def test_table_that_is_wrong_is_refused(tables: Tables, value: bytes, wrong: type[Errno]) -> None:
    assert tables.set(IPT_SO_SET_REPLACE, value) == -wrong.number


@pytest.mark.parametrize(
    "name, question, size, wrong",
    [
        (IPT_SO_GET_INFO, b"filter", 83, EINVAL), (IPT_SO_GET_INFO, b"nosuch\0", 84, ENOENT),
        (IPT_SO_GET_ENTRIES, b"filter", 39, EINVAL),
        (IPT_SO_GET_ENTRIES, struct.pack("<32sI4x", b"filter", 640), 640, EINVAL),
        (IPT_SO_GET_ENTRIES, struct.pack("<32sI4x", b"filter", 640), 680, EAGAIN),
        (IPT_SO_GET_ENTRIES, struct.pack("<32sI4x", b"nosuch", 640), 680, ENOENT),
        (IPT_SO_GET_REVISION_MATCH, b"tcp".ljust(30, b"\0"), 29, EINVAL),
        (IPT_SO_GET_REVISION_MATCH, b"nosuch".ljust(30, b"\0"), 30, ENOENT),
        (IPT_SO_GET_REVISION_MATCH, b"conntrack".ljust(29, b"\0") + b"\x09", 30, EPROTONOSUPPORT),
        (IPT_SO_GET_REVISION_TARGET, b"MARK".ljust(29, b"\0") + b"\x09", 30, EPROTONOSUPPORT),
    ],
)  # fmt: skip
def test_question_that_is_wrong_is_refused(
    tables: Tables, name: int, question: bytes, size: int, wrong: type[Errno]
) -> None:
    assert tables.get(name, question, size) == -wrong.number


def test_revisions_that_are_known_are_not_written_back(tables: Tables) -> None:
    for name, about in (
        (IPT_SO_GET_REVISION_MATCH, b"conntrack".ljust(29, b"\0") + b"\3"),
        (IPT_SO_GET_REVISION_TARGET, b"MASQUERADE".ljust(30, b"\0")),
    ):
        assert tables.get(name, about) == about


def test_rights_are_looked_at_first() -> None:
    with World() as world:
        root = world.program()
        user = root.sibling(uid=1000)
        tables = Tables(user, kind=SOCK_STREAM)
        for name in (IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES, IPT_SO_GET_REVISION_MATCH):
            assert tables.get(name, b"") == -EPERM.number
        for name in (IPT_SO_SET_REPLACE, IPT_SO_SET_ADD_COUNTERS):
            done = user.call("setsockopt", tables.fd, IPPROTO_IP, name, BAD, 4)
            assert done == -EPERM.number


def test_buffer_that_cannot_be_read_is_an_error(tables: Tables) -> None:
    program, level = tables.program, IPPROTO_IP
    length = program.place(struct.pack("<i", 84))
    found = program.call("getsockopt", tables.fd, level, IPT_SO_GET_INFO, BAD, length)
    assert found == -EFAULT.number
    done = program.call("setsockopt", tables.fd, level, IPT_SO_SET_REPLACE, BAD, 96)
    assert done == -EFAULT.number


def test_ipv6_has_tables_of_its_own() -> None:
    with World() as world:
        program = world.program()
        six, four = Tables(program, AF_INET6), Tables(program)
        found = six.info(b"mangle")
        assert isinstance(found, bytes) and INFO.unpack(found)[-1] == 5 * 208 + 232
        about = b"REJECT".ljust(30, b"\0")
        assert six.get(IP6T_SO_GET_REVISION_TARGET, about) == about
        four.level = IPPROTO_IPV6
        assert four.info() == -EOPNOTSUPP.number
        assert four.set(IPT_SO_SET_REPLACE, bytes(96)) == -ENOPROTOOPT.number


def test_tables_are_named_in_proc(tables: Tables) -> None:
    for name in (b"raw", b"nat"):
        assert isinstance(tables.info(name), bytes)
    tables.program.world.mount("proc", b"/proc")
    fd = tables.program.ok("open", b"/proc/net/ip_tables_names", 0)
    at = tables.program.buffer(64)
    assert tables.program.read(at, tables.program.ok("read", fd, at, 64)) == b"nat\nraw\n"


# --- the target that a connection had


def address(port: int, family: int = AF_INET) -> bytes:
    """Of the loopback."""
    if family == AF_INET:
        return struct.pack("<H", AF_INET) + struct.pack(">H4s8x", port, b"\x7f\0\0\1")
    return struct.pack("<H", AF_INET6) + struct.pack(">H4x16s4x", port, bytes(15) + b"\1")


def redirected(port: int, family: int) -> bytes:
    """A nat table that sends what is for another port of the loopback there."""
    flags, is_v4 = 2, family == AF_INET
    where = struct.pack("<II", 1, flags) + bytes(8) + struct.pack(">HH", port, port)
    if not is_v4:
        where = struct.pack("<I", flags) + bytes(32) + struct.pack(">HH", port, port)
    match = part("tcp", 0, struct.pack("<4H4B", 0, 0xFFFF, 81, 81, 0, 0, 0, 0))
    protocol = struct.pack("<HBBB", TCP, 0, 1, 0)
    head = header(protocol=TCP) if is_v4 else bytes(128) + protocol
    rule = entry(part("REDIRECT", 0, where), match, head=head, is_v4=is_v4)
    return with_rules("nat", OUT, [rule], counters=(5, 0), is_v4=is_v4)


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_original_target_of_a_connection_is_told(family: int) -> None:
    with World() as world:
        program = world.program()
        tables = Tables(program, family)
        assert tables.set(IPT_SO_SET_REPLACE, redirected(80, family)) == 0
        listener = program.ok("socket", family, SOCK_STREAM, 0)
        own = address(80, family)
        program.ok("bind", listener, own, len(own))
        program.ok("listen", listener, 5)
        client = program.ok("socket", family, SOCK_STREAM, 0)
        to = address(81, family)
        program.ok("connect", client, to, len(to))
        server = program.ok("accept", listener, 0, 0)
        name = SO_ORIGINAL_DST if family == AF_INET else IP6T_SO_ORIGINAL_DST
        for fd in (server, client):
            tables.fd = fd
            assert tables.get(name, bytes(len(to))) == to
        tables.fd = server
        assert tables.get(name, b"", len(to) - 1) == -EINVAL.number
        tables.fd = listener
        assert tables.get(name, b"", len(to)) == -ENOENT.number


def test_connection_is_followed_until_it_is_over() -> None:
    with World(stepped=True) as world:
        program = world.program()
        tables = Tables(program)
        assert tables.set(IPT_SO_SET_REPLACE, redirected(80, AF_INET)) == 0
        listener, client = (program.ok("socket", AF_INET, SOCK_STREAM, 0) for _ in range(2))
        program.ok("bind", listener, address(80), 16)
        program.ok("listen", listener, 5)
        program.ok("connect", client, address(81), 16)
        tables.fd = program.ok("accept", listener, 0, 0)
        world.loop.advance(DAY_NS)
        assert tables.get(SO_ORIGINAL_DST, bytes(16)) == address(81)
        program.ok("close", client)
        world.loop.advance(119 * SECOND_NS)
        assert tables.get(SO_ORIGINAL_DST, bytes(16)) == address(81)
        world.loop.advance(2 * SECOND_NS)
        assert tables.get(SO_ORIGINAL_DST, bytes(16)) == -ENOENT.number


@pytest.mark.parametrize("kind, wrong", [(SOCK_DGRAM, ENOPROTOOPT), (SOCK_STREAM, ENOENT)])
def test_who_has_no_followed_connection_has_no_target(kind: int, wrong: type[Errno]) -> None:
    with World() as world:
        tables = Tables(world.program(), kind=kind)
        assert tables.get(SO_ORIGINAL_DST, bytes(16)) == -wrong.number


def test_sets_are_found_by_name_and_by_index(tables: Tables) -> None:
    version, name = struct.pack("<II", ipset.IP_SET_OP_VERSION, 0), b"s".ljust(32, b"\0")
    assert tables.get(ipset.SO_IP_SET, version) == struct.pack("<II", ipset.IP_SET_OP_VERSION, 6)
    assert not Sets(Port(tables.program)).create("hash:ip")

    def ask(operation: int, rest: bytes, version: int = 6) -> bytes | int:
        return tables.get(ipset.SO_IP_SET, struct.pack("<II", operation, version) + rest)

    nobody = ipset.IPSET_INVALID_ID
    for asked, index in ((name, 0), (name.replace(b"s", b"x"), nobody)):
        found = ask(ipset.IP_SET_OP_GET_BYNAME, asked)
        assert isinstance(found, bytes) and struct.unpack_from("<H", found, 8) == (index,)
    found = ask(ipset.IP_SET_OP_GET_FNAME, bytes(4) + name)
    assert isinstance(found, bytes) and struct.unpack_from("<IH", found, 8) == (AF_INET, 0)
    found = ask(ipset.IP_SET_OP_GET_BYINDEX, bytes(32))
    assert isinstance(found, bytes) and found[8:] == name
    assert ask(ipset.IP_SET_OP_GET_BYINDEX, b"\7" + bytes(31)) == found[:8] + bytes(32)
    assert ask(ipset.IP_SET_OP_GET_BYINDEX, b"\0\1" + bytes(30)) == -EINVAL.number
    assert ask(ipset.IP_SET_OP_GET_BYNAME, name, 5) == -EPROTO.number
    assert ask(ipset.IP_SET_OP_GET_BYNAME, name[1:]) == -EINVAL.number
    assert ask(9, name) == -EBADMSG.number
    assert tables.get(ipset.SO_IP_SET, b"\6\0") == -EINVAL.number
