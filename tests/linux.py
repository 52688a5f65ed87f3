"""Programs of the host's own Linux, driven as those of `tests.world`: the oracle of contracts.

Each is a process that makes the system calls it is asked for, with the root directory, the rights
and the memory that a test gives it. Needs root.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from mmap import mmap
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sentry.abi import unistd
from sentry.abi.mount import MS_PRIVATE, MS_REC
from sentry.abi.sched import CLONE_NEWIPC, CLONE_NEWNS
from tests.caller import AREA_SIZE, Caller


class NativeCall:
    """A system call that a process of the host has begun."""

    def __init__(self, program: NativeProgram, number: int) -> None:
        self._program = program
        self._number = number
        self._result: int | None = None

    @property
    def done(self) -> bool:
        """It has ended; else it is asleep, not on its way."""
        while self._result is None and not self._program.has_answer():
            shown = Path(f"/proc/{self._program.pid}/syscall").read_text()
            if shown.split()[0] == str(self._number):
                return self._program.has_answer() and self.wait() is not None
        return self.wait() is not None

    def wait(self) -> int:
        """What it gave, -errno where it failed."""
        if self._result is None:
            self._result = int(self._program.answer())
        return self._result

    @property
    def result(self) -> int:
        """Preconditions: done."""
        return self.wait()


class NativeProgram(Caller):
    """A process of the host."""

    def __init__(self, folder: Path, ends: ExitStack, ids: tuple[int, int] | None = None) -> None:
        self._folder, self._ends, self._ids = folder, ends, ids
        memory = mmap(-1, AREA_SIZE)
        super().__init__(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
        self._way, theirs = Pipe()
        self.pid = os.fork()
        if not self.pid:
            self._way.close()
            _serve(theirs, self._enter)
        theirs.close()
        ends.callback(self._end)

    def _enter(self) -> None:
        private_namespaces()
        os.chroot(self._folder)
        os.chdir("/")
        os.umask(0o022)
        if self._ids is not None:
            uid, gid = self._ids
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)

    def _end(self) -> None:
        self._way.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def begin(self, name: str, *values: int | bytes) -> NativeCall:
        number = getattr(unistd, name)
        arguments = [v & (1 << 64) - 1 for v in self.registers(values)]
        self._way.send(("call", number, *arguments))
        return NativeCall(self, number)

    def read(self, addr: int, count: int) -> bytes:
        self._way.send(("read", addr, count))
        return bytes(self.answer())

    def write(self, addr: int, data: bytes) -> None:
        self._way.send(("write", addr, data))
        self.answer()

    def has_answer(self) -> bool:
        """Whether the last request has been answered."""
        return self._way.poll()

    def answer(self) -> Any:
        """The answer to the last request."""
        return self._way.recv()

    def sibling(self, uid: int | None = None, gid: int = 0) -> NativeProgram:
        """Another process on the same tree, with the same rights or those of a user."""
        return NativeProgram(self._folder, self._ends, None if uid is None else (uid, gid))


def private_namespaces() -> None:
    """Mounts and message queues that nobody else sees. Raises: OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    private = libc.unshare(CLONE_NEWNS | CLONE_NEWIPC) == 0
    if not private or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "no namespaces")


def _serve(way: Connection, enter: Callable[[], None]) -> None:
    """The process itself."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    try:
        enter()
        kept = Connection(os.dup2(way.fileno(), 1000))
        os.closerange(0, 1000)
        while True:
            match kept.recv():
                case "call", *values:
                    result = libc.syscall(*map(ctypes.c_ulong, values))
                    kept.send(-ctypes.get_errno() if result == -1 else result)
                case "read", addr, count:
                    kept.send(ctypes.string_at(addr, count))
                case "write", addr, data:
                    kept.send(ctypes.memmove(addr, data, len(data)))
    except EOFError:
        pass
    finally:
        os._exit(0)
