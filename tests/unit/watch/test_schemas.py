"""Every call that has a message of gVisor's: its fields, as the programs' arguments are."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

import pytest

from sentry.protobuf import decode
from sentry.syscalls.registry import TABLE
from sentry.watch import messages as m
from sentry.watch.messages import MessageType as Type
from sentry.watch.schemas import SCHEMAS
from tests.unit.watch.conftest import Watched

PATH, ADDRESS = b"/name", struct.pack("<H", socket.AF_UNIX) + b"/none\0"
WORDS = (b"sh", b"-c", b"true")


class Case:
    """Arguments of a call (bytes: in memory), and what its record has."""

    def __init__(self, *values: Any, **fields: Any) -> None:
        self.values = values
        self.fields = fields


_READ = {"fd": 77, "count": 5}
_AT = {"fd": 77, "count": 5, "has_offset": True, "offset": 9}
_IOVEC = struct.pack("<4Q", 0, 3, 0, 4)
_VECTOR = {"fd": 77, "count": 7}
_NEW = struct.pack("<4q", 1, 2, 3, 4)
_SPEC = m.ItimerSpec(m.Timespec(1, 2), m.Timespec(3, 4))
CASES = {
    "read": Case(77, 0, 5, **_READ),
    "write": Case(77, 0, 5, **_READ),
    "open": Case(PATH, os.O_CREAT, 0o640, fd=-100, pathname="/name", flags=os.O_CREAT, mode=0o640),
    "close": Case(77, fd=77),
    "pread64": Case(77, 0, 5, 9, **_AT),
    "pwrite64": Case(77, 0, 5, 9, **_AT),
    "readv": Case(77, _IOVEC, 2, **_VECTOR),
    "writev": Case(77, _IOVEC, 2, **_VECTOR),
    "pipe": Case(bytes(8)),
    "dup": Case(77, old_fd=77),
    "dup2": Case(77, 78, old_fd=77, new_fd=78),
    "socket": Case(1, 2, 3, domain=1, type=2, protocol=3),
    "connect": Case(77, ADDRESS, len(ADDRESS), fd=77, address=ADDRESS),
    "accept": Case(77, 0, 0, fd=77),
    "bind": Case(77, ADDRESS, len(ADDRESS), fd=77, address=ADDRESS),
    "socketpair": Case(9, 2, 3, bytes(8), domain=9, type=2, protocol=3),
    "clone": Case(0x1000_0000 | 17, 0x1000, 0, 0, 0x2000,
                  flags=0x1000_0000 | 17, stack=0x1000, tls=0x2000),
    "fork": Case(),
    "vfork": Case(),
    "execve": Case(b"/none", WORDS, WORDS[:1], pathname="/none", argv=["sh", "-c", "true"]),
    "fcntl": Case(77, 3, 4, fd=77, cmd=3, args=4),
    "creat": Case(b"/none/x", 0o600, fd=-100, pathname="/none/x",
                  flags=os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode=0o600),
    "chdir": Case(b"/none", fd=-100, pathname="/none"),
    "fchdir": Case(77, fd=77),
    "setuid": Case(5, id=5),
    "setgid": Case(5, id=5),
    "setsid": Case(),
    "setresuid": Case(5, 6, 7, rid=5, eid=6, sid=7),
    "setresgid": Case(5, 6, 7, rid=5, eid=6, sid=7),
    "chroot": Case(b"/none", pathname="/none"),
    "inotify_init": Case(),
    "inotify_add_watch": Case(77, b"/none", 2, fd=77, pathname="/none", mask=2),
    "inotify_rm_watch": Case(77, 1, fd=77, wd=1),
    "openat": Case(77, b"none", 0, 0o600, fd=77, pathname="none"),
    "signalfd": Case(77, struct.pack("<Q", 8), 8, fd=77, sigset=8),
    "timerfd_create": Case(1, 0x800, clock_id=1, flags=0x800),
    "eventfd": Case(3, val=3),
    "timerfd_settime": Case(77, 1, _NEW, 0, fd=77, flags=1, new_value=_SPEC),
    "timerfd_gettime": Case(77, bytes(32), fd=77),
    "accept4": Case(77, 0, 0, 0x800, fd=77, flags=0x800),
    "signalfd4": Case(77, struct.pack("<Q", 8), 8, 0x800, fd=77, sigset=8, flags=0x800),
    "eventfd2": Case(3, 0x800, val=3, flags=0x800),
    "dup3": Case(77, 78, 0x80000, old_fd=77, new_fd=78, flags=0x80000),
    "pipe2": Case(bytes(8), 0x80000, flags=0x80000),
    "inotify_init1": Case(0x800, flags=0x800),
    "preadv": Case(77, _IOVEC, 2, 9, 0, **(_AT | {"count": 7})),
    "pwritev": Case(77, _IOVEC, 2, 9, 0, **(_AT | {"count": 7})),
    "prlimit64": Case(0, 7, struct.pack("<QQ", 5, 6), 0, resource=7, new_limit=m.Rlimit(5, 6)),
    "execveat": Case(77, b"none", WORDS, 0, 0x100, fd=77, pathname="none",
                     argv=["sh", "-c", "true"], flags=0x100),
    "preadv2": Case(77, _IOVEC, 2, 9, 0, 1, **(_AT | {"count": 7, "flags": 1})),
    "pwritev2": Case(77, _IOVEC, 2, 9, 0, 1, **(_AT | {"count": 7, "flags": 1})),
}


def _placed(program: Any, value: Any) -> int:
    """Bytes, or a vector of texts, in the program's memory."""
    if isinstance(value, tuple):
        pointers = [_placed(program, word + b"\0") for word in value]
        return _placed(program, struct.pack(f"<{len(pointers) + 1}Q", *pointers, 0))
    if isinstance(value, bytes):
        at: int = program.buffer(len(value) + 1)
        program.write(at, value + b"\0")
        return at
    return int(value)


