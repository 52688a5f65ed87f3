"""A world with a policy."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from textwrap import dedent

import pytest

from sentry.policy.engine import Engine
from sentry.syscalls import table  # noqa: F401  all declarations
from sentry.wait.steps import at_once
from tests.world import Program, World

HEAD = "from runsc.policy import *\n"
UDP, TCP, UNIX = (2, 2), (2, 1), (1, 1)


class Ruled(World):
    """A world whose policy can be said."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = Engine(self.kernel)
        self.kernel.policy = self.policy
        assert self._watchdog is not None
        self._watchdog.guard = self.policy.guard
        setup = self.program()
        for name in (b"/etc", b"/tmp"):
            setup.ok("mkdir", name, 0o755)
        for name in (b"/etc/shadow", b"/tmp/free"):
            made = setup.ok("openat", -100, name, 0o102, 0o644)
            setup.ok("write", made, b"words", 5)

    def rule(self, source: str) -> None:
        """This is the policy from now on."""
        at_once(self.policy.use(self.policy.read("test.py", HEAD + dedent(source))))

    @property
    def logged(self) -> str:
        return "".join(self.log.text)

    def _end(self) -> None:
        at_once(self.policy.use(None))
        super()._end()


def inet(address: str, port: int) -> bytes:
    """struct sockaddr_in, without the byte that is placed behind it."""
    return struct.pack("<H", 2) + struct.pack(">H", port) + socket.inet_aton(address) + bytes(7)


def opens(program: Program, path: bytes, flags: int = 0) -> int:
    """Its errno, or 0."""
    result = program.call("openat", -100, path, flags, 0o600)
    if result >= 0:
        program.ok("close", result)
    return min(result, 0)


@pytest.fixture
def world() -> Iterator[Ruled]:
    with Ruled() as made:
        yield made
