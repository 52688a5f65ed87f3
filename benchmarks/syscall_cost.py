"""What a system call costs on the KVM platform: medians of several rounds, in microseconds.

`python benchmarks/syscall_cost.py` prints one line each for a call that the entry code answers
(getpid), a call answered by Python through the mailbox, after an exit to another thread, and after
an exit of a vCPU that the kernel thread runs itself; then a kick.
The kernel here is the smallest possible: it answers every call with 0. Needs /dev/kvm.
"""

from __future__ import annotations

import os
import statistics
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sentry.platform.interface import ExitKind, Reg
from sentry.platform.kvm import Inline, KvmContext, KvmPlatform

ROUNDS = 15
CODE = 0x400000
EXIT_NR = 231


def loop_of(number: int, times: int) -> bytes:
    """mov ebx, times; 1: mov eax, number; syscall; dec ebx; jnz 1b; mov eax, 231; syscall"""
    body = b"\xb8" + struct.pack("<I", number) + b"\x0f\x05" + b"\xff\xcb"
    back = struct.pack("<b", -(len(body) + 2))
    last = b"\xb8" + struct.pack("<I", EXIT_NR) + b"\x0f\x05"
    return b"\xbb" + struct.pack("<I", times) + body + b"\x75" + back + last


def run(platform: KvmPlatform, context: KvmContext) -> int:
    """Answer until the program exits; how many calls came here."""
    served = 0
    wait = platform.wait
    orig_rax = int(Reg.ORIG_RAX)
    while True:
        for ready in wait(None):
            if ready.exit != ExitKind.SYSCALL:
                raise SystemExit(f"unexpected {ready.exit!r} at {ready.regs[Reg.RIP]:#x}")
            if ready.regs[orig_rax] == EXIT_NR:
                return served
            ready.answer(0)
            served += 1


def measure(
    number: int, times: int, *, mailbox: bool, fast: bool = False, inline: Inline = Inline.NEVER
) -> float:
    """Median microseconds per call."""
    platform = KvmPlatform(os.memfd_create("ram"), 1 << 30, mailbox=mailbox, inline=inline)
    space = platform.new_address_space()
    space.map_anonymous(CODE, 1, 7)
    space.write(CODE, loop_of(number, times))
    context = platform.new_context(space)
    if fast:
        context.set_fast(1, 1, (0, 0, 0, 0))
    costs = []
    for _ in range(ROUNDS):
        context.regs[Reg.RIP] = CODE
        start = time.perf_counter()
        context.resume()
        run(platform, context)
        costs.append((time.perf_counter() - start) / times * 1e6)
    platform.close()
    return statistics.median(costs)


def measure_kick(times: int) -> float:
    """Median microseconds from a kick of an endless loop to its exit."""
    platform = KvmPlatform(os.memfd_create("ram"), 1 << 30, inline=Inline.NEVER)
    space = platform.new_address_space()
    space.map_anonymous(CODE, 1, 7)
    space.write(CODE, b"\xeb\xfe")  # jmp to itself
    context = platform.new_context(space)
    context.regs[Reg.RIP] = CODE
    costs = []
    for _ in range(times):
        context.resume()
        platform.wait(time.monotonic_ns() + 200_000)
        start = time.perf_counter()
        context.kick()
        platform.wait(None)
        costs.append((time.perf_counter() - start) * 1e6)
    platform.close()
    return statistics.median(costs)


def main() -> None:
    """Print the table."""
    python, rows = 1000, 50_000
    table: dict[str, Callable[[], float]] = {
        "answered by the entry code": lambda: measure(39, 2 * rows, mailbox=True, fast=True),
        "by Python, mailbox": lambda: measure(python, rows, mailbox=True),
        "by Python, exit": lambda: measure(python, 2_000, mailbox=False),
        "by Python, inline": lambda: measure(python, 2_000, mailbox=False, inline=Inline.ALWAYS),
        "kick to exit": lambda: measure_kick(300),
    }
    for name, cost in table.items():
        print(f"{name:28}{cost():8.2f} us")


if __name__ == "__main__":
    main()