def test_each_call_of_gvisors_list_is_there() -> None:
    assert set(CASES) == set(SCHEMAS)
    declared = {each.name for each in TABLE if each is not None}
    assert set(SCHEMAS) <= declared


@pytest.mark.parametrize("name", CASES)
def test_a_call_is_told_with_its_arguments(world: Watched, name: str) -> None:
    case = CASES[name]
    program = world.program()
    values = [_placed(program, value) for value in case.values]
    world.listen(f"syscall/{name}/enter")
    call = program.begin(name, *values)
    world.settle() if not call.done else None
    told = world.told()
    assert len(told) == 1
    schema = SCHEMAS[name]
    number = next(each.number for each in TABLE if each is not None and each.name == name)
    assert told[0][0] == schema.type
    record = decode(schema.kind, told[0][1])
    assert record == schema.kind(sysno=number, **case.fields)


def test_optional_fields_are_there_when_they_are_asked_for(world: Watched) -> None:
    program = world.program()
    fd = program.ok("openat", -100, b"/", os.O_DIRECTORY, 0)
    world.listen("syscall/fchdir/enter", optional=("fd_path",))
    program.ok("fchdir", fd)
    assert world.records(m.Chdir)[0].fd_path == "/"
    world.listen("syscall/execve/enter", optional=("envv",), name="other")
    values = [_placed(program, value) for value in CASES["execve"].values]
    program.call("execve", *values)
    assert world.records(m.Execve)[0].envv == ["sh"]


def test_what_a_call_stores_is_told_when_it_is_over(world: Watched) -> None:
    program = world.program()
    world.listen("syscall/pipe2/exit")
    pair = program.buffer(8)
    program.ok("pipe2", pair, 0)
    reader, writer = struct.unpack("<ii", program.read(pair, 8))
    told = world.records(m.Pipe)[0]
    assert (told.reader, told.writer) == (reader, writer)


def test_who_connects_is_told_by_accept(world: Watched) -> None:
    program = world.program()
    name = struct.pack("<H", socket.AF_UNIX) + b"/sock\0"
    sock = program.ok("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
    program.ok("bind", sock, _placed(program, name), len(name))
    program.ok("listen", sock, 1)
    other = program.ok("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
    mine = struct.pack("<H", socket.AF_UNIX) + b"\0mine"
    program.ok("bind", other, _placed(program, mine), len(mine))
    world.listen("syscall/accept4/exit", "syscall/connect/enter")
    program.ok("connect", other, _placed(program, name), len(name))
    size = _placed(program, struct.pack("<I", 128))
    program.ok("accept4", sock, program.buffer(128), size, 0)
    (kind, _), (_, data) = world.told()
    assert kind == Type.SYSCALL_CONNECT
    assert decode(m.Accept, data).address == mine
