"""Signal frames between registers and user memory, in C (native/sigframe.c).

`push` and `pop` do it for any context; that of KVM has a shorter way (ctx_push_frame).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.platform._native import ffi, lib
from sentry.platform.interface import FrameRest, SignalFrame

if TYPE_CHECKING:
    from sentry.platform.interface import Context
    from sentry.platform.memory import AddressSpace

_ROOM = 8192
"""More than the largest frame: 440 bytes, two gaps of less than 64, an image of a page at most."""
_bytes = ffi.new("uint8_t[]", _ROOM)
_as_chars = ffi.cast("char *", _bytes)
_frame, _rest = ffi.new("struct sigframe *"), ffi.new("struct sigframe_rest *")
_from_buffer, _unpack = ffi.from_buffer, ffi.unpack
_make, _enter, _read = lib.sigframe_make, lib.sigframe_enter, lib.sigframe_read


def push(context: Context, space: AddressSpace, frame: SignalFrame) -> bool:
    """Context.push_frame, out of the other methods of a context."""
    data = make(frame, context.regs, context.get_fpu())
    if space.write(frame.at, data) < len(data):
        return False
    enter(context.regs, frame)
    context.set_fpu(b"")
    return True


def pop(
    context: Context, space: AddressSpace, at: int, taken_flags: int, size: int, features: int
) -> FrameRest | None:
    """Context.pop_frame, out of the other methods of a context."""
    ordinary = read(space, at, context.regs, taken_flags, size, features)
    if ordinary is None:
        return None
    image, rest = ordinary
    context.set_fpu(image)
    return rest


def make(frame: SignalFrame, regs: memoryview, image: bytes) -> bytes:
    """The bytes of a frame."""
    size, gap = len(image), frame.fp_at - frame.at
    assert gap >= 440 and gap + size + 4 <= _ROOM
    # SAFETY: `regs` has all registers; the frame fits (asserted).
    _frame[0] = frame
    _make(_bytes, _frame, _from_buffer("uint64_t[]", regs), image, size)
    return _unpack(_as_chars, gap + size + 4)


def enter(regs: memoryview, frame: SignalFrame) -> None:
    """Registers of a handler that begins."""
    _frame[0] = frame
    _enter(_from_buffer("uint64_t[]", regs), _frame)


def read(
    space: AddressSpace, at: int, regs: memoryview, taken_flags: int, size: int, features: int
) -> tuple[bytes, FrameRest] | None:
    """Take the registers of an ordinary frame; gives the FPU image (`size` bytes) and the rest.

    None: no such frame, nothing has changed.
    """
    # SAFETY: as above; the image has room for size + 4 bytes.
    assert size + 4 <= _ROOM
    ordinary = _read(
        space.native, at, _from_buffer("uint64_t[]", regs), taken_flags, _bytes, size, features,
        _rest, space.fault,
    )  # fmt: skip
    if not ordinary:
        return None
    rest = FrameRest(_rest.alt_sp, _rest.alt_flags, _rest.alt_size, _rest.mask)
    return _unpack(_as_chars, size), rest
