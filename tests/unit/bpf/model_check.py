"""Which programs Linux accepts: bpf_check_classic and seccomp_check_filter."""

from __future__ import annotations

from typing import Final

from sentry.bpf import isa
from sentry.bpf.isa import ABS, ALU, JMP, LD, LDX, MISC, RET, ST, STX, Instruction, K, Program, X
from sentry.errors import EINVAL

SECCOMP_DATA_SIZE: Final = 64
_ANCILLARY = 0xFFFFF000
"""SKF_AD_OFF as the unsigned operand of an absolute load."""
_LAST_ANCILLARY = 60
"""SKF_AD_VLAN_TPID; all offsets below are known, in steps of 4."""

_JUMPS = {JMP | op | source for op in (isa.JEQ, isa.JGT, isa.JGE, isa.JSET) for source in (K, X)}
_LOADS = {LD | mode | size for mode in (ABS, isa.IND) for size in (isa.W, isa.H, isa.B)}
_COMMON = (
    {
        ALU | op | source
        for op in (
            isa.ADD, isa.SUB, isa.MUL, isa.DIV, isa.OR, isa.AND, isa.LSH, isa.RSH, isa.XOR,
        )
        for source in (K, X)
    }
    | _JUMPS
    | {ALU | isa.NEG, LD | isa.IMM, LDX | isa.IMM, LD | isa.MEM, LDX | isa.MEM, ST, STX}
    | {JMP | isa.JA, RET | K, RET | isa.A, MISC | isa.TAX, MISC | isa.TXA}
    | {LD | isa.LEN, LDX | isa.LEN}
)  # fmt: skip
_CLASSIC = _COMMON | _LOADS | {ALU | isa.MOD | K, ALU | isa.MOD | X, LDX | isa.MSH | isa.B}
_SECCOMP = _COMMON | {LD | ABS | isa.W}
_MEMORY = {LD | isa.MEM, LDX | isa.MEM, ST, STX}


def _operand(program: Program, pc: int) -> bool:
    """Whether the operands of one instruction are within bounds."""
    code, jt, jf, k = program[pc]
    length = len(program)
    if code in (ALU | isa.DIV | K, ALU | isa.MOD | K):
        return k != 0
    if code in (ALU | isa.LSH | K, ALU | isa.RSH | K):
        return k < 32
    if code in _MEMORY:
        return k < isa.MEMORY_WORDS
    if code == JMP | isa.JA:
        return k < length - pc - 1
    if code in _JUMPS:
        return pc + jt + 1 < length and pc + jf + 1 < length
    if code in _LOADS and code & 0xE0 == ABS and k >= _ANCILLARY:
        return k - _ANCILLARY <= _LAST_ANCILLARY and k % 4 == 0
    return True


def _memory_is_written_first(program: Program) -> bool:
    """check_load_and_stores: no path reads a word of scratch memory that it has not written."""
    everything = 0xFFFF
    valid_at = [everything] * len(program)
    valid = 0
    for pc, (code, jt, jf, k) in enumerate(program):
        valid &= valid_at[pc]
        if code in (ST, STX):
            valid |= 1 << k
        elif code in (LD | isa.MEM, LDX | isa.MEM):
            if not valid & 1 << k:
                return False
        elif code == JMP | isa.JA:
            valid_at[pc + 1 + k] &= valid
            valid = everything
        elif code in _JUMPS:
            valid_at[pc + 1 + jt] &= valid
            valid_at[pc + 1 + jf] &= valid
            valid = everything
    return True


def check(program: Program, codes: frozenset[int] = frozenset(_CLASSIC)) -> Program:
    """bpf_check_classic, net/core/filter.c. Raises: EINVAL."""
    if not 0 < len(program) <= isa.MAX_INSTRUCTIONS:
        raise EINVAL(f"a program of {len(program)} instructions")
    for pc, instruction in enumerate(program):
        if instruction.code not in codes or not _operand(program, pc):
            raise EINVAL(f"instruction {pc}: {instruction}")
    if program[-1].code not in (RET | K, RET | isa.A):
        raise EINVAL("the last instruction does not return")
    if not _memory_is_written_first(program):
        raise EINVAL("scratch memory is read before it is written")
    return program


def check_seccomp(program: Program) -> Program:
    """seccomp_check_filter, kernel/seccomp.c: only aligned words of seccomp_data can be loaded.

    Loads of the length become constants, as there. Raises: EINVAL.
    """
    check(program)
    made = []
    for pc, instruction in enumerate(program):
        code, _, _, k = instruction
        if code not in _SECCOMP:
            raise EINVAL(f"instruction {pc}: {instruction} is not for seccomp")
        if code == LD | ABS | isa.W and (k >= SECCOMP_DATA_SIZE or k & 3):
            raise EINVAL(f"instruction {pc}: load at {k}")
        if code in (LD | isa.LEN, LDX | isa.LEN):
            made.append(Instruction(code & 0x07 | isa.IMM, 0, 0, SECCOMP_DATA_SIZE))
        else:
            made.append(instruction)
    return tuple(made)
