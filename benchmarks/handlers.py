"""What Python spends on single system calls: the best of many short runs, in microseconds.

    python benchmarks/handlers.py [interpreted] [WORD …]

Drives `Task.on_exit` over a context that goes nowhere, with real memory and a real tmpfs, so that
neither KVM nor what else the machine does comes in. No /dev/kvm is needed. Modules that were
compiled ahead (`ci/ahead`) are used where they are newer than their sources.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runsc.launch import ahead

if "interpreted" not in sys.argv:
    ahead.install()

from sentry.abi import unistd as nr
from sentry.abi.futex import FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE
from sentry.abi.socket import AF_UNIX, SOCK_STREAM
from sentry.config import TracePoint, TraceSession, TraceSink
from sentry.mm.ramfile import RamFile
from sentry.policy.engine import Engine
from sentry.syscalls import late
from sentry.wait.steps import at_once
from sentry.watch.session import Watch
from tests.caller import AREA
from tests.world import Program, World

PATHS = AREA
BUFFER = AREA + 0x10000
RUNS, CALLS_A_RUN = 300, 50
Call = tuple[int, ...]


class Bench(World):
    """A program with a tmpfs, devices, and a directory of the host."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.devices()
        self.mount("tmpfs", b"/tmp")
        self.attach(self.export(folder, exclusive=False), b"/srv")
        self.task = self.program()
        self.task.write(BUFFER, bytes(0x40000))

    def ram_file(self) -> RamFile:
        return RamFile(self.platform.ram)  # nobody keeps account of them

    def path(self, at: int, text: bytes) -> int:
        self.task.write(PATHS + at, text + b"\0")
        return PATHS + at

    def ping_pong(self, there: tuple[Call, Call], back: tuple[Call, Call]) -> float:
        """Best µs of a round trip: each thread makes its (waking, waiting) call in turn."""
        other, turn = self.task.thread(), self.loop.turn
        steps = [
            (self.task, there[0], True), (self.task, back[1], False),
            (other, back[0], True), (other, there[1], False),
        ]  # fmt: skip
        best = 1e9
        begin(other, there[1])
        for _ in range(RUNS):
            start = time.perf_counter_ns()
            for _ in range(CALLS_A_RUN):
                for program, call, wakes in steps:
                    begin(program, call)
                    if wakes:
                        turn()
            best = min(best, (time.perf_counter_ns() - start) / CALLS_A_RUN)
        return best / 1000

    def check(self, number: int, *arguments: int) -> int:
        """One system call, to its end."""
        context = self.task.context
        begin(self.task, (number, *arguments))
        while context.result is None:
            self.loop.turn()
        if context.result < 0:
            raise SystemExit(f"call {number}: {os.strerror(-context.result)}")
        return int(context.result)

    def cost(self, *calls: Call) -> float:
        """Best µs of one turn of these calls."""
        for call in calls:
            self.check(*call)
        best = 1e9
        on_exit, context = self.task.task.on_exit, self.task.context
        turn = self.loop.turn
        for _ in range(RUNS):
            total = 0
            for call in calls if len(calls) > 1 else calls * CALLS_A_RUN:
                context.load(call[0], call[1:])
                start = time.perf_counter_ns()
                on_exit(context)
                while context.result is None:
                    turn()
                total += time.perf_counter_ns() - start
            best = min(best, total if len(calls) > 1 else total / CALLS_A_RUN)
        return best / 1000


def begin(program: Program, call: Call) -> None:
    """A call of this thread, to its end or its sleep."""
    program.context.load(call[0], call[1:])
    program.task.on_exit(program.context)


