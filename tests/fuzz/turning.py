"""User memory that changes as soon as the kernel has looked at it, and calls that make it look.

`Turning` stands between the Sentry and the memory of programs: after each copy out of it the bytes
are others (a second thread that is always fast enough), and a byte that one call reads twice is
noted. `Calls` makes calls out of their declarations, in a `tests.world`.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sentry.abi import fcntl, socket
from sentry.platform.memory import AddressSpace
from sentry.syscalls.args import Arg
from sentry.syscalls.registry import Declaration
from tests.fuzz.call_table import COMMANDS, kind_of, numbers_of
from tests.fuzz.likely import ARGUMENTS, END, INNER, INNERS, LIKELY, OTHERS, ROOM, SLOT
from tests.world import Program, World

PATHS = (
    b"", b"/", b".", b"..", b"f", b"d", b"d/x", b"d/", b"link", b"loop", b"fifo", b"none",
    b"none/x", b"f/x", b"/proc/self/exe", b"/proc/self/fd", b"/proc/self/mem", b"/dev/null",
    b"/dev/ptmx", b"tmpfs", b"proc", b"user.name", b"security.capability", b"keyring", b"/q",
    b"/\xff\xfe",
)  # fmt: skip


class Turning:
    """While `watching`, what is read from user memory has other bytes afterwards."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: set[int] = set()
        """What the call has read."""
        self.twice: set[int] = set()
        """What it has read again."""
        self._on = False
        self._read, self._write = AddressSpace.read, AddressSpace.write
        for name in ("read", "string", "to_host", "to_frames", "ranges_to_host", "ranges"):
            patch.setattr(AddressSpace, name, self._turning(name, getattr(AddressSpace, name)))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A call of a program begins and ends here."""
        self.seen, self.twice, self._on = set(), set(), True
        try:
            yield
        finally:
            self._on = False

    def _turning(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """A copy out of user memory, after which that is turned over."""

        def turned(space: AddressSpace, *values: Any) -> Any:
            result = real(space, *values)
            if self._on:
                for addr, count in _ranges(name, values, result):
                    self._turn(space, addr, count)
            return result

        return turned

    def _turn(self, space: AddressSpace, addr: int, count: int) -> None:
        count = min(count, END - addr)
        if addr < ARGUMENTS or count <= 0:
            return
        read = set(range(addr, addr + count))
        self.twice |= read & self.seen
        self.seen |= read
        data = self._read(space, addr, count)
        self._write(space, addr, bytes(byte ^ 0xFF for byte in data))


def _ranges(name: str, values: Any, result: Any) -> Iterator[tuple[int, int]]:
    """What a method of `AddressSpace` has copied out."""
    if name == "string":
        if result[-1:] == b"\0":  # else nothing was taken: it is looked at from the start again
            yield values[0], len(result)
    elif name == "read":
        yield values[0], len(result)
    elif name == "ranges":
        if result is not None:
            yield values[0], 16 * values[1]
    elif name == "to_frames":
        yield values[0], result[0]
    elif name == "to_host":
        yield values[2], result
    else:
        ranges = values[2]
        for addr, length in zip(ranges[::2], ranges[1::2], strict=True):
            yield addr, min(length, result)
            result -= length


class Calls:
    """Makes calls by their declarations in a world: likely descriptors, paths, structs, sizes."""

    def __init__(self, world: World, seed: str, paths: tuple[bytes, ...] = PATHS) -> None:
        self._any = random.Random(seed)
        self._paths = paths
        self._inner = 0
        self._first = world.program()
        self._fds = list(_files(self._first))

    def program(self) -> Program:
        """A process with files of every kind, to make one call."""
        return self._first.fork()

    @property
    def over(self) -> bool:
        """A call has killed what all others begin with."""
        return self._first.task.dead

    def likely(self, name: str, program: Program) -> Iterator[list[int]]:
        """Arguments with which the call comes to its reads, of those that chance hardly finds."""
        for values in LIKELY.get(name, ()):
            program.write(INNER, struct.pack("<QQ", INNER + SLOT, 8) * 4)
            found = []
            for k, value in enumerate(values):
                if isinstance(value, bytes):
                    program.write(ARGUMENTS + k * ROOM, value + bytes(SLOT))
                    found.append(ARGUMENTS + k * ROOM)
                elif isinstance(value, str):
                    found.append(getattr(self, f"_{value}")(program))
                else:
                    found.append(value)
            yield found + [0] * (6 - len(found))

    def _own_pid(self, program: Program) -> int:
        return int(program.task.group.tgid)

    def _aio(self, program: Program) -> int:
        program.write(OTHERS, bytes(8))
        program.ok("io_setup", 1, OTHERS)
        return int.from_bytes(program.read(OTHERS, 8), "little")

    def _key(self, program: Program) -> int:
        return program.ok("add_key", b"user", b"name", b"data", 4, -2)

    def arguments(self, declaration: Declaration, program: Program) -> list[int]:
        """Fill its memory, and choose."""
        program.write(ARGUMENTS, b"".join(self._slot() for _ in range((END - ARGUMENTS) // SLOT)))
        return [
            self._value(program, declaration.name, k, *argument)
            for k, argument in enumerate(declaration.args)
        ]

    def _value(self, program: Program, call: str, position: int, name: str, mark: Arg) -> int:
        some = self._any
        kind, known = kind_of(name, mark), sorted(numbers_of(mark.show))
        at = ARGUMENTS + ROOM * position
        if kind == "f":
            return some.choice((some.choice(self._fds), some.choice(self._fds), fcntl.AT_FDCWD))
        if kind == "p":
            program.write(at, some.choice(self._paths) + b"\0")
            return at
        if kind == "a":
            return some.choice((0, at, at, at))
        if kind == "s":
            return some.choice((0, 1, 2, 4, 8, 8, 8, 16, 24, 32, 40, 56, 64, 88, 104, 128, 4096))
        known += COMMANDS.get(call, {}).values()
        if known and some.random() < 0.8:
            value = some.choice(known)
            return value | some.choice(known) if some.random() < 0.2 else value
        return some.choice((0, 0, 0, 1, 2, 3, 8, 64, 1 << some.randrange(32), (1 << 64) - 1))

    def _pointer(self) -> int:
        """To a slot of its own."""
        self._inner = (self._inner + 1) % INNERS
        return INNER + self._inner * SLOT

    def _slot(self) -> bytes:
        """What may be a struct."""
        some = self._any
        kind = some.randrange(8)
        if kind == 0:
            return bytes(SLOT)
        if kind == 1:  # iovecs
            pairs = [v for _ in range(4) for v in (self._pointer(), some.choice((0, 1, 8, 64)))]
            return struct.pack("<8Q", *pairs)
        if kind == 2:  # times, limits
            return struct.pack("<8Q", *(some.randrange(1000) for _ in range(8)))
        if kind == 3:
            return struct.pack("<16I", *(some.choice((0, 0, 1, 2, 8)) for _ in range(16)))
        if kind == 4:  # a size, descriptors, flags
            words = [some.choice((0, 8, 16, 24, 32, 64, 88))]
            words += [some.choice((0, 0, 1, self._pointer(), *self._fds)) for _ in range(7)]
            return struct.pack("<8Q", *words)
        if kind == 5:  # an address of a socket
            family = some.choice((socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, 16))
            return struct.pack("<HHI", family, some.choice((0, 80)), 0x100007F).ljust(SLOT, b"\0")
        if kind == 6:
            return some.choice(PATHS).ljust(SLOT, b"\0")
        return some.randbytes(SLOT)


def _files(program: Program) -> Iterator[int]:
    """Descriptors of many kinds, and the names that `PATHS` has."""
    program.ok("mkdir", b"d", 0o777)
    program.ok("symlink", b"f", b"link")
    program.ok("symlink", b"loop", b"loop")
    program.ok("mknod", b"fifo", 0o10666, 0)
    fd = program.ok("open", b"f", fcntl.O_CREAT | fcntl.O_RDWR, 0o755)
    program.ok("write", fd, b"x" * 100, 100)
    yield fd
    for path, flags in ((b"d", 0), (b"/", 0), (b"f", fcntl.O_PATH), (b"/dev/pts/ptmx", 2),
                        (b"/dev/zero", 2), (b"/proc/self/mem", 2), (b"fifo", 2)):  # fmt: skip
        yield program.ok("open", path, flags)
    pair = program.buffer(8)
    for name, values in (
        ("pipe2", (pair, fcntl.O_NONBLOCK)),
        ("socketpair", (1, 1, 0, pair)),
        ("socketpair", (1, 2 | fcntl.O_NONBLOCK, 0, pair)),
    ):
        program.ok(name, *values)
        yield from struct.unpack("<2i", program.read(pair, 8))
    for family, kind in ((2, 1), (2, 2), (10, 1), (10, 2), (2, 3), (16, 3)):
        yield program.ok("socket", family, kind, 1 if kind == 3 and family == 2 else 0)
    yield program.ok("epoll_create1", 0)
    yield program.ok("eventfd2", 1, 0)
    yield program.ok("timerfd_create", 1, 0)
    yield program.ok("inotify_init1", 0)
    yield program.ok("memfd_create", b"m", 3)
    yield program.ok("signalfd4", -1, program.place(b"\0\2" + bytes(6)), 8, 0)
    yield program.ok("mq_open", b"q", fcntl.O_CREAT | fcntl.O_RDWR, 0o600, 0)
    yield program.ok("pidfd_open", program.task.group.tgid, 0)
    yield program.ok("fsopen", b"tmpfs", 0)
    yield program.ok("fanotify_init", 0, 0)
