"""What a program's own file system has many of: requests without an answer, open files, mounts."""

from __future__ import annotations

import struct
from typing import Final

from sentry.abi import fuse as f
from sentry.abi.signal import SIGKILL
from tests.fuzz.scaling import Bench, Resource
from tests.world import Program

ROOM: Final = 140_000
FILE: Final = 0o100644


class Server:
    """A device that a bench has mounted on /tmp/m, where every name is a file."""

    mode = FILE

    @staticmethod
    def node(unique: int) -> int:
        """The node that a request finds."""
        return unique + 1

    def __init__(self, b: Bench) -> None:
        self._b = b
        self.program = b.program
        b.ok("mkdir", b"/tmp/m", 0o755)
        b.ok("mknod", b"/tmp/fuse", 0o20666, 10 << 8 | 229)
        self.device = self.mounted(b"/tmp/m")
        self._room = b.program.buffer(ROOM)
        self.owes: dict[int, int] = {}
        """By opcode what is not answered yet, if it is to be so."""
        self.seen: list[int] = []
        self.answer()

    def mounted(self, where: bytes) -> int:
        """The device of one more mount."""
        device = self._b.ok("open", b"/tmp/fuse", 0o4002)
        options = b"fd=%d,rootmode=40755,user_id=0,group_id=0" % device
        self._b.ok("mount", b"x", where, b"fuse", 0, options)
        return device

    def answer(self) -> bool:
        """The next request, if there is one."""
        program = self.program
        got = program.call("read", self.device, self._room, ROOM)
        if got < 0:
            return False
        header = f.FUSE_IN_HEADER.unpack(program.read(self._room, got))
        self.seen.append(header.opcode)
        if header.opcode in self.owes:
            self.owes[header.opcode] = header.unique
            return True
        node = self.node(header.unique)
        attr = node, 5, 1, 0, 0, 0, 0, 0, 0, self.mode, 1, 0, 0, 0, 4096, 0
        body = {
            f.FUSE_INIT: f.FUSE_INIT_OUT.pack(7, 41, 0, 0, 0, 0, 4096, 1, 0, 0, 0, 0, b""),
            f.FUSE_LOOKUP: f.FUSE_ENTRY_OUT.pack(node, 0, 0, 9, 0, 0, *attr),
            f.FUSE_OPEN: f.FUSE_OPEN_OUT.pack(1, 0, 0),
        }.get(header.opcode, b"")
        if header.opcode not in (f.FUSE_FORGET, f.FUSE_BATCH_FORGET):
            size = f.FUSE_OUT_HEADER.size + len(body)
            answer = f.FUSE_OUT_HEADER.pack(size, 0, header.unique) + body
            assert program.call("write", self.device, answer, size) == size
        return True

    def answer_all(self) -> None:
        """As long as there are any."""
        while self.answer():
            pass


def _askers(b: Bench) -> list[Program]:
    """Threads of a process that wait, each for an answer of its own."""
    user = b.world.program()
    threads = [user.thread() for _ in range(b.n)]
    buffer = user.buffer(256)
    for number, thread in enumerate(threads):
        thread.begin("stat", user.place(b"/tmp/m/%d\0" % number), buffer)
    b.world.settle()
    return threads


def served_requests(b: Bench) -> None:
    """That wait for an answer."""
    server = Server(b)
    with b.measure("ask"):
        _askers(b)
    with b.measure("answer"):
        server.answer_all()
        b.world.settle()
    waiting = _askers(b)
    with b.measure("kill before it is read"):
        waiting[0].task.group.exit(SIGKILL)
        b.world.settle()
    waiting = _askers(b)
    with b.measure("abort"):
        b.ok("close", server.device)
        b.world.settle()
    assert all(thread.context.result is not None for thread in waiting)


def served_files(b: Bench) -> None:
    """Of one file, and what is left to do when they are closed."""
    server = Server(b)
    user = b.world.program()
    user.ok("prlimit64", 0, 7, struct.pack("<QQ", 20_000, 20_000), 0)

    def ask(name: str, *values: int | bytes) -> int:
        call = user.begin(name, *values)
        b.world.settle()
        while not call.done:
            server.answer_all()
            b.world.settle()
        return call.result

    opened = b.each("open", lambda _: ask("open", b"/tmp/m/file", 2))
    assert all(fd >= 0 for fd in opened)
    b.each("close", lambda i: ask("close", opened[i]))
    with b.measure("answer what is left"):
        server.answer_all()


def served_mounts(b: Bench) -> None:
    """Of as many servers."""
    server = Server(b)
    b.ok("mkdir", b"/tmp/c", 0o755)
    for number in range(b.n):
        b.ok("mkdir", b"/tmp/%d" % number, 0o755)
    b.each("mount", lambda i: server.mounted(b"/tmp/%d" % i))
    b.ok("mount", b"c", b"/tmp/c", b"fusectl", 0, 0)
    b.list_all("list the connections", b"/tmp/c")
    b.each("umount", lambda i: b.ok("umount2", b"/tmp/%d" % i, 0))


RESOURCES: tuple[Resource, ...] = (served_requests, served_files, served_mounts)
