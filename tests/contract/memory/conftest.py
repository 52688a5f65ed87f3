"""The machines of tests/contract/platform, with address spaces that sentry.mm manages."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sentry.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE
from sentry.mm.faults import fault
from sentry.mm.manager import MemoryManager
from sentry.mm.mapping import mmap
from sentry.platform.interface import ExitKind, Reg

_spec = importlib.util.spec_from_file_location(
    "platform_contract", Path(__file__).parent.parent / "platform" / "conftest.py"
)
assert _spec is not None and _spec.loader is not None
_contract: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_contract)

CODE, STACK = 0x400000, 0x800000
FIXED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED


class Guest:
    """Programs in address spaces of sentry.mm, on real vCPUs."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self.platform = machine.platform

    def memory(self, source: str) -> MemoryManager:
        """A new process image that holds this code."""
        mm = MemoryManager.empty(self.platform.new_address_space)
        code = _contract.assemble(source)
        mmap(mm.map, CODE, (len(code) + 4095) & ~4095, 7, FIXED)
        mmap(mm.map, STACK, 0x4000, 3, FIXED)
        mm.write(CODE, code)
        return mm

    def thread(self, mm: MemoryManager, offset: int = 0, **regs: int) -> Any:
        """A running thread at CODE + offset."""
        context = self.machine.context(mm.space, **regs)
        context.regs[Reg.RIP] = CODE + offset
        context.resume()
        return context

    def again(self, context: Any, offset: int, **regs: int) -> None:
        """Let a context that came back run something else."""
        context.regs[Reg.RIP] = CODE + offset
        for name, value in regs.items():
            context.regs[Reg[name.upper()]] = value
        context.resume()

    def serve(self, context: Any, mm: MemoryManager) -> ExitKind:
        """The next exit that mm cannot repair."""
        while True:
            kind: ExitKind = self.machine.exit_of(context)
            if kind != ExitKind.FAULT:
                return kind
            try:
                fault(mm.map, context.fault_addr, context.error_code)
            except Exception:
                return kind
            context.resume()

    def settle(self, condition: Callable[[], object]) -> None:
        """Let programs run until something is true."""
        self.machine.wait_for(condition)


@pytest.fixture(params=list(_contract.PLATFORMS))
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """Every platform in turn."""
    platform = _contract.PLATFORMS[request.param]()
    try:
        yield Guest(_contract.Machine(platform))
    finally:
        platform.close()
