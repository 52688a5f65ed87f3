"""Random file system calls: whatever the arguments, the answer is a number or an errno."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.errors import Errno
from sentry.syscalls.registry import TABLE, Declaration
from sentry.wait.fiber import Interrupted, RestartBlock, RestartNoHand

MODULES = "sentry.syscalls.files."
CALLS = [d for d in TABLE if d is not None and d.handler.__module__.startswith(MODULES)]
RARE = {"chroot", "pivot_root", "unshare", "umount2"}
ENDS = (Errno, Interrupted, RestartNoHand, RestartBlock)
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
        return int(task.mm.place(dice.choice(PATHS) + b"\0"))
    if name in BUFFERS and chance < 0.7:
        return int(task.mm.place(dice.choice((bytes(64), dice.randbytes(64)))))
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
    session = SimpleNamespace(terminal=None, foreground=None, leader=None, sid=1)
    nothing = SimpleNamespace(mask=0)
    task.group.process_group = SimpleNamespace(session=session, pgid=1)
    task.group.tasks, task.group.shared_pending, task.pending = [task], nothing, nothing
    task.fiber, task.work, task.blocked, task.saved_mask = None, 0, 0, None
    task.kernel.pids = SimpleNamespace(groups={1: 1}, tasks={1: 1}, process_groups={})
    task.ok("mkdir", b"/dev", 0o755)
    task.ok("mkdir", b"/dev/pts", 0o755)
    task.ok("mknod", b"/dev/null", 0o020666, 0x103)
    task.ok("mknod", b"/dev/ptmx", 0o020666, 0x502)
    task.ok("mount", b"x", b"/dev/pts", b"devpts", 0, 0)
    return task


@pytest.mark.parametrize("seed", range(3))
def test_random_calls_give_a_number_or_an_errno(process: Any, seed: int) -> None:
    dice, loop, asleep = random.Random(seed), process.kernel.loop, []
    bad: list[BaseException] = []

    def ended(_: Any, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, ENDS):
            bad.append(error)

    for turn in range(4000):
        call = dice.choice(CALLS)
        if call.name in RARE and dice.random() < 0.9:
            continue
        try:
            result = call.call(process, *values(process, dice, call))
            if result is not None and not isinstance(result, int):
                asleep.append(loop.spawn(result, call.name, ended))
        except ENDS:
            pass
        if len(asleep) > 5:
            asleep.pop(0).interrupt(Interrupted())
        loop.call_soon(lambda: None)
        loop.turn()
        if turn % 400 == 0:
            for fd in process.files:
                if dice.random() < 0.5:
                    process.files.close(process, fd)
        assert not bad
