"""Hostile programs for the tests: whatever Linux may accept, and what it does not."""

from __future__ import annotations

from hypothesis import strategies as st

from sentry.bpf import isa
from sentry.bpf.isa import Instruction

ARITHMETIC = [
    isa.ALU | op | source
    for op in (
        isa.ADD, isa.SUB, isa.MUL, isa.DIV, isa.MOD, isa.OR, isa.AND, isa.XOR, isa.LSH, isa.RSH,
    )
    for source in (isa.K, isa.X)
]  # fmt: skip
JUMPS = [
    isa.JMP | op | source
    for op in (isa.JEQ, isa.JGT, isa.JGE, isa.JSET)
    for source in (isa.K, isa.X)
]
LOADS = [isa.LD | mode | size for mode in (isa.ABS, isa.IND) for size in (isa.W, isa.H, isa.B)]
OTHER = [
    isa.LD | isa.IMM, isa.LDX | isa.IMM, isa.LD | isa.LEN, isa.LDX | isa.LEN,
    isa.LDX | isa.MSH | isa.B, isa.MISC | isa.TAX, isa.MISC | isa.TXA, isa.ST, isa.STX,
    isa.LD | isa.MEM, isa.LDX | isa.MEM, isa.ALU | isa.NEG, isa.RET | isa.K, isa.RET | isa.A,
    isa.JMP | isa.JA,
]  # fmt: skip
CODES = [*ARITHMETIC, *JUMPS, *LOADS, *OTHER]
NET, LINK, ANCILLARY = 0xFFF00000, 0xFFE00000, 0xFFFFF000
SAME_EVERYWHERE = [0, 4, 8, 12, 16, 20, 28, 40, 44, 48, 52, 60]
"""SKF_AD_* that are known of a datagram between Unix sockets: not CPU, queue, hash, random."""
OFFSETS = st.one_of(
    st.integers(0, 60),
    st.sampled_from([0x7FFFFFFF, 0x7FFFFFFC, 0x80000000, LINK, LINK + 3, NET - 1, NET, 0xFFFEFFFF]),
    st.integers(NET, NET + 60),
    st.sampled_from([ANCILLARY + at for at in SAME_EVERYWHERE]),
)
NUMBERS = st.one_of(st.integers(0, 40), OFFSETS, st.integers(0, 0xFFFFFFFF))
_ZERO = st.just(0)
STEPS = st.one_of(
    st.builds(Instruction, st.sampled_from(ARITHMETIC), _ZERO, _ZERO, NUMBERS),
    st.builds(Instruction, st.sampled_from(JUMPS), st.integers(0, 3), st.integers(0, 3), NUMBERS),
    st.builds(Instruction, st.sampled_from(LOADS), _ZERO, _ZERO, OFFSETS),
    st.builds(Instruction, st.sampled_from(OTHER), _ZERO, _ZERO, st.integers(0, 15)),
)
RETURN_A = Instruction(isa.RET | isa.A, 0, 0, 0)
SENSIBLE = st.lists(STEPS, min_size=1, max_size=14).map(lambda body: (*body, RETURN_A))

_ANY_OPERAND = st.one_of(
    st.integers(0, 70),
    st.sampled_from([ANCILLARY + 0x40, ANCILLARY + 1, ANCILLARY - 1, ANCILLARY + 0x3C]),
    st.integers(0, 0xFFFFFFFF),
)
_ANY_CODE = st.one_of(st.sampled_from(CODES), st.integers(0, 0xFFFF))
_ANY = st.builds(Instruction, _ANY_CODE, st.integers(0, 4), st.integers(0, 4), _ANY_OPERAND)
ANYTHING = st.lists(_ANY, max_size=6).map(lambda body: (*body, Instruction(isa.RET, 0, 0, 5)))

_WORD_OFFSETS = st.integers(0, 15).map(lambda word: word * 4)
FOR_CALLS = st.lists(
    st.one_of(
        st.builds(Instruction, st.just(isa.LD | isa.ABS), _ZERO, _ZERO, _WORD_OFFSETS),
        STEPS.filter(lambda step: step.code not in LOADS),
    ),
    max_size=12,
).map(lambda body: (*body, RETURN_A))
