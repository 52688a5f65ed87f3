"""System calls that are made again, by name: what a task was asleep in, without its coroutine.

A block of restart_syscall(2) is a function of this table with the numbers that it is called with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sentry.clock import MAX_NS
from sentry.kernel.futex import wait
from sentry.kernel.standing import call_until
from sentry.state import records
from sentry.syscalls.clocks.time import _sleep, _sleep_cpu
from sentry.syscalls.files.poll import restartable_poll
from sentry.wait.fiber import Interrupted, RestartBlock, RestartNoHand, RestartNoIntr

if TYPE_CHECKING:
    from sentry.kernel.task import Task

CODES: Final[dict[str, type[Exception]]] = {
    "again": Interrupted, "without-handler": RestartNoHand, "always": RestartNoIntr,
}  # fmt: skip
"""ERESTARTSYS, ERESTARTNOHAND, ERESTARTNOINTR."""
BLOCKS: Final[dict[str, tuple[Callable[..., Any], int, int, int]]] = {
    "call": (call_until, 8, -1, 0),
    "cpu-nanosleep": (_sleep_cpu, 3, -1, -1),
    "futex": (wait, 5, 3, -1),
    "nanosleep": (_sleep, 2, -1, 0),
    "poll": (restartable_poll, 3, 2, 2),
}
"""ERESTART_RESTARTBLOCK: the function, how many numbers it takes after the task, which of them is a
deadline that there may be none of, and which one that comes of a timeout. That of a futex may be a
point on a clock, as those of the C library are."""


def save(task: Task, restart: BaseException | Callable[[], Any]) -> records.Restart | None:
    """None: it is none of these."""
    for name, code in CODES.items():
        if type(restart) is code:
            return records.Restart(name)
    block = restart.again if isinstance(restart, RestartBlock) else restart
    if isinstance(block, partial) and not block.keywords and block.args[:1] == (task,):
        numbers = block.args[1:]
        for name, (function, count, *_) in BLOCKS.items():
            if block.func is function and len(numbers) == count:
                return records.Restart(name, [None if n is None else int(n) for n in numbers])
    return None


def made(task: Task, record: records.Restart, away_ns: int = 0) -> BaseException:
    """`away_ns`: for so long no timeout has gone on. Raises: ValueError."""
    code = CODES.get(record.how)
    if code is not None:
        return code()
    known = BLOCKS.get(record.how)
    numbers = list(record.numbers)
    if known is None or len(numbers) != known[1]:
        raise ValueError(f"no call is made again as {record.how!r} with {len(numbers)} numbers")
    function, _, optional, deadline = known
    for at, number in enumerate(numbers):
        if at != optional if number is None else not 0 <= number <= records.U64:
            raise ValueError(f"argument {at} of a call that is made again is {number}")
    if function is call_until:
        calls, number = task.kernel.calls, numbers[1] or 0
        if number >= len(calls) or calls[number] is None:
            raise ValueError(f"there is no system call {number}")
    for at in {optional, deadline} - {-1}:
        number = numbers[at]
        if number:  # nobody can wait for what lies behind the end of a clock
            numbers[at] = min(number + (away_ns if at == deadline else 0), MAX_NS)
    return RestartBlock(partial(function, task, *numbers))
