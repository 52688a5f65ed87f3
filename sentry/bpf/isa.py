"""The classic BPF instruction: struct sock_filter of <linux/filter.h>, codes of bpf_common.h."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from sentry.abi.layout import Record

# classes
LD: Final = 0x00
LDX: Final = 0x01
ST: Final = 0x02
STX: Final = 0x03
ALU: Final = 0x04
JMP: Final = 0x05
RET: Final = 0x06
MISC: Final = 0x07
# sizes of loads
W: Final = 0x00
H: Final = 0x08
B: Final = 0x10
# modes of loads
IMM: Final = 0x00
ABS: Final = 0x20
IND: Final = 0x40
MEM: Final = 0x60
LEN: Final = 0x80
MSH: Final = 0xA0
# operations of ALU
ADD: Final = 0x00
SUB: Final = 0x10
MUL: Final = 0x20
DIV: Final = 0x30
OR: Final = 0x40
AND: Final = 0x50
LSH: Final = 0x60
RSH: Final = 0x70
NEG: Final = 0x80
MOD: Final = 0x90
XOR: Final = 0xA0
# operations of JMP
JA: Final = 0x00
JEQ: Final = 0x10
JGT: Final = 0x20
JGE: Final = 0x30
JSET: Final = 0x40
# source of the second operand, of the returned value
K: Final = 0x00
X: Final = 0x08
A: Final = 0x10
# MISC
TAX: Final = 0x00
TXA: Final = 0x80

MAX_INSTRUCTIONS: Final = 4096
"""BPF_MAXINSNS."""
MEMORY_WORDS: Final = 16
"""BPF_MEMWORDS."""

_FORMAT = struct.Struct("<HBBI")
INSTRUCTION_SIZE: Final = _FORMAT.size


class Instruction(Record):
    """struct sock_filter: code, jump if true, jump if false, operand."""

    code: int
    jt: int
    jf: int
    k: int


Program = tuple[Instruction, ...]


def pack(program: Iterable[Instruction]) -> bytes:
    """An array of struct sock_filter."""
    return b"".join(_FORMAT.pack(*instruction) for instruction in program)


def unpack(data: bytes) -> Program:
    """Preconditions: the length is a multiple of 8."""
    return tuple(Instruction(*fields) for fields in _FORMAT.iter_unpack(data))
