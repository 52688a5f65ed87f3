"""Runs checked programs.

Linux translates classic BPF for its eBPF machine (bpf_convert_filter); the results are the same:
32-bit arithmetic, a division by zero or a load beyond the packet ends the program with 0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from sentry.bpf import isa
from sentry.bpf.isa import ALU, JMP, LD, LDX, MISC, RET, ST, STX, Program

_MASK: Final = 0xFFFFFFFF
_DATA = struct.Struct("<iIQ6Q")
_WORDS = struct.Struct("<16I")

Load = Callable[[int, int], int | None]
"""(offset, bytes) → value, None beyond the end."""


def seccomp_data(number: int, arch: int, ip: int, arguments: tuple[int, ...]) -> tuple[int, ...]:
    """struct seccomp_data as the 16 words that a filter can load."""
    return _WORDS.unpack(_DATA.pack(number, arch, ip, *arguments))


def run_seccomp(program: Program, words: tuple[int, ...]) -> int:
    """Run a program that `check_seccomp` gave over `seccomp_data`."""

    def load(offset: int, size: int) -> int:
        return words[offset >> 2]

    return _run(program, load, 64)


def depends_on_arguments(program: Program, words: tuple[int, ...]) -> tuple[int, bool]:
    """Run, and say whether anything but the number and the architecture was looked at.

    If not, the result holds for every call with this number (Linux: seccomp_cache_prepare).
    """
    looked = False

    def load(offset: int, size: int) -> int:
        nonlocal looked
        looked = looked or offset >= 8
        return words[offset >> 2]

    return _run(program, load, 64), looked


def run_packet(program: Program, packet: bytes) -> int:
    """Run a program that `check` accepted over a packet; multi-byte loads are big-endian."""

    def load(offset: int, size: int) -> int | None:
        if offset + size > len(packet):
            return None
        return int.from_bytes(packet[offset : offset + size], "big")

    return _run(program, load, len(packet))


def _alu(operation: int, a: int, b: int) -> int | None:
    """One arithmetic instruction; None where it divides by zero."""
    match operation:
        case isa.ADD:
            return a + b & _MASK
        case isa.SUB:
            return a - b & _MASK
        case isa.MUL:
            return a * b & _MASK
        case isa.DIV:
            return a // b if b else None
        case isa.MOD:
            return a % b if b else None
        case isa.OR:
            return a | b
        case isa.AND:
            return a & b
        case isa.XOR:
            return a ^ b
        case isa.LSH:
            return a << (b & 31) & _MASK
        case isa.RSH:
            return a >> (b & 31)
    return -a & _MASK  # NEG


def _holds(operation: int, a: int, b: int) -> bool:
    match operation:
        case isa.JEQ:
            return a == b
        case isa.JGT:
            return a > b
        case isa.JGE:
            return a >= b
    return bool(a & b)  # JSET


_SIZES = {isa.W: 4, isa.H: 2, isa.B: 1}


def _load(code: int, k: int, x: int, memory: list[int], load: Load, length: int) -> int | None:
    """The value of an LD or LDX."""
    match code & 0xE0:
        case isa.IMM:
            return k
        case isa.MEM:
            return memory[k]
        case isa.LEN:
            return length
        case isa.MSH:
            value = load(k, 1)
            return None if value is None else (value & 0xF) << 2
        case isa.IND:
            return load(x + k & _MASK, _SIZES[code & 0x18])
    return load(k, _SIZES[code & 0x18])


def _run(program: Program, load: Load, length: int) -> int:
    a = x = pc = 0
    memory = [0] * isa.MEMORY_WORDS
    while True:
        code, jt, jf, k = program[pc]
        pc += 1
        kind = code & 0x07
        if kind == JMP:
            if code & 0xF0 == isa.JA:
                pc += k
            else:
                pc += jt if _holds(code & 0xF0, a, x if code & isa.X else k) else jf
        elif kind == RET:
            return a if code & 0x18 == isa.A else k
        elif kind in (LD, LDX):
            value = _load(code, k, x, memory, load, length)
            if value is None:
                return 0
            if kind == LD:
                a = value
            else:
                x = value
        elif kind == ALU:
            result = _alu(code & 0xF0, a, x if code & isa.X else k)
            if result is None:
                return 0
            a = result
        elif kind == MISC:
            if code & 0xF8 == isa.TAX:
                x = a
            else:
                a = x
        elif kind == ST:
            memory[k] = a
        elif kind == STX:
            memory[k] = x
