from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sentry.bpf import isa
from sentry.bpf.check import check, check_seccomp
from sentry.bpf.interpreter import depends_on_arguments, run_packet, run_seccomp, seccomp_data
from sentry.bpf.isa import Instruction
from sentry.errors import EINVAL
from tests.unit.bpf import host_filter

ARITHMETIC = [
    isa.ALU | op | source
    for op in (isa.ADD, isa.SUB, isa.MUL, isa.DIV, isa.MOD, isa.OR, isa.AND, isa.XOR, isa.NEG)
    for source in (isa.K, isa.X)
]
SHIFTS = [isa.ALU | isa.LSH | isa.K, isa.ALU | isa.RSH | isa.K]
JUMPS = [
    isa.JMP | op | source
    for op in (isa.JEQ, isa.JGT, isa.JGE, isa.JSET)
    for source in (isa.K, isa.X)
]
LOADS = [isa.LD | mode | size for mode in (isa.ABS, isa.IND) for size in (isa.W, isa.H, isa.B)]
OTHER = [isa.LD | isa.IMM, isa.LDX | isa.IMM, isa.LD | isa.LEN, isa.LDX | isa.MSH | isa.B,
         isa.MISC | isa.TAX, isa.MISC | isa.TXA, isa.ST, isa.STX, isa.LD | isa.MEM]  # fmt: skip
NUMBERS = st.one_of(st.integers(0, 40), st.integers(0, 0xFFFFFFFF))
STEPS = st.one_of(
    st.builds(Instruction, st.sampled_from(ARITHMETIC), st.just(0), st.just(0), NUMBERS),
    st.builds(Instruction, st.sampled_from(SHIFTS), st.just(0), st.just(0), st.integers(0, 31)),
    st.builds(Instruction, st.sampled_from(JUMPS), st.integers(0, 3), st.integers(0, 3), NUMBERS),
    st.builds(Instruction, st.sampled_from(LOADS), st.just(0), st.just(0), st.integers(0, 40)),
    st.builds(Instruction, st.sampled_from(OTHER), st.just(0), st.just(0), st.integers(0, 15)),
)
RETURN_A = Instruction(isa.RET | isa.A, 0, 0, 0)
PROGRAMS = st.lists(STEPS, min_size=1, max_size=12).map(lambda body: (*body, RETURN_A))


@settings(max_examples=500, deadline=None)
@given(PROGRAMS, st.binary(min_size=1, max_size=48))
def test_run_packet_lets_through_what_linux_lets_through(
    program: isa.Program, packet: bytes
) -> None:
    try:
        check(program)
    except EINVAL:
        assume(False)

    assert min(run_packet(program, packet), len(packet)) == host_filter.passed_length(
        program, packet
    )


def test_run_seccomp_loads_arguments_in_little_endian_halves() -> None:
    data = seccomp_data(39, 0xC000003E, 0x1122334455667788, (1, 2, 0xAABBCCDD00000001, 4, 5, 6))

    def at(offset: int) -> int:
        return run_seccomp((Instruction(isa.LD | isa.ABS | isa.W, 0, 0, offset), RETURN_A), data)

    assert [at(0), at(4), at(8), at(12)] == [39, 0xC000003E, 0x55667788, 0x11223344]
    assert [at(32), at(36)] == [1, 0xAABBCCDD]


def test_run_seccomp_of_length_gives_the_size_of_seccomp_data() -> None:
    program = check_seccomp((Instruction(isa.LD | isa.LEN, 0, 0, 0), RETURN_A))

    assert run_seccomp(program, seccomp_data(0, 0, 0, (0,) * 6)) == 64


def test_depends_on_arguments_is_told_by_the_path_taken() -> None:
    program = check_seccomp(
        (
            Instruction(isa.LD | isa.ABS | isa.W, 0, 0, 0),
            Instruction(isa.JMP | isa.JEQ | isa.K, 1, 0, 16),
            Instruction(isa.RET | isa.K, 0, 0, 1),
            Instruction(isa.LD | isa.ABS | isa.W, 0, 0, 24),
            RETURN_A,
        )
    )

    assert depends_on_arguments(program, seccomp_data(1, 0, 0, (0,) * 6)) == (1, False)
    assert depends_on_arguments(program, seccomp_data(16, 0, 0, (0, 9) + (0,) * 4)) == (9, True)