def cases(bench: Bench) -> dict[str, list[Call]]:
    """Name → the calls of one turn."""
    name = bench.path(0, b"/tmp/bench.data")
    new = bench.path(64, b"/tmp/bench.new")
    null, zero = bench.path(128, b"/dev/null"), bench.path(160, b"/dev/zero")
    file = bench.check(nr.open, name, os.O_RDWR | os.O_CREAT, 0o600)
    bench.check(nr.pwrite64, file, BUFFER, 65536, 0)
    null_fd = bench.check(nr.open, null, os.O_WRONLY, 0)
    zero_fd = bench.check(nr.open, zero, os.O_RDONLY, 0)
    epoll = bench.check(nr.epoll_create1, 0)
    bench.check(nr.pipe2, BUFFER, 0)
    read_end, write_end = (
        int.from_bytes(bench.task.read(BUFFER + at, 4), "little") for at in (0, 4)
    )
    folder = bench.path(240, b"/tmp/many")
    bench.check(nr.mkdir, folder, 0o700)
    for number in range(500):
        entry = bench.path(300, b"/tmp/many/entry%d" % number)
        bench.check(nr.close, bench.check(nr.open, entry, os.O_CREAT | os.O_RDWR, 0o600))
    many = bench.check(nr.open, folder, os.O_RDONLY | os.O_DIRECTORY, 0)
    shared, made = bench.path(500, b"/srv/bench.data"), bench.path(564, b"/srv/bench.new")
    bench.check(nr.close, bench.check(nr.open, shared, os.O_RDWR | os.O_CREAT, 0o600))
    there = bench.check(nr.open, bench.path(628, b"/srv/open"), os.O_RDWR | os.O_CREAT, 0o600)
    bench.check(nr.pwrite64, there, BUFFER, 65536, 0)
    inner, link = bench.path(692, b"/srv/folder"), bench.path(756, b"/srv/link")
    bench.check(nr.mkdir, inner, 0o700)
    bench.check(nr.symlink, shared, link)
    lowest = there + 1
    return {
        "getppid": [(nr.getppid,)],
        "clock_gettime": [(nr.clock_gettime, 1, BUFFER)],
        "write /dev/null": [(nr.write, null_fd, BUFFER, 1)],
        "read /dev/zero 4K": [(nr.read, zero_fd, BUFFER, 4096)],
        "epoll_wait(0)": [(nr.epoll_wait, epoll, BUFFER, 1, 0)],
        "fstat": [(nr.fstat, file, BUFFER)],
        "stat": [(nr.stat, name, BUFFER)],
        "newfstatat": [(nr.newfstatat, -100, name, BUFFER, 0)],
        "newfstatat fd": [(nr.newfstatat, file, bench.path(200, b""), BUFFER, 0x1000)],
        "access": [(nr.access, name, 4)],
        "open+close": [(nr.open, name, os.O_RDONLY, 0), (nr.close, lowest)],
        "create+unlink": [
            (nr.open, new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600),
            (nr.close, lowest),
            (nr.unlink, new),
        ],
        "new file of 16K": [
            (nr.open, new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600),
            (nr.write, lowest, BUFFER, 16384),
            (nr.close, lowest),
            (nr.unlink, new),
        ],
        "fchmod": [(nr.fchmod, file, 0o600)],
        "fchown": [(nr.fchown, file, 0, 0)],
        "utimensat": [(nr.utimensat, file, 0, 0, 0)],
        "mkdir+rmdir": [(nr.mkdir, new, 0o700), (nr.rmdir, new)],
        "rename": [(nr.rename, name, new), (nr.rename, new, name)],
        "stat bind": [(nr.stat, shared, BUFFER)],
        "stat directory bind": [(nr.stat, inner, BUFFER)],
        "lstat bind": [(nr.lstat, link, BUFFER)],
        "list directory bind": [
            (nr.open, inner, os.O_RDONLY | os.O_DIRECTORY, 0),
            (nr.getdents64, lowest, BUFFER, 65536),
            (nr.close, lowest),
        ],
        "open+close bind": [(nr.open, shared, os.O_RDONLY, 0), (nr.close, lowest)],
        "create+unlink bind": [
            (nr.open, made, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600),
            (nr.close, lowest),
            (nr.unlink, made),
        ],
        "fstat bind": [(nr.fstat, there, BUFFER)],
        "pread 4K bind": [(nr.pread64, there, BUFFER, 4096, 0)],
        "pwrite 4K bind": [(nr.pwrite64, there, BUFFER, 4096, 0)],
        "pread 4K": [(nr.pread64, file, BUFFER, 4096, 0)],
        "pread 64K": [(nr.pread64, file, BUFFER, 65536, 0)],
        "pwrite 4K": [(nr.pwrite64, file, BUFFER, 4096, 0)],
        "pwrite 64K": [(nr.pwrite64, file, BUFFER, 65536, 0)],
        "getdents 500": [(nr.lseek, many, 0, 0), (nr.getdents64, many, BUFFER, 65536)],
        "lseek": [(nr.lseek, file, 0, 0)],
        "pipe write+read": [(nr.write, write_end, BUFFER, 1), (nr.read, read_end, BUFFER, 1)],
        "futex wake": [(nr.futex, BUFFER, 1, 1)],
        "rt_sigprocmask": [(nr.rt_sigprocmask, 0, 0, BUFFER, 8)],
        "mmap+munmap 4K": [
            (nr.mmap, 0x700000, 4096, 3, 0x32, -1 & 0xFFFFFFFF, 0),
            (nr.munmap, 0x700000, 4096),
        ],
    }


