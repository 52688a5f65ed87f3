"""What makes system calls: a program in `tests.world`, or one of the host (`tests.linux`)."""

from __future__ import annotations

import os
import struct
from typing import Any

from sentry.abi.signal import SA_RESTORER, SIG_BLOCK

AREA, AREA_SIZE = 0x100000, 0x200000
"""Memory that every program has, to read and write: a ring of data, then a stack."""
STACK_SIZE = 0x10000
HANDLER, RESTORER = 0x5000, 0x6000


class Caller:
    """Places data in a program's memory and makes its system calls.

    Bytes among the arguments of a call are placed in memory with a zero behind them.
    """

    def __init__(self, area: int = AREA) -> None:
        self._area = self._next = area

    def begin(self, name: str, *values: int | bytes) -> Any:
        """A system call, to its end or its first sleep: a handle with `done`, `result`, `wait`."""
        raise NotImplementedError

    def read(self, addr: int, count: int) -> bytes:
        """Load bytes."""
        raise NotImplementedError

    def write(self, addr: int, data: bytes) -> None:
        """Store bytes."""
        raise NotImplementedError

    def call(self, name: str, *values: int | bytes) -> int:
        """A system call to its end; -errno when it fails."""
        return int(self.begin(name, *values).wait())

    def ok(self, name: str, *values: int | bytes) -> int:
        """The call must succeed."""
        result = self.call(name, *values)
        assert result >= 0, f"{name}: {os.strerror(-result)}"
        return result

    def registers(self, values: tuple[int | bytes, ...]) -> list[int]:
        """The six arguments of a call."""
        found = [self.place(v + b"\0") if isinstance(v, bytes) else v for v in values]
        return found + [0] * (6 - len(found))

    def place(self, data: bytes) -> int:
        """Put bytes somewhere, in a ring of nearly 2 MiB; their address."""
        if self._next + len(data) > self._area + AREA_SIZE - STACK_SIZE:
            self._next = self._area
        addr = self._next
        self.write(addr, data)
        self._next += len(data) + 15 & ~15
        return addr

    def buffer(self, size: int) -> int:
        """Room in memory."""
        return self.place(bytes(size))

    def block(self, *signals: int) -> None:
        """rt_sigprocmask(2)."""
        mask = sum(1 << (signo - 1) for signo in signals)
        self.ok("rt_sigprocmask", SIG_BLOCK, self.place(struct.pack("<Q", mask)), 0, 8)

    def handle(self, signo: int, flags: int = 0, mask: int = 0) -> None:
        """rt_sigaction(2): a handler at HANDLER."""
        action = struct.pack("<4Q", HANDLER, flags | SA_RESTORER, RESTORER, mask)
        self.ok("rt_sigaction", signo, self.place(action), 0, 8)

    def take_signals(self) -> list[int]:
        """Numbers of the blocked signals that are pending, lowest first; they are not any more."""
        everything, now = self.place(b"\xff" * 8), self.place(bytes(16))
        taken = []
        while (signo := self.call("rt_sigtimedwait", everything, 0, now, 8)) > 0:
            taken.append(signo)
        return taken
