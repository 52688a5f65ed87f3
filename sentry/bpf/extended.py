"""Extended BPF, as far as filters for devices of cgroups need it: checked, then run.

Documentation/bpf/standardization/instruction-set.rst, kernel/bpf/verifier.c. It is a part
of what Linux takes: registers, constants, loads from struct bpf_cgroup_dev_ctx, jumps forward; no
stack, no map, no helper, no loop. Where two ways meet, a register counts as set if it is on both.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from sentry.abi import bpf as abi
from sentry.errors import E2BIG, EACCES, EINVAL

INSTRUCTION_SIZE: Final = 8
REGISTERS: Final = 11
FRAME: Final = 10
"""R10, which cannot be written."""
ALL: Final = (1 << 64) - 1
LOW: Final = (1 << 32) - 1
LOAD_64: Final = abi.BPF_LD | abi.BPF_IMM | abi.BPF_DW
EXIT: Final = abi.BPF_JMP | abi.BPF_EXIT
ALWAYS: Final = abi.BPF_JMP | abi.BPF_JA
WIDTHS: Final = {abi.BPF_B: 1, abi.BPF_H: 2, abi.BPF_W: 4}
_FORMAT: Final = struct.Struct("<BBhi")
UNSET, NUMBER, CONTEXT, POINTER = range(4)
"""What a register holds."""


class Instruction(NamedTuple):
    """struct bpf_insn."""

    code: int
    to: int
    by: int
    offset: int
    number: int


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _divided(a: int, b: int, bits: int) -> int:
    return a // b if b else 0


def _rest(a: int, b: int, bits: int) -> int:
    return a % b if b else a


ARITHMETIC: Final[dict[int, Callable[[int, int, int], int]]] = {
    abi.BPF_ADD: lambda a, b, bits: a + b,
    abi.BPF_SUB: lambda a, b, bits: a - b,
    abi.BPF_MUL: lambda a, b, bits: a * b,
    abi.BPF_DIV: _divided,
    abi.BPF_OR: lambda a, b, bits: a | b,
    abi.BPF_AND: lambda a, b, bits: a & b,
    abi.BPF_LSH: lambda a, b, bits: a << (b & bits - 1),
    abi.BPF_RSH: lambda a, b, bits: a >> (b & bits - 1),
    abi.BPF_NEG: lambda a, b, bits: -a,
    abi.BPF_MOD: _rest,
    abi.BPF_XOR: lambda a, b, bits: a ^ b,
    abi.BPF_MOV: lambda a, b, bits: b,
    abi.BPF_ARSH: lambda a, b, bits: _signed(a, bits) >> (b & bits - 1),
}
"""Without a sign, and cut to `bits` afterwards."""
SHIFTS: Final = (abi.BPF_LSH, abi.BPF_RSH, abi.BPF_ARSH)
COMPARISONS: Final[dict[int, Callable[[int, int], bool]]] = {
    abi.BPF_JEQ: operator.eq, abi.BPF_JNE: operator.ne,
    abi.BPF_JGT: operator.gt, abi.BPF_JGE: operator.ge,
    abi.BPF_JLT: operator.lt, abi.BPF_JLE: operator.le,
    abi.BPF_JSET: lambda a, b: bool(a & b),
}  # fmt: skip
SIGNED: Final[dict[int, Callable[[int, int], bool]]] = {
    abi.BPF_JSGT: operator.gt, abi.BPF_JSGE: operator.ge,
    abi.BPF_JSLT: operator.lt, abi.BPF_JSLE: operator.le,
}  # fmt: skip


class DeviceFilter:
    """A program that has been checked; of another kind than BPF_PROG_TYPE_CGROUP_DEVICE it may load
    nothing."""

    __slots__ = ("_program", "data", "kind")

    def __init__(self, data: bytes, kind: int = abi.BPF_PROG_TYPE_CGROUP_DEVICE) -> None:
        """Raises: E2BIG, EINVAL, EACCES, which say what is wrong and where."""
        if not 0 < len(data) <= abi.BPF_MAXINSNS * INSTRUCTION_SIZE:
            raise E2BIG(f"{len(data)} bytes")
        self.data = data
        self.kind = kind
        self._program = tuple(
            Instruction(code, registers & 15, registers >> 4, offset, number)
            for code, registers, offset, number in _FORMAT.iter_unpack(data)
        )
        _check(self._program, CONTEXT if kind == abi.BPF_PROG_TYPE_CGROUP_DEVICE else POINTER)

    def __len__(self) -> int:
        return len(self._program)

    def run(self, context: bytes) -> tuple[int, int]:
        """What it gives for a struct bpf_cgroup_dev_ctx, and how many instructions that took."""
        program, registers, at, taken = self._program, [0] * REGISTERS, 0, 0
        while True:
            code, to, by, offset, number = program[at]
            kind = code & 7
            at += 1
            taken += 1
            if code == EXIT:
                return registers[0], taken
            if kind == abi.BPF_LDX:
                size = WIDTHS[code & 0x18]
                registers[to] = int.from_bytes(context[offset : offset + size], "little")
            elif code == LOAD_64:
                registers[to] = number & LOW | (program[at].number & LOW) << 32
                at += 1
            elif code == ALWAYS:
                at += offset
            else:
                bits = 64 if kind in (abi.BPF_ALU64, abi.BPF_JMP) else 32
                mask = ALL if bits == 64 else LOW
                other = (registers[by] if code & abi.BPF_X else number) & mask
                own, what = registers[to] & mask, code & 0xF0
                if kind in (abi.BPF_ALU, abi.BPF_ALU64):
                    registers[to] = ARITHMETIC[what](own, other, bits) & mask
                elif what in SIGNED:
                    at += offset if SIGNED[what](_signed(own, bits), _signed(other, bits)) else 0
                elif COMPARISONS[what](own, other):
                    at += offset


def _check(program: tuple[Instruction, ...], context: int) -> None:
    """Jumps go forward only, so one look at each instruction is enough."""
    known: list[list[int] | None] = [None] * len(program)
    start = [UNSET] * REGISTERS
    start[1], start[FRAME] = context, POINTER
    known[0] = start
    second = False
    for at, each in enumerate(program):
        if second:  # the other half of a load of 64 bits
            second = False
            if known[at] is not None:
                raise EINVAL(f"{at}: a jump into the middle of ldimm64")
            continue
        state = known[at]
        if state is None:
            raise EINVAL(f"unreachable insn {at}")
        second = each.code == LOAD_64
        state = list(state)
        for target in _step(at, each, program, state):
            if not at < target < len(program):
                raise EINVAL(f"{at}: jump out of range, or back, to {target}")
            there = known[target]
            known[target] = state if there is None else [
                one if one == other else UNSET for one, other in zip(there, state, strict=True)
            ]  # fmt: skip


def _step(
    at: int, each: Instruction, program: tuple[Instruction, ...], state: list[int]
) -> tuple[int, ...]:
    """Where it goes on; `state` is as it is then. Raises: EINVAL, EACCES."""
    code, to, by, offset, number = each
    if to >= REGISTERS or by >= REGISTERS:
        raise EINVAL(f"{at}: no such register")
    if code == EXIT:
        _need(at, to or by or offset or number, "reserved fields")
        _need_number(at, state, 0)
        return ()
    if code == ALWAYS:
        _need(at, to or by or number, "reserved fields")
        return (at + 1 + offset,)
    if code == LOAD_64:
        rest = program[at + 1] if at + 1 < len(program) else None
        if rest is None or rest[:4] != (0, 0, 0, 0) or by or offset:
            raise EINVAL(f"{at}: invalid BPF_LD_IMM insn")
        _set(at, state, to, NUMBER)
        return (at + 2,)
    kind = code & 7
    if kind == abi.BPF_LDX:
        _check_load(at, each, state)
        _set(at, state, to, NUMBER)
        return (at + 1,)
    if kind in (abi.BPF_ALU, abi.BPF_ALU64):
        _check_arithmetic(at, each, state)
        return (at + 1,)
    if kind in (abi.BPF_JMP, abi.BPF_JMP32):
        _check_comparison(at, each, state)
        return (at + 1, at + 1 + offset)
    raise EINVAL(f"{at}: opcode {code:02x} is not there")


def _need(at: int, bad: int, what: str) -> None:
    if bad:
        raise EINVAL(f"{at}: {what}")


def _need_number(at: int, state: list[int], register: int) -> None:
    if state[register] == UNSET:
        raise EACCES(f"{at}: R{register} !read_ok")
    if state[register] != NUMBER:
        raise EACCES(f"{at}: R{register} is a pointer")


def _set(at: int, state: list[int], register: int, what: int) -> None:
    if register == FRAME:
        raise EACCES(f"{at}: frame pointer is read only")
    state[register] = what


def _check_load(at: int, each: Instruction, state: list[int]) -> None:
    """cgroup_dev_is_valid_access(): of the first word also a part."""
    size = WIDTHS.get(each.code & 0x18, 8)
    if each.code & 0xE0 != abi.BPF_MEM or each.number:
        raise EINVAL(f"{at}: reserved fields")
    if state[each.by] == UNSET:
        raise EACCES(f"{at}: R{each.by} !read_ok")
    if state[each.by] != CONTEXT:
        raise EACCES(f"{at}: R{each.by} invalid mem access")
    inside = 0 <= each.offset <= abi.BPF_CGROUP_DEV_CTX.size - size and not each.offset % size
    if not inside or size > 4 or (each.offset >= 4 and size != 4):
        raise EACCES(f"{at}: invalid bpf_context access off={each.offset} size={size}")


def _check_operand(at: int, each: Instruction, state: list[int]) -> None:
    if each.code & abi.BPF_X:
        _need(at, each.number, "reserved fields")
        _need_number(at, state, each.by)
    else:
        _need(at, each.by, "reserved fields")


def _check_arithmetic(at: int, each: Instruction, state: list[int]) -> None:
    """check_alu_op()."""
    code, what, bits = each.code, each.code & 0xF0, 64 if each.code & 7 == abi.BPF_ALU64 else 32
    if what not in ARITHMETIC:
        raise EINVAL(f"{at}: opcode {code:02x} is not there")
    _need(at, each.offset, "reserved fields")
    if code == abi.BPF_ALU64 | abi.BPF_MOV | abi.BPF_X and state[each.by] > NUMBER:
        _need(at, each.number, "reserved fields")
        _set(at, state, each.to, state[each.by])
        return
    if what == abi.BPF_NEG:
        _need(at, code & abi.BPF_X or each.by or each.number, "reserved fields")
    else:
        _check_operand(at, each, state)
    if what != abi.BPF_MOV:
        _need_number(at, state, each.to)
    if not code & abi.BPF_X:
        _need(at, what in (abi.BPF_DIV, abi.BPF_MOD) and not each.number, "div by zero")
        _need(at, what in SHIFTS and not 0 <= each.number < bits, "invalid shift")
    _set(at, state, each.to, NUMBER)


def _check_comparison(at: int, each: Instruction, state: list[int]) -> None:
    """check_cond_jmp_op()."""
    what = each.code & 0xF0
    if what not in COMPARISONS and what not in SIGNED:
        raise EINVAL(f"{at}: opcode {each.code:02x} is not there")
    _check_operand(at, each, state)
    _need_number(at, state, each.to)
