"""A task over a tmpfs, with memory that is a plain array: enough to make system calls."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import sentry.syscalls.table  # noqa: F401  fills the table
from sentry.abi import unistd
from sentry.auth.credentials import Credentials
from sentry.errors import EFAULT, ENAMETOOLONG, Errno
from sentry.fs.registry import register_all
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.kernel import namespaces
from sentry.kernel.nsproxy import Uts
from sentry.kernel.pids import Pids
from sentry.kernel.services import Services
from sentry.loop import HostOnly, Loop
from sentry.mm.buffers import KernelDest, KernelSource
from sentry.syscalls.registry import CALLS
from sentry.vfs.fd_table import FdTable
from sentry.vfs.fs_context import FsContext
from sentry.vfs.mounts import MountNamespace
from sentry.vfs.vfs import Vfs


class PlainRamFile:
    """A RamFile over Python bytes."""

    def __init__(self) -> None:
        self.held: dict[int, bytearray] = {}
        self.size = 0
        self.mappers: dict[Any, int] = {}

    @property
    def pages(self) -> int:
        return len(self.held)

    def frames(self, index: int, count: int) -> list[int]:
        return [int(i in self.held) for i in range(index, index + count)]

    def fill(self, index: int, count: int) -> None:
        for i in range(index, index + count):
            self.held.setdefault(i, bytearray(4096))

    def read(self, offset: int, count: int) -> bytes:
        count = min(count, self.size - offset)
        return bytes(
            self.held[i // 4096][i % 4096] if i // 4096 in self.held else 0
            for i in range(offset, offset + max(count, 0))
        )

    def write(self, offset: int, data: bytes) -> int:
        for at, byte in enumerate(data, offset):
            self.held.setdefault(at // 4096, bytearray(4096))[at % 4096] = byte
        self.size = max(self.size, offset + len(data))
        return len(data)

    def truncate(self, size: int) -> None:
        if size < self.size:
            self.punch(size, self.size - size)
        self.size = size

    def punch(self, offset: int, length: int) -> None:
        for page in list(self.held):
            low, high = max(offset, page * 4096), min(offset + length, page * 4096 + 4096)
            if low <= page * 4096 and high == page * 4096 + 4096:
                del self.held[page]
            elif low < high:
                self.held[page][low - page * 4096 : high - page * 4096] = bytes(high - low)

    def next_data(self, offset: int) -> int | None:
        found = [p for p in sorted(self.held) if p >= offset // 4096]
        return max(offset, found[0] * 4096) if found else None

    def next_hole(self, offset: int) -> int:
        page = offset // 4096
        while page in self.held:
            page += 1
        return min(self.size, max(offset, page * 4096))

    def close(self) -> None:
        self.held.clear()


class PlainMemory:
    """User memory: 1 MiB from address 0x10000 on."""

    BASE = 0x10000

    def __init__(self) -> None:
        self.data = bytearray(1 << 20)
        self.next = self.BASE

    def place(self, data: bytes) -> int:
        """Put bytes somewhere; their address."""
        if self.next + len(data) > self.BASE + len(self.data):
            self.next = self.BASE
        addr = self.next
        self.write(addr, data)
        self.next += len(data) + 15 & ~15
        return addr

    def _at(self, addr: int, count: int) -> int:
        at = addr - self.BASE
        if at < 0 or at + count > len(self.data):
            raise EFAULT(f"{addr:#x}")
        return at

    def read(self, addr: int, count: int) -> bytes:
        at = self._at(addr, count)
        return bytes(self.data[at : at + count])

    def write(self, addr: int, data: bytes) -> None:
        at = self._at(addr, len(data))
        self.data[at : at + len(data)] = data

    def read_path(self, addr: int) -> bytes:
        at = self._at(addr, 1)
        end = self.data.index(0, at)
        if end - at >= 4096:
            raise ENAMETOOLONG
        return bytes(self.data[at:end])

    def read_cstr(self, addr: int, limit: int, *_: Any) -> bytes:
        at = self._at(addr, 1)
        return bytes(self.data[at : self.data.index(0, at)])

    def buffer_out(self, addr: int, count: int) -> Any:
        self._at(addr, count)
        memory = self

        class Dest(KernelDest):
            def put(self, data: Any) -> int:
                at = len(self.data)
                n = super().put(data)
                memory.write(addr + at, bytes(self.data[at : at + n]))
                return n

        return Dest(count)

    def buffer_in(self, addr: int, count: int) -> KernelSource:
        return KernelSource(self.read(addr, count))

    def read_iov(self, addr: int, count: int) -> list[tuple[int, int]]:
        return list(struct.iter_unpack("<QQ", self.read(addr, 16 * count)))  # type: ignore[arg-type]

    def buffer_in_iov(self, addr: int, count: int) -> KernelSource:
        return KernelSource(b"".join(self.read(a, n) for a, n in self.read_iov(addr, count)))

    def buffer_out_iov(self, addr: int, count: int) -> Any:
        parts = self.read_iov(addr, count) or [(self.BASE, 0)]
        return self.buffer_out(*parts[0])


class FakeTask:
    """The task of a test. `call("open", b"/x", 0)` makes a system call; bytes are placed."""

    def __init__(self, kernel: Any, mounts: MountNamespace) -> None:
        self.kernel = kernel
        self.ns = namespaces.first(kernel, mounts)
        root = mounts.root.location
        self.fs = FsContext(mounts, root, root, 0o022)
        self.files = FdTable()
        self.creds = Credentials.root()
        self.mm = PlainMemory()
        self.limits: dict[int, int] = {7: 1024}
        self.signals: list[int] = []
        self.pids = Pids(100)
        self.group = SimpleNamespace(tgid=1, pids=self.pids, personality=0)
        self.tid = 1
        self.timer_slack_ns = 0
        self.rchar = self.wchar = self.syscr = self.syscw = 0

    @property
    def mounts(self) -> MountNamespace:
        return self.ns.mounts

    def rlimit(self, resource: int) -> int:
        return self.limits.get(resource, (1 << 64) - 1)

    def send_signal(self, signo: int) -> None:
        self.signals.append(signo)

    def sibling(self, **ids: Any) -> FakeTask:
        """Another process on the same tree."""
        other = FakeTask(self.kernel, self.mounts)
        other.creds = Credentials.user(**ids) if ids else self.creds
        return other

    def start(self, name: str, *values: Any) -> Any:
        """Make the call: its result, or a coroutine."""
        registers = [self.mm.place(v + b"\0") if isinstance(v, bytes) else v for v in values]
        registers = [r & 0xFFFFFFFFFFFFFFFF for r in registers] + [0] * (6 - len(registers))
        call = CALLS[getattr(unistd, name)]
        assert call is not None
        return call(self, *registers)

    def call(self, name: str, *values: Any) -> int:
        """Make the call and wait for it; -errno when it fails."""
        try:
            result = self.start(name, *values)
            if result is not None and not isinstance(result, int):
                result = run(self.kernel.loop, result)
        except Errno as error:
            return -error.number
        return 0 if result is None else result

    def ok(self, name: str, *values: Any) -> int:
        """The call must succeed."""
        result = self.call(name, *values)
        assert result >= 0, f"{name}: {os.strerror(-result)}"
        return result

    def buffer(self, size: int) -> int:
        """Room in memory."""
        return self.mm.place(bytes(size))


def run(loop: Loop, coro: Any) -> Any:
    """Turn the loop until the coroutine has ended."""
    outcome: list[tuple[Any, BaseException | None]] = []
    loop.spawn(coro, "test", lambda result, error: outcome.append((result, error)))
    while not outcome:
        loop.turn()
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


@pytest.fixture
def kernel() -> Any:
    """The parts of a kernel that files need."""

    def fail(what: str, error: BaseException) -> None:
        raise AssertionError(what) from error

    loop = Loop(HostOnly(), fail)
    ticks = iter(range(10**18, 2 * 10**18, 1000))
    vfs = Vfs(loop, PlainRamFile, lambda: next(ticks))
    register_all(vfs)
    made: Any = SimpleNamespace(
        loop=loop, vfs=vfs, services=Services(), uts=Uts(b"test"), pids=Pids(100)
    )
    return made


@pytest.fixture
def task(kernel: Any) -> FakeTask:
    """A root task in an empty tmpfs."""
    fs = TmpFs.make(kernel.vfs, mode=0o755)
    return FakeTask(kernel, MountNamespace(kernel.vfs.new_mount(fs), kernel.vfs.mount_ids))


@pytest.fixture
def runner() -> Callable[[Loop, Any], Any]:
    """`run`, for tests that drive coroutines themselves."""
    return run