def round_trips(bench: Bench) -> dict[str, tuple[tuple[Call, Call], tuple[Call, Call]]]:
    """Name → there and back of a ping-pong between two threads."""

    def ends(*call: int) -> tuple[int, int]:
        bench.check(*call)
        return struct.unpack("<ii", bench.task.read(BUFFER, 8))

    reader, writer = ends(nr.pipe2, BUFFER, 0)
    second_reader, second_writer = ends(nr.pipe2, BUFFER, 0)
    one, other = ends(nr.socketpair, AF_UNIX, SOCK_STREAM, 0, BUFFER)
    bench.task.write(BUFFER, bytes(128))
    word, second_word = BUFFER, BUFFER + 64

    def bytes_through(target: int, source: int) -> tuple[Call, Call]:
        return (nr.write, target, BUFFER, 1), (nr.read, source, BUFFER + 128, 1)

    def word_of(at: int) -> tuple[Call, Call]:
        return (nr.futex, at, FUTEX_WAKE_PRIVATE, 1), (nr.futex, at, FUTEX_WAIT_PRIVATE, 0, 0)

    return {
        "pipe ping-pong": (
            bytes_through(writer, reader), bytes_through(second_writer, second_reader)
        ),
        "unix ping-pong": (bytes_through(one, other), bytes_through(other, one)),
        "futex ping-pong": (word_of(word), word_of(second_word)),
    }  # fmt: skip


class Watching:
    """Somebody listens: what a call costs then, and one that nobody listens to.

    The listener reads in a process of its own. What is sent is part of the cost: a share of
    messages go out with each call.
    """

    LISTENED: ClassVar[dict[str, tuple[str, ...]]] = {
        "getppid, others": ("syscall/mkdir/enter", "syscall/mkdir/exit"),
        "getppid, at its end": ("syscall/getppid/exit",),
        "getppid, both": ("syscall/getppid/enter", "syscall/getppid/exit"),
        "registers of getppid": ("syscall/sysno/110/exit",),
    }
    CONTEXT = ("time", "thread_id", "group_id", "container_id", "process_name")

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._watch = Watch(bench.kernel)

    @contextmanager
    def listening(self, points: tuple[str, ...], sink: str) -> Iterator[None]:
        """To these points, meanwhile."""
        kind = socket.SOCK_SEQPACKET if sink == "remote" else socket.SOCK_STREAM
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        child = os.fork()
        if not child:
            ours.close()
            while theirs.recv(1 << 20):
                pass
            os._exit(0)
        theirs.close()
        config = TraceSession(
            points=tuple(TracePoint(name, (), self.CONTEXT) for name in points),
            sinks=(TraceSink(sink, has_fd=True),),
        )
        self._bench.kernel.watch = self._watch  # there is none without a session
        at_once(self._watch.create(config, [ours.detach()]))
        yield
        self._watch.delete("Default")
        self._bench.kernel.watch = None
        os.waitpid(child, 0)

    def cost(self, points: tuple[str, ...], sink: str) -> float:
        """Mean µs of a call, with what is sent of it."""
        context, on_exit = self._bench.task.context, self._bench.task.task.on_exit
        best = 1e9
        with self.listening(points, sink):
            for _ in range(20):
                start = time.thread_time_ns()
                for _ in range(1024):
                    context.load(nr.getppid, ())
                    on_exit(context)
                best = min(best, (time.thread_time_ns() - start) / 1024)
        return best / 1000


