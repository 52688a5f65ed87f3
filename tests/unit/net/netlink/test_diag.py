"""Diagnostics of sockets: which are told, while others come and go."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from sentry.abi import netlink as abi
from sentry.abi.netlink import NETLINK_SOCK_DIAG, NLM_F_DUMP, NLM_F_REQUEST
from sentry.abi.socket import (
    AF_INET,
    AF_NETLINK,
    AF_UNIX,
    BPF_TCP_ESTABLISHED,
    BPF_TCP_LISTEN,
    IPPROTO_TCP,
    IPPROTO_UDP,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_STREAM,
)
from sentry.errors import EAGAIN
from sentry.net.host.socket import HostSocket
from sentry.net.sockfs import socket_location
from tests.contract.sockets.calls import Sockets
from tests.world import Program

MANY = 1000


def asked(task: Program, body: bytes) -> int:
    """A socket that a dump comes from."""
    fd = task.ok("socket", AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG)
    flags = NLM_F_REQUEST | NLM_F_DUMP
    head = struct.pack("<IHHII", 16 + len(body), abi.SOCK_DIAG_BY_FAMILY, flags, 1, 0)
    whole = task.place(head + body)
    task.ok("sendto", fd, whole, 16 + len(body), 0, 0, 0)
    return fd


def messages(sockets: Sockets, fd: int) -> Iterator[bytes]:
    """Till the end of the dump."""
    while not isinstance(data := sockets.receive(fd, room=1 << 14), int):
        while data:
            size, kind = struct.unpack_from("<IH", data)
            if kind == abi.NLMSG_DONE:
                return
            assert kind == abi.SOCK_DIAG_BY_FAMILY
            yield data[16:size]
            data = data[(size + 3) & ~3 :]
    assert data == -EAGAIN.number


@pytest.mark.parametrize("protocol", [IPPROTO_TCP, IPPROTO_UDP])
def test_raw_sockets_of_a_protocol_are_none_of_it(task: Program, protocol: int) -> None:
    sockets = Sockets(task)
    task.ok("socket", AF_INET, SOCK_RAW, protocol)
    kind = SOCK_STREAM if protocol == IPPROTO_TCP else SOCK_DGRAM
    fd = task.ok("socket", AF_INET, kind, 0)
    sockets.bind(fd, struct.pack("<H", AF_INET) + struct.pack(">H12x", 4000))
    if protocol == IPPROTO_TCP:
        task.ok("listen", fd, 1)
    found = messages(sockets, asked(task, struct.pack("<BBxxI48x", AF_INET, protocol, 0xFFFFFFFF)))
    assert [int.from_bytes(each[4:6]) for each in found] == [4000]


def test_sockets_of_the_host_are_not_told(task: Program) -> None:
    stack = task.task.ns.net.stack
    for kind, protocol in ((SOCK_STREAM, IPPROTO_TCP), (SOCK_DGRAM, IPPROTO_UDP)):
        fd = socket.socket(AF_INET, kind).detach()
        HostSocket(socket_location(task.task), AF_INET, kind, protocol, stack, fd).incref()
        body = struct.pack("<BBxxI48x", AF_INET, protocol, 0xFFFFFFFF)
        assert list(messages(Sockets(task), asked(task, body))) == []
    for sock in list(stack.sockets):
        if isinstance(sock, HostSocket):
            sock.decref()


def test_connection_that_waits_for_accept_is_told_once(task: Program) -> None:
    sockets, name = Sockets(task), struct.pack("<H", AF_INET) + struct.pack(">H12x", 4000)
    listener, client = (task.ok("socket", AF_INET, SOCK_STREAM, 0) for _ in range(2))
    sockets.bind(listener, name)
    task.ok("listen", listener, 1)
    sockets.connect(client, name)
    body = struct.pack("<BBxxI48x", AF_INET, IPPROTO_TCP, 0xFFFFFFFF)
    found = [list(messages(sockets, asked(task, body)))]
    task.ok("accept", listener, 0, 0)
    found.append(list(messages(sockets, asked(task, body))))
    for each in found:
        assert sorted(one[1] for one in each) == [BPF_TCP_ESTABLISHED] * 2 + [BPF_TCP_LISTEN]


def test_what_is_closed_during_a_dump_is_not_told(task: Program) -> None:
    sockets = Sockets(task)
    fds = [task.ok("socket", AF_UNIX, SOCK_DGRAM, 0) for _ in range(MANY)]
    body = struct.pack("<BBxxI16x", AF_UNIX, 0, 0xFFFFFFFF)
    dump = messages(sockets, asked(task, body))
    next(dump)
    for fd in fds:
        task.ok("close", fd)
    assert 1 < 1 + len(list(dump)) < MANY
