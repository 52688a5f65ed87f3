"""Random file system calls: whatever the arguments, the answer is a number or an errno."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sentry.abi.signal import SIGUSR1
from sentry.syscalls.registry import TABLE, Declaration

MODULES = "sentry.syscalls.files."
CALLS = [d for d in TABLE if d is not None and d.module.startswith(MODULES)]
RARE = {"chroot", "pivot_root", "unshare", "umount2"}
PATHS = (
    b"/", b".", b"..", b"a", b"/a", b"/a/b", b"/a/b/c", b"l", b"/l/x", b"/m", b"/m/a", b"", b"fifo",
    b"/dev/null", b"/dev/ptmx", b"/dev/pts/0", b"x" * 300, b"/a/../b/", b"/b", b"/b/",
)  # fmt: skip
WORDS = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 36, 37, 64, 100, 0o777, 0o100644, 0o10644, 0o40000, 0x242,
    0x406, 0x407, 0x408, 0x409, 0x800, 0x1000, 0x4000, 0x5401, 0x5402, 0x540F, 0x5413, 0x541B,
    0x80000, 0x410002, 0x441, 0x1000000, 0x40045431, 0x80045430, 1 << 31, 0x7FFFFFFF, 1 << 40,
    (1 << 32) - 100, (1 << 32) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip
NAMES = {"path", "old", "new", "target", "source", "name"}
BUFFERS = {"buf", "value", "vector", "events", "fds", "how", "times"}


def argument(task: Any, dice: random.Random, name: str, is_fd: bool) -> int:
    chance = dice.random()
    if is_fd and chance < 0.9:
        return dice.randrange(8)
    if name in NAMES and chance < 0.85:
        return int(task.place(dice.choice(PATHS) + b"\0"))
    if name in BUFFERS and chance < 0.7:
        return int(task.place(dice.choice((bytes(64), dice.randbytes(64)))))
    if name in ("count", "size") and chance < 0.8:
        return dice.choice((0, 1, 3, 8, 64, 4096, 70000))
    if chance < 0.3:
        return dice.randrange(8)
    return dice.choice(WORDS) if chance < 0.97 else dice.getrandbits(64)


def values(task: Any, dice: random.Random, call: Declaration) -> list[int]:
    found = [argument(task, dice, name, mark.is_fd) for name, mark in call.args]
    found += [0] * (6 - len(found))
    if call.name in ("truncate", "ftruncate", "fallocate", "lseek"):  # no sparse file
        found = [v if v < 1 << 20 or v >> 62 else v & 0xFFFFF for v in found]
    return found


@pytest.fixture
def process(task: Any) -> Any:
    task.world.devices()
    task.world.mount("devpts", b"/dev/pts")
    task.handle(SIGUSR1)
    task.block(*(set(range(1, 65)) - {SIGUSR1}))
    return task


@pytest.mark.parametrize("seed", range(3))
def test_random_calls_give_a_number_or_an_errno(process: Any, seed: int) -> None:
    """A bug of ours raises out of `call`, as what interrupts a call does not."""
    dice, world = random.Random(seed), process.world
    thread, asleep = process.thread(), []
    for turn in range(4000):
        call = dice.choice(CALLS)
        if call.name in RARE and dice.random() < 0.9:
            continue
        began = thread.begin(call.name, *values(thread, dice, call))
        if not began.done:
            asleep.append((thread, began))
            thread = process.thread()
        if len(asleep) > 5:
            sleeper, _ = asleep.pop(0)
            process.ok("tgkill", process.task.group.tgid, sleeper.task.tid, SIGUSR1)
            world.settle()
        world.settle()
        if turn % 400 == 0:
            for fd in process.task.files:
                if dice.random() < 0.5:
                    process.task.files.close(process.task, fd)
