r"""What a system call costs on the KVM platform: median microseconds, and exits per call.

`python benchmarks/syscall_cost.py` prints one line each for a call that the entry code answers
(getpid), a call answered by Python through the mailbox, after an exit to another thread, and after
an exit of a vCPU that the kernel thread runs itself; the same where each answer is to another
process, which calls next; then a kick.
The kernel here is the smallest possible: it answers every call with 0. Needs /dev/kvm.

    ci/svm/run --parallel --shell '$(cat /python) benchmarks/syscall_cost.py --counts'

counts the exits on an ordinary KVM in an emulated CPU. Times mean nothing there, so mailboxes have
long patience.

    ci/svm/run --smp=1 --instructions \
        --shell '$(cat /python) benchmarks/syscall_cost.py --instructions'

counts the instructions there, of the program, of the host's kernel and of this one. A mailbox is
left out: two CPUs that take turns wait for each other.
"""

from __future__ import annotations

import os
import statistics
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sentry.platform._native import lib
from sentry.platform.interface import ExitKind, Reg
from sentry.platform.kvm import KvmContext, KvmPlatform

ROUNDS = 15
CODE = 0x400000
EXIT_NR = 231


def loop_of(number: int, times: int) -> bytes:
    """mov ebx, times; 1: mov eax, number; syscall; dec ebx; jnz 1b; mov eax, 231; syscall"""
    body = b"\xb8" + struct.pack("<I", number) + b"\x0f\x05" + b"\xff\xcb"
    back = struct.pack("<b", -(len(body) + 2))
    last = b"\xb8" + struct.pack("<I", EXIT_NR) + b"\x0f\x05"
    return b"\xbb" + struct.pack("<I", times) + body + b"\x75" + back + last


def run(platform: KvmPlatform, held: int) -> None:
    """Answer until all programs have exited, each call but `held` as soon as the next has come."""
    wait = platform.wait
    orig_rax = int(Reg.ORIG_RAX)
    calls: list[KvmContext] = []
    exited = 0
    while exited <= held:
        for ready in wait(None):
            if ready.exit == ExitKind.INTERRUPTED:
                ready.resume()
                continue
            if ready.exit != ExitKind.SYSCALL:
                raise SystemExit(f"unexpected {ready.exit!r} at {ready.regs[Reg.RIP]:#x}")
            if ready.regs[orig_rax] == EXIT_NR:
                exited += 1
            else:
                calls.append(ready)
            if calls and len(calls) > held - exited:
                calls.pop(0).answer(0)


class Measured(NamedTuple):
    """Of one call."""

    microseconds: float
    exits: float


def measure(
    number: int,
    times: int,
    *,
    mailbox: bool,
    processes: int = 1,
    fast: bool = False,
    inline: bool = False,
    patient: bool = False,
) -> Measured:
    """Medians; with several processes each call's answer is to the one that called longest ago."""
    platform = KvmPlatform(os.memfd_create("ram"), 1 << 30, mailbox=mailbox, inline=inline)
    if patient:
        lib.pool.budget, lib.pool.tsc_per_ns = 1_000_000, 20 * lib.pool.tsc_per_ns
    contexts = []
    for _ in range(processes):
        space = platform.new_address_space()
        space.map_anonymous(CODE, 1, 7)
        space.write(CODE, loop_of(number, times))
        contexts.append(platform.new_context(space))
        if fast:
            contexts[-1].set_fast(1, 1, (0, 0, 0, 0))
    costs, exits = [], []
    for _ in range(ROUNDS):
        before, start = platform.events_so_far()["exits"], time.perf_counter()
        for context in contexts:
            context.regs[Reg.RIP] = CODE
            context.resume()
        run(platform, processes - 1)
        calls = times * processes
        costs.append((time.perf_counter() - start) / calls * 1e6)
        exits.append((platform.events_so_far()["exits"] - before) / calls)
    platform.close()
    return Measured(statistics.median(costs), statistics.median(exits))


def measure_kick(times: int) -> Measured:
    """Median microseconds from a kick of an endless loop to its exit."""
    platform = KvmPlatform(os.memfd_create("ram"), 1 << 30, inline=False)
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
    return Measured(statistics.median(costs), 1)


def main() -> None:
    """Print the table."""
    counts, instructions = "--counts" in sys.argv, "--instructions" in sys.argv
    emulated = counts or instructions
    python, some, many = 1000, 500 if emulated else 2_000, 500 if emulated else 50_000
    table: dict[str, Callable[[], Measured]] = {
        "answered by the entry code": lambda: measure(39, 2 * many, mailbox=True, fast=True),
        "by Python, mailbox": lambda: measure(python, many, mailbox=True, patient=counts),
        "by Python, exit": lambda: measure(python, some, mailbox=False),
        "by Python, inline": lambda: measure(python, some, mailbox=False, inline=True),
        "another process, mailbox": lambda: measure(
            python, some, mailbox=True, processes=2, patient=counts
        ),
        "another process, exit": lambda: measure(python, some, mailbox=False, processes=2),
        "another process, inline": lambda: measure(
            python, some, mailbox=False, processes=2, inline=True
        ),
        "kick to exit": lambda: measure_kick(300),
    }
    for name, cost in table.items():
        if instructions and "mailbox" in name:
            continue
        found = cost()
        took = "" if counts else f"{found.microseconds:8.2f} us"
        if instructions:  # a nanosecond is one
            took = f"{found.microseconds * 1000:8.0f} instructions"
        print(f"{name:28}{took}{found.exits:8.2f} exits", flush=True)


if __name__ == "__main__":
    main()
