from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentry.bpf import isa
from sentry.bpf.check import check, check_seccomp
from sentry.bpf.isa import Instruction
from sentry.errors import EINVAL
from tests.unit.bpf import host_filter

CODES = st.one_of(st.sampled_from(sorted({0x20, 0x28, 0x30, 0x40, 0x50, 0, 1, 2, 3, 0x60, 0x61,
    0x80, 0x81, 0xB1, 0x04, 0x0C, 0x34, 0x94, 0x64, 0x74, 0x84, 0x05, 0x15, 0x1D, 0x25, 0x35,
    0x45, 0x06, 0x16, 0x07, 0x87})), st.integers(0, 0xFFFF))  # fmt: skip
OPERANDS = st.one_of(
    st.integers(0, 70),
    st.sampled_from([0xFFFFF000, 0xFFFFF004, 0xFFFFF03C, 0xFFFFF040, 0xFFFFF001, 0xFFFFEFFF]),
    st.integers(0, 0xFFFFFFFF),
)
INSTRUCTIONS = st.builds(Instruction, CODES, st.integers(0, 4), st.integers(0, 4), OPERANDS)
PROGRAMS = st.lists(INSTRUCTIONS, min_size=0, max_size=6).map(
    lambda body: (*body, Instruction(isa.RET | isa.K, 0, 0, 5))
)


def _accepted(program: isa.Program) -> bool:
    try:
        check(program)
    except EINVAL:
        return False
    return True


@settings(max_examples=400, deadline=None)
@given(PROGRAMS)
def test_check_agrees_with_linux_on_socket_filters(program: isa.Program) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        assert _accepted(program) == host_filter.attach(sock, program)


def _linux_accepts_for_seccomp(programs: list[isa.Program]) -> list[bool]:
    """One child a program: installing it may be the last thing the child does."""
    from runsc import host  # noqa: PLC0415

    results = []
    for program in programs:
        pid = os.fork()
        if pid == 0:
            code = 0
            try:
                host.prctl(38, 1)
                host.install_filter(isa.pack(program), 0)
            except OSError:
                code = 1
            finally:
                os._exit(code)
        status = os.waitpid(pid, 0)[1]
        results.append(status != 1 << 8)
    return results


RETURN = Instruction(isa.RET | isa.K, 0, 0, 0x7FFF0000)


@pytest.mark.parametrize(
    "first",
    [
        Instruction(isa.LD | isa.ABS | isa.W, 0, 0, 0),
        Instruction(isa.LD | isa.ABS | isa.W, 0, 0, 60),
        Instruction(isa.LD | isa.ABS | isa.W, 0, 0, 64),
        Instruction(isa.LD | isa.ABS | isa.W, 0, 0, 2),
        Instruction(isa.LD | isa.ABS | isa.H, 0, 0, 0),
        Instruction(isa.LD | isa.IND | isa.W, 0, 0, 0),
        Instruction(isa.LD | isa.LEN, 0, 0, 0),
        Instruction(isa.LDX | isa.LEN, 0, 0, 0),
        Instruction(isa.LDX | isa.MSH | isa.B, 0, 0, 0),
        Instruction(isa.ALU | isa.MOD | isa.K, 0, 0, 3),
        Instruction(isa.ALU | isa.DIV | isa.K, 0, 0, 3),
        Instruction(isa.ALU | isa.DIV | isa.K, 0, 0, 0),
        Instruction(isa.ALU | isa.LSH | isa.K, 0, 0, 32),
        Instruction(isa.ALU | isa.XOR | isa.X, 0, 0, 0),
        Instruction(isa.ALU | isa.NEG, 0, 0, 0),
        Instruction(isa.LD | isa.MEM, 0, 0, 0),
        Instruction(isa.ST, 0, 0, 15),
        Instruction(isa.ST, 0, 0, 16),
        Instruction(isa.JMP | isa.JSET | isa.X, 0, 0, 0),
        Instruction(isa.JMP | isa.JEQ | isa.K, 1, 0, 0),
        Instruction(isa.JMP | isa.JA, 0, 0, 1),
    ],
)  # fmt: skip
def test_check_seccomp_agrees_with_linux(first: Instruction) -> None:
    program = (first, RETURN)
    try:
        check_seccomp(program)
        ours = True
    except EINVAL:
        ours = False

    assert [ours] == _linux_accepts_for_seccomp([program])


def test_check_of_program_that_is_too_long_or_empty_is_refused() -> None:
    for program in ((), (RETURN,) * 4097):
        with pytest.raises(EINVAL):
            check(program)
    assert check((RETURN,) * 4096)


def test_check_of_memory_written_on_one_path_only_is_refused() -> None:
    program = (
        Instruction(isa.JMP | isa.JEQ | isa.K, 0, 1, 3),
        Instruction(isa.ST, 0, 0, 2),
        Instruction(isa.LD | isa.MEM, 0, 0, 2),
        RETURN,
    )

    with pytest.raises(EINVAL, match="scratch memory"):
        check(program)
