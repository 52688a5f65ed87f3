"""Signal frames in memory and back, against the layout of <asm/sigcontext.h>."""

from __future__ import annotations

import struct

import pytest

from sentry.abi.signal import FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2
from sentry.platform import sigframe
from sentry.platform._native import ffi
from sentry.platform.constants import NUM_REGS
from sentry.platform.interface import FrameRest, Reg, SignalFrame
from sentry.platform.memory import AddressSpace, Resident

BASE = 0x400000000
FP_AT = BASE + 0x1000
AT = FP_AT - 440 - 8
SIZE = 832
TAKEN = 0x50DD5
FEATURES = 7
INFO = bytes(range(128))
FRAME = SignalFrame(
    AT, FP_AT, FEATURES, restorer=0x1111, uc_flags=7, alt_sp=0x2222, alt_flags=1, alt_size=0x3333,
    trapno=14, error=6, cr2=0x4444, mask=0x5555, signo=10, handler=0x7777, cleared_flags=0x10500,
    info=INFO,
)  # fmt: skip
IMAGE = bytes(24) + struct.pack("<I", 0x1F80) + bytes(484) + struct.pack("<Q", 4) + bytes(312)


def numbered() -> memoryview:
    regs = memoryview(bytearray(NUM_REGS * 8)).cast("Q")
    for number in range(NUM_REGS):
        regs[number] = 0x100 + number
    regs[Reg.CS], regs[Reg.SS] = 0x33, 0x2B
    return regs


@pytest.fixture()
def mapped(space: AddressSpace) -> AddressSpace:
    space.map_anonymous(BASE, 4, 3)
    frame = sigframe.make(FRAME, numbered(), IMAGE)
    assert space.write(AT, frame) == len(frame) == FP_AT - AT + SIZE + 4
    return space


def test_python_and_c_have_the_same_fields() -> None:
    for name, fields in (
        ("sigframe", SignalFrame._fields),
        ("sigframe_rest", FrameRest._fields),
        ("resident", Resident._fields),
    ):
        assert tuple(field for field, _ in ffi.typeof(f"struct {name}").fields) == fields


def test_make_lays_the_frame_out_as_linux(mapped: AddressSpace) -> None:
    words = struct.unpack("<55Q", mapped.read(AT, 440))

    assert words[:6] == (0x1111, 7, 0, 0x2222, 1, 0x3333)
    in_order = (
        Reg.R8, Reg.R9, Reg.R10, Reg.R11, Reg.R12, Reg.R13, Reg.R14, Reg.R15, Reg.RDI, Reg.RSI,
        Reg.RBP, Reg.RBX, Reg.RDX, Reg.RAX, Reg.RCX, Reg.RSP, Reg.RIP, Reg.RFLAGS,
    )  # fmt: skip
    assert words[6:24] == tuple(0x100 + reg for reg in in_order)
    assert words[24:30] == (0x2B << 48 | 0x33, 6, 14, 0x5555, 0x4444, FP_AT)
    assert words[30:39] == (0,) * 8 + (0x5555,)
    assert mapped.read(AT + 312, 128) == INFO


def test_make_marks_the_fpu_image_for_the_program(mapped: AddressSpace) -> None:
    image = mapped.read(FP_AT, SIZE + 4)

    software = struct.unpack_from("<IIQI", image, 464)
    assert software == (FP_XSTATE_MAGIC1, SIZE + 4, FEATURES, SIZE)
    assert struct.unpack_from("<Q", image, 512) == (4 | 3,)
    assert struct.unpack_from("<I", image, SIZE) == (FP_XSTATE_MAGIC2,)


def test_enter_points_the_registers_at_handler_and_frame() -> None:
    regs = numbered()
    regs[Reg.RFLAGS] = 0x602

    sigframe.enter(regs, FRAME)

    names = (Reg.RAX, Reg.RDI, Reg.RSI, Reg.RDX, Reg.RSP, Reg.RIP, Reg.RFLAGS)
    assert [regs[name] for name in names] == [0, 10, AT + 312, AT + 8, AT, 0x7777, 0x202]
    assert regs[Reg.RBX] == 0x100 + Reg.RBX


def test_read_takes_back_what_was_written(mapped: AddressSpace) -> None:
    regs = memoryview(bytearray(NUM_REGS * 8)).cast("Q")
    regs[Reg.RFLAGS] = 0x202
    regs[Reg.FS_BASE] = 0x99

    found = sigframe.read(mapped, AT, regs, TAKEN, SIZE, FEATURES)

    assert found is not None
    image, rest = found
    assert rest == FrameRest(alt_sp=0x2222, alt_flags=1, alt_size=0x3333, mask=0x5555)
    assert image[512] == 7
    assert regs[Reg.R15] == 0x100 + Reg.R15
    assert regs[Reg.RFLAGS] == 0x202 & ~TAKEN | (0x100 + Reg.RFLAGS) & TAKEN
    assert (regs[Reg.ORIG_RAX], regs[Reg.CS], regs[Reg.SS]) == ((1 << 64) - 1, 0x33, 0x2B)
    assert regs[Reg.FS_BASE] == 0x99


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (AT + 192, struct.pack("<H", 0x10)),  # CS
        (AT + 232, struct.pack("<Q", 0)),  # no FPU state
        (AT + 232, struct.pack("<Q", (1 << 64) - 1)),
        (AT + 232, struct.pack("<Q", BASE + 0x10000)),  # not mapped
        (FP_AT + 24, struct.pack("<I", 1 << 31)),  # MXCSR
        (FP_AT + 464, struct.pack("<I", 0)),  # FP_XSTATE_MAGIC1
        (FP_AT + 464 + 16, struct.pack("<I", SIZE - 8)),  # size
        (FP_AT + 512, struct.pack("<Q", 1 << 9)),  # a feature that is not allowed
        (FP_AT + 520, struct.pack("<Q", 1 << 63)),  # compacted
        (FP_AT + SIZE, bytes(4)),  # FP_XSTATE_MAGIC2
    ],
)
def test_read_leaves_any_other_frame_alone(mapped: AddressSpace, at: int, value: bytes) -> None:
    mapped.write(at, value)
    regs = memoryview(bytearray(NUM_REGS * 8)).cast("Q")

    assert sigframe.read(mapped, AT, regs, TAKEN, SIZE, FEATURES) is None

    assert not any(regs)
