"""Signal frames between registers and user memory, in C (native/sigframe.c).

`push` and `pop` do it for any context; that of KVM has a shorter way (ctx_push_frame).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.platform._native import ffi, lib

if TYPE_CHECKING:
    from sentry.platform.interface import Context, FrameValues
    from sentry.platform.memory import AddressSpace

_ROOM = 8192
"""More than the largest frame: 440 bytes, two gaps of less than 64, an image of a page at most."""
_frame = ffi.new("uint8_t[]", _ROOM)
_frame_bytes = ffi.cast("char *", _frame)
_found = ffi.new("uint64_t[]", 4)
_from_buffer, _unpack = ffi.from_buffer, ffi.unpack
_make, _enter, _read = lib.sigframe_make, lib.sigframe_enter, lib.sigframe_read


def push(
    context: Context,
    space: AddressSpace,
    at: int,
    fp_at: int,
    values: FrameValues,
    info: bytes,
    handler: tuple[int, int, int],
) -> bool:
    """Context.push_frame, out of the other methods of a context."""
    frame = make(at, fp_at, context.regs, context.get_fpu(), values, info)
    if space.write(at, frame) < len(frame):
        return False
    enter(context.regs, at, *handler)
    context.set_fpu(b"")
    return True


def pop(
    context: Context, space: AddressSpace, at: int, taken_flags: int, size: int, features: int
) -> list[int] | None:
    """Context.pop_frame, out of the other methods of a context."""
    ordinary = read(space, at, context.regs, taken_flags, size, features)
    if ordinary is None:
        return None
    image, found = ordinary
    context.set_fpu(image)
    return found


def make(
    at: int, fp_at: int, regs: memoryview, image: bytes, values: FrameValues, info: bytes
) -> bytes:
    """The frame to lie at `at`, with its FPU image at `fp_at`."""
    size = len(image)
    total = fp_at - at + size + 4
    assert len(info) == 128 and fp_at - at >= 440 and total <= _ROOM
    # SAFETY: `regs` has all registers; the frame fits (asserted).
    _make(_frame, at, fp_at, _from_buffer("uint64_t[]", regs), image, size, *values, info)
    return _unpack(_frame_bytes, total)


def enter(regs: memoryview, at: int, signo: int, handler: int, cleared_flags: int) -> None:
    """Registers of a handler that begins."""
    _enter(_from_buffer("uint64_t[]", regs), at, signo, handler, cleared_flags)


def read(
    space: AddressSpace, at: int, regs: memoryview, taken_flags: int, size: int, features: int
) -> tuple[bytes, list[int]] | None:
    """Take the registers of an ordinary frame; gives the FPU image (`size` bytes) and the alternate
    stack's address, flags, size, and the signal mask. None: no such frame, nothing has changed.
    """
    # SAFETY: as above; the image has room for size + 4 bytes.
    assert size + 4 <= _ROOM
    ordinary = _read(
        space.native, at, _from_buffer("uint64_t[]", regs), taken_flags, _frame, size, features,
        _found, space.fault,
    )  # fmt: skip
    return (_unpack(_frame_bytes, size), _unpack(_found, 4)) if ordinary else None
