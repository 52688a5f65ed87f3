"""How `debug --stacks` shows where everything in a sandbox stands. No command of its own."""

from __future__ import annotations

from collections.abc import Iterator

from runsc.containers import lifecycle
from runsc.containers.container import Store
from runsc.containers.state import State
from runsc.errors import RuntimeFailure
from runsc.log import printable
from sentry.control.answers import Stack, Stacks
from sentry.control.protocol import Request

MAX_TASKS = 1 << 16
"""More than a sandbox can have."""


def lines(store: Store, state: State) -> Iterator[str]:
    """Tasks by number, then what the kernel does beside. Raises: RuntimeFailure."""
    after, told = 0, 0
    while True:
        found = _ask(store, state, after)
        for stack in found.tasks:
            yield from task(stack)
        told += len(found.tasks)
        last = found.tasks[-1].tid if found.tasks else after
        if not found.more or last <= after or told > MAX_TASKS:  # the sandbox may say anything
            break
        after = last
    kernel = _ask(store, state, -1)
    for stack in kernel.fibers:
        yield from beside(stack)
    if kernel.more:
        yield "(there are more)"
    for stack in kernel.threads:
        yield from _block(f"thread {stack.name}", stack)


def _ask(store: Store, state: State, after: int) -> Stacks:
    reply = lifecycle.ask(store, state, Request("stacks", pid=after))
    if reply.stacks is None:
        raise RuntimeFailure("the sandbox does not tell its stacks")
    return reply.stacks


def task(stack: Stack) -> Iterator[str]:
    """One thread of a program."""
    text = f"task {stack.tid} of process {stack.pid}, {stack.name}: {stack.state}"
    if stack.call:
        text += f" in {stack.call}{_age(stack)}"
    return _block(text, stack)


def beside(stack: Stack) -> Iterator[str]:
    """One coroutine of the kernel."""
    return _block(f"kernel, for {stack.name}: {stack.state}{_age(stack)}", stack)


def _age(stack: Stack) -> str:
    return f" for {stack.asleep_ns / 1e9:.3f} s" if stack.asleep_ns else ""


def _block(text: str, stack: Stack) -> Iterator[str]:
    yield _one_line(text)
    for frame in stack.frames:
        yield f"    {_one_line(frame)}"


def _one_line(text: str) -> str:
    return printable(text).replace("\n", "?")
