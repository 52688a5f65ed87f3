"""A machine for tiny guest programs in assembly, over every platform."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from sentry.platform.interface import ExitKind, Reg

CODE, DATA, STACK = 0x400000, 0x600000, 0x800000
STACK_TOP = STACK + 0x3F00
READ, WRITE, EXECUTE = 1, 2, 4
LOOK_NS = 1_000_000_000
"""What comes is waited for as long as the test may take, which the machine may emulate."""


@lru_cache
def assemble(source: str) -> bytes:
    """Flat code of AT&T assembly, linked at CODE; DATA and STACK are known as symbols.

    $PLATFORM_CONTRACT_CACHE keeps the results, for a machine without an assembler.
    """
    cache = os.environ.get("PLATFORM_CONTRACT_CACHE")
    if not cache:
        return _assemble(source)
    kept = Path(cache) / hashlib.sha256(source.encode()).hexdigest()
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(_assemble(source))
    return kept.read_bytes()


def _assemble(source: str) -> bytes:
    defines = [f"-Wl,--defsym={name}={value}" for name, value in (("DATA", DATA), ("STACK", STACK))]
    options = ["-nostdlib", "-static", f"-Wl,-Ttext={CODE}", "-Wl,--build-id=none", "-Wl,-e,0"]
    with tempfile.TemporaryDirectory() as folder:
        program, flat = f"{folder}/program", f"{folder}/flat"
        command = ["gcc", *options, *defines, "-x", "assembler", "-", "-o", program]
        subprocess.run(command, input=f".text\n{source}\n", text=True, check=True)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", program, flat], check=True)
        return Path(flat).read_bytes()


class Machine:
    """A platform with helpers to run programs to their exits."""

    def __init__(self, platform: Any) -> None:
        self.platform = platform
        self._exited: deque[Any] = deque()

    def space(self, source: str) -> Any:
        """An address space with a program, a page of data and a stack."""
        code = assemble(source)
        space = self.platform.new_address_space()
        space.map_anonymous(CODE, -(-len(code) // 4096), READ | WRITE | EXECUTE)
        space.map_anonymous(DATA, 1, READ | WRITE)
        space.map_anonymous(STACK, 4, READ | WRITE)
        assert space.write(CODE, code) == len(code)
        return space

    def context(self, space: Any, **regs: int) -> Any:
        """A context at the program's start."""
        context = self.platform.new_context(space)
        context.regs[Reg.RIP], context.regs[Reg.RSP] = CODE, STACK_TOP
        for name, value in regs.items():
            context.regs[Reg[name.upper()]] = value
        context.owner = space
        return context

    def start(self, source: str, **regs: int) -> Any:
        """A running context in an address space of its own."""
        context = self.context(self.space(source), **regs)
        context.resume()
        return context

    def poll(self) -> None:
        """Let the programs run for a moment."""
        self._exited.extend(self.platform.wait(time.monotonic_ns() + 50_000))

    def has_exit(self) -> bool:
        """Whether a context has come back that any_exit has not given yet."""
        return bool(self._exited)

    def any_exit(self) -> Any:
        """The next context that came back."""
        while not self._exited:
            self._exited.extend(self.platform.wait(time.monotonic_ns() + LOOK_NS))
        return self._exited.popleft()

    def next_exit(self) -> Any:
        """The next context that came back for more than an interruption, which may be for nothing:
        a context that is only that goes on."""
        while (came := self.any_exit()).exit == ExitKind.INTERRUPTED:
            came.resume()
        return came

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until something is true that happens inside platform.wait."""
        while not condition():
            self._exited.extend(self.platform.wait(time.monotonic_ns() + 1_000_000))

    def exit_of(self, context: Any) -> ExitKind:
        """The next exit of this context, not counting interruptions."""
        came = self.next_exit()
        assert came is context
        return ExitKind(came.exit)

    def syscall_of(self, context: Any) -> int:
        """The number of the next system call of this context."""
        kind = self.exit_of(context)
        assert kind == ExitKind.SYSCALL, (kind, context.vector, hex(context.regs[Reg.RIP]))
        return int(context.regs[Reg.ORIG_RAX])


def _kvm(mailbox: bool, inline: bool) -> Any:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/kvm")
    from sentry.platform.kvm import KvmPlatform  # noqa: PLC0415

    return KvmPlatform(os.memfd_create("ram"), 2 << 30, mailbox=mailbox, inline=inline)


def _unicorn() -> Any:
    from sentry.platform.unicorn import (  # noqa: PLC0415
        Unavailable,
        UnicornPlatform,
        find_library,
    )

    try:
        find_library()
    except Unavailable as error:
        pytest.skip(str(error))
    return UnicornPlatform(os.memfd_create("ram"), 2 << 30)


PLATFORMS: dict[str, Callable[[], Any]] = {
    "kvm-mailbox": lambda: _kvm(True, False),
    "kvm-exit": lambda: _kvm(False, False),
    "kvm-inline": lambda: _kvm(True, True),
    "unicorn": _unicorn,
}


@pytest.fixture(params=PLATFORMS)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Every platform in turn."""
    platform = PLATFORMS[request.param]()
    try:
        yield Machine(platform)
    finally:
        platform.close()
