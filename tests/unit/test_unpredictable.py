"""What a program must not be able to foresee of others: ports, names, ids, the order of objects.

What Linux counts up is counted up here, too: process ids, inode numbers, SO_COOKIE, mount ids,
System V identifiers, timers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

import pytest

from sentry.abi.kcmp import KCMP_FILE
from sentry.abi.netlink import NETLINK_ROUTE
from sentry.abi.socket import (
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    AF_UNIX,
    IPPROTO_RAW,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_STREAM,
)
from tests.world import Program, World

MANY = 24
LOOPBACK = bytes(4) + b"\x7f\0\0\x01" + bytes(8)


@pytest.fixture
def program() -> Iterator[Program]:
    with World() as world:
        world.mount("proc", b"/proc")
        yield world.program()


def name_of(program: Program, fd: int) -> bytes:
    """getsockname(2)."""
    addr, size = program.buffer(128), program.place(struct.pack("<I", 128))
    program.ok("getsockname", fd, addr, size)
    (length,) = struct.unpack("<I", program.read(size, 4))
    return program.read(addr, length)


def surprising(numbers: list[int]) -> bool:
    """No step from one to the next comes twice as often as chance has it."""
    steps = {b - a for a, b in pairwise(numbers)}
    return len(steps) > MANY - 4


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
@pytest.mark.parametrize("kind", [SOCK_STREAM, SOCK_DGRAM])
def test_port_of_bind_is_not_foreseen(program: Program, family: int, kind: int) -> None:
    ports = []
    for _ in range(MANY):
        fd = program.ok("socket", family, kind, 0)
        program.ok("bind", fd, struct.pack("<H", family) + bytes(26), 28)
        ports.append(int.from_bytes(name_of(program, fd)[2:4]))

    assert surprising(ports)


@pytest.mark.parametrize("kind", [SOCK_STREAM, SOCK_DGRAM])
def test_port_of_connect_is_not_foreseen(program: Program, kind: int) -> None:
    server = program.ok("socket", AF_INET, kind, 0)
    program.ok("bind", server, struct.pack("<H", AF_INET) + bytes(14), 16)
    target = struct.pack("<H2s4s", AF_INET, name_of(program, server)[2:4], b"\x7f\0\0\x01")
    if kind == SOCK_STREAM:
        program.ok("listen", server, MANY)
    ports = []
    for _ in range(MANY):
        fd = program.ok("socket", AF_INET, kind, 0)
        program.ok("connect", fd, target + bytes(8), 16)
        ports.append(int.from_bytes(name_of(program, fd)[2:4]))

    assert surprising(ports)


def test_name_of_an_unnamed_unix_socket_is_not_foreseen(program: Program) -> None:
    numbers = []
    for _ in range(MANY):
        fd = program.ok("socket", AF_UNIX, SOCK_DGRAM, 0)
        program.ok("bind", fd, struct.pack("<H", AF_UNIX), 2)
        numbers.append(int(name_of(program, fd)[3:], 16))

    assert surprising(numbers)


def test_port_of_a_second_netlink_socket_is_not_foreseen(program: Program) -> None:
    numbers = []
    for _ in range(MANY + 1):
        fd = program.ok("socket", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)
        program.ok("bind", fd, struct.pack("<HHII", AF_NETLINK, 0, 0, 0), 12)
        numbers.append(struct.unpack_from("<I", name_of(program, fd), 4)[0])

    assert surprising(numbers[1:])  # the first one has the process id
    assert all(1 << 31 <= number < (1 << 32) - 4096 for number in numbers[1:])


def test_identification_of_packets_is_not_foreseen(program: Program) -> None:
    receiver = program.ok("socket", AF_INET, SOCK_RAW, 254)
    sender = program.ok("socket", AF_INET, SOCK_RAW, IPPROTO_RAW)
    packet = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20, 0, 0, 64, 254, 0, b"\x7f\0\0\x01", b"\x7f\0\0\x01"
    )
    target = struct.pack("<H2s4s", AF_INET, b"\0\0", b"\x7f\0\0\x01") + bytes(8)
    numbers = []
    for _ in range(MANY):
        program.ok("sendto", sender, packet, 20, 0, program.place(target), 16)
        got = program.buffer(64)
        program.ok("read", receiver, got, 64)
        numbers.append(int.from_bytes(program.read(got + 4, 2)))

    assert surprising(numbers)


def test_serial_of_a_key_is_not_foreseen(program: Program) -> None:
    serials = [
        program.ok("add_key", b"user", b"key %d" % number, b"x", 1, -2) for number in range(MANY)
    ]

    assert surprising(serials)


def test_order_of_kcmp_is_another_one_in_each_sandbox() -> None:
    """kptr_obfuscate(): it must not tell where the Sentry's objects lie."""

    def order(program: Program) -> tuple[int, ...]:
        me = program.task.group.tgid
        return tuple(
            program.ok("kcmp", me, me, KCMP_FILE, files[0], other) for other in files[1:]
        )

    with World() as world:
        program = world.program()
        files = [program.ok("eventfd2", 0, 0) for _ in range(MANY)]
        first = order(program)
        assert order(program) == first
        services = world.kernel.services
        orders = set()
        for _ in range(4):  # the same objects at the same addresses
            services.kcmp_secret = type(services)().kcmp_secret
            orders.add(order(program))
        assert len(orders) > 1


@pytest.mark.parametrize("name", [b"boot_id", b"uuid"])
def test_random_ids_are_of_the_sandbox(name: bytes) -> None:
    found = set()
    for _ in range(2):
        with World() as world:
            world.mount("proc", b"/proc")
            program = world.program()
            fd = program.ok("open", b"/proc/sys/kernel/random/" + name, 0)
            got = program.buffer(64)
            program.ok("read", fd, got, 64)
            found.add(program.read(got, 36))

    assert len(found) == 2
