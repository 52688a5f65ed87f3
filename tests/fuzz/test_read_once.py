"""User memory is read once: what a call has looked at may be something else a moment later.

Each declared call is made with arguments by its declaration, over memory that changes right behind
every read (`turning.py`): no byte may be read twice, and whatever the call does with what it has
got is an errno or a number. RUNSC_FUZZ_SEED says which arguments, RUNSC_FUZZ_TURNS (10) how many.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentry.fs.gofer.session import Session
from sentry.syscalls.registry import TABLE, Declaration
from sentry.wait import steps
from tests.fuzz.call_table import COMMANDS, LEFT_OUT, kind_of, numbers_of
from tests.fuzz.likely import ARGUMENTS, LIKELY, ROOM
from tests.fuzz.turning import PATHS, Calls, Turning
from tests.world import MakeRoot, World

SEED = os.environ.get("RUNSC_FUZZ_SEED", "1")
TURNS = int(os.environ.get("RUNSC_FUZZ_TURNS", "10"))
SECOND_NS = 10**9
SIZE_TWICE = {
    "listmount": 4, "sched_setattr": 4, "statmount": 4,
}  # fmt: skip
"""The size in front of a struct, as in Linux: the second one is passed over."""
INPUTS = ("UserIn(", "UserPath(", "read_path(", "read_cstr(", "in_")
NOT_READ = frozenset({
    "bpf.attributes", "delete_module.name", "finit_module.arguments", "init_module.arguments",
    "init_module.image", "perf_event_open.attributes", "swapoff.path", "swapon.path",
})  # fmt: skip
"""Calls that are refused first."""
DECLARED = [one for one in TABLE if one is not None and one.name not in LEFT_OUT]
WITH_PATHS = [
    one for one in DECLARED if any(kind_of(name, mark) == "p" for name, mark in one.args)
]
ORDINARY = tuple(path for path in PATHS if path != b"fifo")
"""Nobody would come to the other end of a FIFO."""


def new_world(
    seed: str, root: MakeRoot | None = None, paths: tuple[bytes, ...] = PATHS
) -> tuple[World, Calls]:
    world = World(root, stepped=True)
    world.mount("proc", b"/proc")
    world.devices()
    world.mount("devpts", b"/dev/pts", "ptmxmode=0666")
    return world, Calls(world, seed, paths)


def attempts(declaration: Declaration) -> Iterator[int | None]:
    """None: a likely one; else a number of one by chance."""
    yield from [None] * len(LIKELY.get(declaration.name, ()))
    known = [len(numbers_of(mark.show)) for _, mark in declaration.args]
    commands = len(COMMANDS.get(declaration.name, ()))
    yield from range(TURNS + max(known, default=0) // 4 + commands)


def reads_of(declaration: Declaration, turning: Turning) -> set[str]:
    """Make the call many times: the arguments that were read."""
    world, calls = new_world(f"{SEED} {declaration.name}")
    found: set[str] = set()
    likely = 0
    try:
        for number in attempts(declaration):
            program = calls.program()
            if number is None:
                values = list(calls.likely(declaration.name, program))[likely]
                likely += 1
            else:
                values = calls.arguments(declaration, program)
            with turning.watching():
                call = program.begin(declaration.name.rstrip("_"), *values)
                world.settle()
                if not call.done:
                    world.loop.advance(SECOND_NS)
            allowed = SIZE_TWICE.get(declaration.name, 0)
            assert len(turning.twice) <= allowed, (declaration.name, values, turning.twice)
            for position, (name, _) in enumerate(declaration.args):
                if values[position] in turning.seen:
                    found.add(f"{declaration.name}.{name}")
            if calls.over:  # it has killed everybody
                world.abandon()
                world, calls = new_world(f"{SEED} {declaration.name} {number}")
            elif not program.task.dead:
                program.task.group.exit(9)
                world.settle()
    finally:
        world.abandon()
    return found


@pytest.mark.parametrize("first", range(0, len(DECLARED), 40))
def test_no_call_reads_a_byte_of_user_memory_twice(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    turning = Turning(monkeypatch)
    read: set[str] = set()
    inputs = set()
    for declaration in DECLARED[first : first + 40]:
        read |= reads_of(declaration, turning)
        inputs |= {
            f"{declaration.name}.{name}"
            for name, mark in declaration.args
            if any(word in mark.source for word in INPUTS)
        }

    assert inputs - read - NOT_READ == set(), "no attempt came to these: a row for likely.py"


@pytest.mark.parametrize("part", range(4))
def test_call_made_again_over_other_memory_ends_in_an_errno_or_a_number(
    part: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Over a Gofer a call is made again after each answer, and may find another struct."""
    turning = Turning(monkeypatch)
    monkeypatch.setattr(Session, "linger", lambda *_: None)  # nothing comes soon enough
    for name in ("proc", "dev"):
        (tmp_path / name).mkdir()
    root: MakeRoot = lambda world: world.export(tmp_path, exclusive=False)  # noqa: E731
    world, calls = new_world(f"{SEED} {part}", root, ORDINARY)
    again = 0
    with world:
        for declaration in WITH_PATHS[part::4]:
            for _ in range(TURNS):
                program = calls.program()
                values = calls.arguments(declaration, program)
                with turning.watching():
                    call = program.begin(declaration.name.rstrip("_"), *values)
                    again += not call.done
                    call.wait()
                if not program.task.dead:
                    program.task.group.exit(9)
    assert again > TURNS


@pytest.mark.parametrize("name", ["add_key", "request_key"])
def test_key_is_named_once_where_the_search_goes_on_later(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    turning = Turning(monkeypatch)
    monkeypatch.setattr(steps, "STEP_NS", -1)
    (declaration,) = (each for each in DECLARED if each.name == name)
    assert reads_of(declaration, turning)


def test_a_second_read_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    turning = Turning(monkeypatch)
    with World() as world:
        program = world.program()
        program.write(ARGUMENTS, b"text" + bytes(ROOM))
        with turning.watching():
            assert program.task.mm.read_path(ARGUMENTS) == b"text"
            assert not turning.twice
            assert program.task.mm.read(ARGUMENTS, 2) == bytes(byte ^ 0xFF for byte in b"te")
            assert turning.twice == {ARGUMENTS, ARGUMENTS + 1}