class Ruling:
    """A policy decides: what a call costs without one, and with one."""

    POLICIES: ClassVar[dict[str, str]] = {
        "no policy": "",
        "others": "@on.call('mkdir')\ndef f(event): pass",
        "openat, another path": "@on('openat', path='/etc/**')\ndef f(event): return DENY",
        "openat, connect": "@on('openat', path='/tmp/**')\ndef f(event): return ALLOW\n"
        "@on.connect(port=9)\ndef g(event): return ALLOW",
        "calls": "@on.call('getppid', 'openat', 'connect')\ndef f(event): return ALLOW",
    }
    FIVE = (
        "syscall/openat/enter", "syscall/openat/exit", "syscall/close/exit", "syscall/connect/exit",
        "syscall/getppid/exit",
    )  # fmt: skip
    """Points that somebody listens to besides, who reads JSON."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._engine = Engine(bench.kernel)
        bench.kernel.policy = self._engine
        path = bench.path(0x300, b"/tmp/ruled")
        bench.check(nr.close, bench.check(nr.openat, -100, path, os.O_CREAT, 0o600))
        sock = bench.check(nr.socket, 2, 2, 0)
        to = bench.path(0x340, struct.pack("<H", 2) + struct.pack(">H4B8x", 9, 127, 0, 0, 1))
        fd = bench.check(nr.dup, sock)
        bench.check(nr.close, fd)  # the number that openat gives
        self.cases: dict[str, list[Call]] = {
            "getppid": [(nr.getppid,)],
            "open, close": [(nr.openat, -100, path, 0, 0), (nr.close, fd)],
            "connect": [(nr.connect, sock, to, 16)],
        }

    def costs(self, source: str) -> Iterator[tuple[str, float]]:
        """Best µs of each case under a policy."""
        module = self._engine.read("bench", f"from runsc.policy import *\n{source}")
        at_once(self._engine.use(module))
        for name, calls in self.cases.items():
            yield name, self._bench.cost(*calls)
        at_once(self._engine.use(None))


def main(words: list[str]) -> None:
    """Print a line a case."""

    def wanted(name: str) -> bool:
        return not words or any(word in name for word in words)

    late.import_all()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        with Bench(Path(folder)) as bench:
            for name, calls in cases(bench).items():
                if wanted(name):
                    print(f"{name:20}{bench.cost(*calls):8.2f} us")
            for name, (there, back) in round_trips(bench).items():
                if wanted(name):
                    print(f"{name:20}{bench.ping_pong(there, back):8.2f} us")
            watching = Watching(bench)
            for listened, points in Watching.LISTENED.items():
                for sink in ("json", "remote"):
                    name = f"watched ({sink}): {listened}"
                    if wanted(name):
                        print(f"{name:45}{watching.cost(points, sink):8.2f} us")
            ruling = Ruling(bench)
            for policy, source in Ruling.POLICIES.items():
                for name, points in ((policy, ()), (f"{policy}, five points", Ruling.FIVE)):
                    if wanted(f"ruled: {name}"):
                        with watching.listening(points, "json") if points else nullcontext():
                            for case, cost in ruling.costs(source):
                                print(f"{f'ruled: {name}: {case}':55}{cost:8.2f} us")


if __name__ == "__main__":
    main([word for word in sys.argv[1:] if word != "interpreted"])
