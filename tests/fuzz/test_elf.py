"""No file makes execve(2) fail in another way than with an errno, or the death of the program.

A program that can run is changed: fields of its headers, bytes, its length, what #! names. It is
started by one world's program after the other, whose memory is then touched as its first
instructions would.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from sentry.abi.elf import EHDR, PF_R, PF_W, PF_X, PHDR, PT_INTERP, PT_LOAD
from sentry.abi.fcntl import O_CREAT, O_RDWR, O_TRUNC
from sentry.platform.interface import Reg
from tests.fuzz.inside import Inside
from tests.fuzz.running import bounded, explore, for_a_while, kept
from tests.fuzz.sockets import words
from tests.world import Died

CODE = 0x400000
TASK_SIZE = 0x7FFFFFE00000
EDGES = (
    0, 1, 0xFFF, 0x1000, 0x1001, 0x3000, CODE, CODE - 1, TASK_SIZE - 0x1000, TASK_SIZE, 1 << 47,
    (1 << 62) - 1, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 0x1000, (1 << 64) - 1,
)  # fmt: skip
Change = tuple[Any, ...]


def good(interpreter: bool) -> bytes:
    """A small program of a code and a data segment."""
    entries = [
        [PT_LOAD, PF_R | PF_X, 0, CODE, CODE, 0x1100, 0x1100, 0x1000],
        [PT_LOAD, PF_R | PF_W, 0x1100, CODE + 0x2100, 0, 0x80, 0x3000, 0x1000],
        [0x6474E551, PF_R | PF_W, 0, 0, 0, 0, 0, 16],
    ]
    if interpreter:
        entries.append([PT_INTERP, PF_R, 0x1000, 0, 0, 6, 6, 1])
    head = EHDR.pack(
        b"\x7fELF\2\1\1".ljust(16, b"\0"), 2, 62, 1, CODE + 0x1000, 64, 0, 0, 64, 56, len(entries),
        0, 0, 0,
    )  # fmt: skip
    table = b"".join(PHDR.pack(*entry) for entry in entries)
    return (head + table).ljust(0x1000, b"\0") + b"other\0".ljust(0x180, b"\xf4")


def changed(data: bytes, changes: list[Change]) -> bytes:
    """What `CHANGES` say."""
    for name, at, value in changes:
        if name == "header":
            offset, size = HEADER_FIELDS[at % len(HEADER_FIELDS)]
        elif name == "entry":
            entry, field = divmod(at, 8)
            offset, size = (
                64 + 56 * entry + (field * 4 if field < 2 else field * 8 - 8),
                4 if field < 2 else 8,
            )
        else:
            offset, size = at, 1
        if name == "length":
            data = data[:at].ljust(at, b"\0")
        else:
            part = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
            data = data[:offset].ljust(offset, b"\0") + part + data[offset + size :]
    return data


HEADER_FIELDS = (
    (16, 2),
    (18, 2),
    (20, 4),
    (24, 8),
    (32, 8),
    (40, 8),
    (48, 4),
    (52, 2),
    (54, 2),
    (56, 2),
    (58, 2),
)
"""From e_type on: offset and size."""
VALUES = st.sampled_from(EDGES) | words(8)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("header"), st.integers(0, 10), VALUES),
        st.tuples(st.just("entry"), st.integers(0, 31), VALUES),
        st.tuples(st.just("entry"), st.integers(0, 31), st.integers(0, 8)),
        st.tuples(st.just("byte"), st.integers(0, 0x1110), words(1)),
        st.tuples(
            st.just("length"),
            st.sampled_from([0, 1, 63, 64, 120, 0x1000, 0x1001, 0x10FF, 1 << 16]),
            st.just(0),
        ),
    ),
    max_size=5,
)
SCRIPT = st.builds(
    lambda line, rest: b"#!" + line + rest,
    st.sampled_from(
        [
            b"/p",
            b" /other -x",
            b"/p\t\xff",
            b"",
            b" ",
            b"other\n",
            b"/" * 300,
            b"/p" + b" " * 260,
            b"/none",
        ]
    ),
    st.sampled_from([b"\n", b"", b"\0", b"\n\n", b"\r\n"]),
)
PROGRAM = (
    SCRIPT
    | st.binary(max_size=200)
    | st.builds(lambda i, c: changed(good(i), c), st.booleans(), CHANGES)
)
STRINGS = st.lists(st.sampled_from([b"", b"x", b"x" * 5000, b"\xff=\0"]), max_size=4)


def check(program: bytes, other: bytes, arguments: list[bytes], environment: list[bytes]) -> None:
    with Inside() as inside:
        first = inside.first
        for path, data in ((b"/p", program), (b"/other", other)):
            fd = first.ok("open", path, O_CREAT | O_RDWR | O_TRUNC, 0o755)
            first.ok("write", fd, data, len(data))
            first.ok("close", fd)
        words_at = [inside.program.place(b"".join(
            inside.program.place(text + b"\0").to_bytes(8, "little") for text in texts
        ) + bytes(8)) for texts in (arguments, environment)]  # fmt: skip
        runner = inside.program
        inside.call("execve", b"/p", *words_at)
        if runner.task.dead:
            return
        try:
            for reg in (Reg.RIP, Reg.RSP):
                with bounded(reg):
                    runner.read(runner.context.regs[reg], 8)
            inside.call("brk", 0)
            inside.call("open", 0, 0)
        except Died:
            pass


@for_a_while()
def test_files_are_started_or_refused(seconds: float) -> None:
    explore(seconds, check, program=PROGRAM, other=PROGRAM, arguments=STRINGS, environment=STRINGS)


@kept("elf")
def test_kept_case_is_started_or_refused(case: list[Any]) -> None:
    check(*case)
