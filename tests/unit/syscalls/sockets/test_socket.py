"""A connection or a message that was taken is not lost where the memory has to be fetched."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from sentry.abi.socket import AF_UNIX, SOCK_DGRAM, SOCK_STREAM
from tests.world import Program

Fetch = Callable[[int], None]
NAME = struct.pack("<H", AF_UNIX) + b"\0name"


def bound(task: Program, kind: int) -> int:
    fd = task.ok("socket", AF_UNIX, kind, 0)
    task.ok("bind", fd, task.place(NAME), len(NAME))
    return fd


@pytest.mark.parametrize("sleeps", [False, True])
def test_accept_keeps_its_connection_until_the_page_is_there(
    task: Program, fetched_first: Fetch, sleeps: bool
) -> None:
    listener, client = bound(task, SOCK_STREAM), task.ok("socket", AF_UNIX, SOCK_STREAM, 0)
    task.ok("listen", listener, 1)
    out, length = task.buffer(128), task.place(struct.pack("<i", 128))
    fetched_first(out)
    other = task.thread()
    if not sleeps:
        other.ok("connect", client, other.place(NAME), len(NAME))
    call = task.begin("accept", listener, out, length)
    if sleeps:
        other.ok("connect", client, other.place(NAME), len(NAME))
    server = call.wait()
    assert task.ok("write", client, task.place(b"hello"), 5) == 5
    assert task.ok("read", server, task.buffer(5), 5) == 5
    assert task.task.files.get(server).refs == 1


@pytest.mark.parametrize("call", ["recvfrom", "recvmsg"])
def test_receive_keeps_its_message_until_the_page_is_there(
    task: Program, fetched_first: Fetch, call: str
) -> None:
    fd = bound(task, SOCK_DGRAM)
    data, name, length = task.buffer(8), task.buffer(128), task.place(struct.pack("<i", 128))
    task.ok("sendto", fd, task.place(b"hello"), 5, 0, task.place(NAME), len(NAME))
    fetched_first(name)
    if call == "recvfrom":
        got = task.begin("recvfrom", fd, data, 8, 0, name, length).wait()
    else:
        iov = task.place(struct.pack("<QQ", data, 8))
        header = task.place(struct.pack("<QI4xQQQQi4x", name, 128, iov, 1, 0, 0, 0))
        got = task.begin("recvmsg", fd, header, 0).wait()
    assert (got, task.read(data, 5), task.read(name, len(NAME))) == (5, b"hello", NAME)
