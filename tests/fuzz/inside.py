"""Hostile calls of a program in a `tests.world`: an errno or a number, and soon.

A step is a name of a call and its arguments, of which bytes are placed in memory. An exception that
is no errno raises out of it, and a call that sleeps is ended with its program; a fork of the first
one, which has the files, goes on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Self

from hypothesis import strategies as st

from sentry.abi.signal import SIGKILL
from tests.fuzz.running import bounded
from tests.world import Program, World

Value = int | bytes
Step = tuple[Any, ...]
WORD = (1 << 64) - 1


def many(step: st.SearchStrategy[Step]) -> st.SearchStrategy[list[Step]]:
    """Dozens of steps: a list of hypothesis has half a dozen."""
    groups = st.lists(st.lists(step, min_size=1, max_size=20), min_size=1, max_size=20)
    return groups.map(lambda parts: [one for part in parts for one in part])


class Inside:
    """A world with a program that has files."""

    def __init__(self, prepare: Callable[[Program], None] = lambda program: None) -> None:
        self.world = World(stepped=True)
        self._prepare = prepare

    def __enter__(self) -> Self:
        try:
            self.world.mount("proc", b"/proc")
            self.first = self.world.program()
            self._prepare(self.first)
            self.program = self.first.fork()
        except BaseException:
            self.world.abandon()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.world.close()
        else:
            self.world.abandon()

    def call(self, name: str, *values: Value) -> int | None:
        """What it gave; None if it sleeps: then another program goes on."""
        program = self.program
        with bounded((name, values)):
            call = program.begin(name, *values)
        if not call.done:
            with bounded(f"after {name} {values}"):
                self.world.settle()
        if call.done and not program.task.dead:
            return call.result
        if not program.task.dead:
            program.task.group.exit(SIGKILL)
            self.world.settle()
        self.program = self.first.fork()
        return None

    def iovec(self, data: bytes) -> int:
        """One struct iovec over these bytes: its address."""
        return self.program.place(struct.pack("<QQ", self.program.place(data), len(data)))

    def message(self, name: bytes, data: bytes, control: bytes, lengths: Step = ()) -> int:
        """A struct msghdr; `lengths`: others of name and control than they have."""
        place = self.program.place
        name_size, control_size = lengths or (len(name), len(control))
        return place(
            struct.pack(
                "<QIIQQQQII",
                place(name) if name else 0,
                name_size & 0xFFFFFFFF,
                0,
                self.iovec(data),
                1,
                place(control) if control else 0,
                control_size & WORD,
                0,
                0,
            )
        )
