"""Netlink sockets of programs: what one datagram may ask for."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from sentry.abi import netlink as abi
from sentry.abi.netlink import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
)
from sentry.abi.signal import SIGKILL
from sentry.abi.socket import AF_INET, AF_NETLINK, SOCK_RAW, SOL_NETLINK
from sentry.errors import EBUSY, EEXIST, ENOMEM
from sentry.net.netlink import socket as module
from sentry.net.netlink.message import Reply, Request, attribute, u32
from tests.world import Program, World

LOOPBACK = 1
MANY = 1000
ROOM = 1 << 16
DONTWAIT = 0x40


@pytest.fixture
def program() -> Iterator[Program]:
    with World() as world:
        yield world.program()


def message(kind: int, flags: int, body: bytes, sequence: int = 1) -> bytes:
    return struct.pack("<IHHII", 16 + len(body), kind, flags | NLM_F_REQUEST, sequence, 0) + body


def new_route(number: int, flags: int = 0) -> bytes:
    """10.X.X.X by the loopback."""
    head = abi.RTMSG.pack(AF_INET, 32, 0, 0, abi.RT_TABLE_MAIN, 3, 253, abi.RTN_UNICAST, 0)
    target = attribute(abi.RTA_DST, struct.pack(">I", (10 << 24) + number))
    flags |= abi.NLM_F_CREATE
    return message(abi.RTM_NEWROUTE, flags, head + target + u32(abi.RTA_OIF, LOOPBACK))


def errors(program: Program, fd: int) -> list[int]:
    """Of all answers, 0 where there is none."""
    room, found = program.buffer(ROOM), []
    while (size := program.call("recvfrom", fd, room, ROOM, DONTWAIT, 0, 0)) > 0:
        _, kind, *_, number = struct.unpack_from("<IHHIIi", program.read(room, size))
        found.append(-number if kind == abi.NLMSG_ERROR else 0)
    return found


def test_others_run_between_the_messages_of_a_datagram(program: Program) -> None:
    fd = program.ok("socket", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)
    data = b"".join(new_route(number) for number in range(MANY))
    other = program.sibling()

    send = program.begin("sendto", fd, data, len(data), 0, 0, 0)

    assert not send.done
    other.ok("getppid")
    assert not send.done
    assert send.wait() == len(data)
    again = new_route(MANY - 1, NLM_F_ACK)
    program.ok("sendto", fd, again, len(again), 0, 0, 0)
    assert errors(program, fd) == [EEXIST.number]


@pytest.mark.parametrize("way", ["write", "writev", "sendmsg", "sendmmsg"])
def test_each_way_to_send_waits_for_the_end(program: Program, way: str) -> None:
    fd = program.ok("socket", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)
    data = b"".join(new_route(number) for number in range(MANY))
    iov = struct.pack("<QQ", program.place(data), len(data))
    header = struct.pack("<QI4xQQQQi4x", 0, 0, program.place(iov), 1, 0, 0, 0)
    many = program.place(header + bytes(8))
    values = {
        "write": (fd, data, len(data)), "writev": (fd, iov, 1), "sendmsg": (fd, header, 0),
        "sendmmsg": (fd, many, 1, 0),
    }[way]  # fmt: skip

    done = program.call(way, *values)

    if way == "sendmmsg":
        assert done == 1
        done = struct.unpack("<I", program.read(many + 56, 4))[0]
    assert done == len(data)


def test_who_is_killed_stops_at_a_message(program: Program) -> None:
    child = program.fork()
    fd = child.ok("socket", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)
    data = b"".join(new_route(number) for number in range(MANY))

    send = child.begin("sendto", fd, data, len(data), 0, 0, 0)
    program.ok("kill", child.task.group.tgid, SIGKILL)
    program.world.settle()

    assert send.done
    own = program.ok("socket", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)
    again = new_route(MANY - 1, NLM_F_ACK)
    program.ok("sendto", own, again, len(again), 0, 0, 0)
    assert errors(program, own) == [0]


def test_a_socket_that_is_closed_meanwhile_goes_on_to_the_end(program: Program) -> None:
    fd = program.ok("socket", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)
    data = b"".join(new_route(number) for number in range(MANY))
    thread = program.thread()

    send = program.begin("sendto", fd, data, len(data), 0, 0, 0)
    thread.ok("close", fd)

    assert send.wait() == len(data)


def test_a_second_dump_is_refused_before_it_is_made(program: Program) -> None:
    fd = program.ok("socket", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)
    dump = message(abi.RTM_GETROUTE, NLM_F_DUMP, bytes(abi.RTMSG.size))

    program.ok("sendto", fd, dump * 3, 3 * len(dump), 0, 0, 0)

    assert errors(program, fd).count(EBUSY.number) == 2


@pytest.mark.parametrize("protocol", [NETLINK_ROUTE, NETLINK_NETFILTER])
def test_group_takes_no_more_members_than_hear_in_a_step(
    program: Program, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_MEMBERS", 3)
    made = [program.ok("socket", AF_NETLINK, SOCK_RAW, protocol) for _ in range(4)]
    joins = struct.pack("<HHII", AF_NETLINK, 0, 0, 1), 12
    for fd in made[:-1]:
        program.ok("bind", fd, *joins)
    assert program.call("bind", made[-1], *joins) == -ENOMEM.number
    program.ok("setsockopt", made[0], SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, struct.pack("<i", 1), 4)
    program.ok("close", made[0])
    assert program.call("bind", made[-1], *joins) == 0


def test_datagram_waits_for_room_with_another_socket(program: Program) -> None:
    one, other = (
        program.ok("socket", AF_NETLINK, SOCK_RAW, abi.NETLINK_USERSOCK) for _ in range(2)
    )
    name = struct.pack("<HHII", AF_NETLINK, 0, 77, 0)
    program.ok("bind", other, program.place(name), 12)
    to, data = program.place(name), program.buffer(ROOM)
    while program.call("sendto", one, data, ROOM, DONTWAIT, to, 12) == ROOM:
        pass
    thread = program.thread()
    call = thread.begin("sendto", one, data, ROOM, 0, to, 12)
    program.world.settle()
    assert not call.done
    assert program.call("recvfrom", other, data, ROOM, DONTWAIT, 0, 0) == ROOM
    assert call.wait() == ROOM


def test_link_that_goes_while_all_are_listed_is_not_told_of(program: Program) -> None:
    """Who follows links hears of its end first, and would take it for a new one."""
    fds = [program.ok("socket", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) for _ in range(2)]
    head = abi.IFINFOMSG.pack(0, 0, 0, 0, 0, 0)
    kind = attribute(abi.IFLA_LINKINFO | abi.NLA_F_NESTED, attribute(abi.IFLA_INFO_KIND, b"dummy"))
    for number in range(100):
        name = attribute(abi.IFLA_IFNAME, b"d%d\0" % number)
        made = message(abi.RTM_NEWLINK, abi.NLM_F_CREATE | NLM_F_ACK, head + name + kind)
        program.ok("sendto", fds[1], made, len(made), 0, 0, 0)
        assert errors(program, fds[1]) == [0]

    dump = message(abi.RTM_GETLINK, NLM_F_DUMP, head)
    program.ok("sendto", fds[0], dump, len(dump), 0, 0, 0)
    room, told = program.buffer(ROOM), b""
    told += program.read(room, program.ok("recvfrom", fds[0], room, 4096, 0, 0, 0))
    gone = attribute(abi.IFLA_IFNAME, b"d99\0")
    ended = message(abi.RTM_DELLINK, NLM_F_ACK, head + gone)
    program.ok("sendto", fds[1], ended, len(ended), 0, 0, 0)
    assert errors(program, fds[1]) == [0]
    while (size := program.call("recvfrom", fds[0], room, ROOM, DONTWAIT, 0, 0)) > 0:
        told += program.read(room, size)
    assert b"d98\0" in told and b"d99\0" not in told
    assert flags(told).count(abi.NLM_F_MULTI | abi.NLM_F_DUMP_INTR) == 1


def flags(told: bytes) -> list[int]:
    """Of all messages."""
    found = []
    while told:
        size, _, each = struct.unpack_from("<IHH", told)
        found.append(each)
        told = told[size + 3 & ~3 :]
    return found


def test_what_goes_wrong_within_a_dump_is_told_at_its_end(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(request: Request) -> Iterator[Reply]:
        yield abi.RTM_NEWLINK, bytes(16)
        raise ENOMEM

    monkeypatch.setitem(module.PROTOCOLS[NETLINK_ROUTE], abi.RTM_GETLINK, some)
    fd, room = program.ok("socket", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), program.buffer(ROOM)
    dump = message(abi.RTM_GETLINK, NLM_F_DUMP, bytes(16))
    program.ok("sendto", fd, dump, len(dump), 0, 0, 0)
    assert program.ok("recvfrom", fd, room, ROOM, 0, 0, 0) == 32
    assert program.ok("recvfrom", fd, room, ROOM, 0, 0, 0) == 20
    told = struct.unpack("<IHHIIi", program.read(room, 20))
    assert (told[1], told[5]) == (abi.NLMSG_DONE, -ENOMEM.number)
