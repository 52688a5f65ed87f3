"""The frame on a handler's stack: struct rt_sigframe of x86-64, exactly as Linux lays it out.

From the stack pointer up: the return address (SA_RESTORER), struct ucontext, siginfo; then at a
64-byte boundary the FPU state: an XSAVE image in standard format whose software-reserved bytes
carry FP_XSTATE_MAGIC1 and its sizes, with FP_XSTATE_MAGIC2 behind it. Sources:
arch/x86/kernel/signal.c, signal_64.c, fpu/signal.c; <asm/sigcontext.h>.

What moves bytes is C (Context.push_frame and pop_frame): a frame is made there, and the ordinary
one is taken apart there. Where it lies, and what is wrong with others, is decided here.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi import processor as cpu
from sentry.abi.signal import (
    FP_XSTATE_MAGIC1,
    FP_XSTATE_MAGIC2,
    SA_ONSTACK,
    SA_RESTORER,
    SS_AUTODISARM,
    UC_FP_XSTATE,
    UC_SIGCONTEXT_SS,
    UC_STRICT_RESTORE_SS,
)
from sentry.errors import EFAULT, EINVAL, ENOMEM, EPERM
from sentry.kernel import altstack
from sentry.platform.constants import TASK_SIZE
from sentry.platform.interface import Reg, SignalFrame
from sentry.suppress import suppress

if TYPE_CHECKING:
    from sentry.kernel.signals import Action, SigInfo
    from sentry.kernel.task import Task

RED_ZONE: Final = 128
FRAME_SIZE: Final = 440
"""sizeof(struct rt_sigframe)."""
UCONTEXT_AT: Final = 8
XSAVE_ALIGN: Final = 64
LEGACY_SIZE: Final = 512
SW_RESERVED_AT: Final = 464
HEADER_AT: Final = 512
FEATURES_FP_SSE: Final = 3
MXCSR_MASK: Final = 0xFFFF
NO_CALL: Final = 0xFFFFFFFFFFFFFFFF
"""ORIG_RAX outside of a system call."""
UC_FLAGS: Final = UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
USER_CS, USER_DS = 0x33, 0x2B
_RSP: Final = int(Reg.RSP)
FIX_EFLAGS: Final = (
    cpu.X86_EFLAGS_AC | cpu.X86_EFLAGS_OF | cpu.X86_EFLAGS_DF | cpu.X86_EFLAGS_TF
    | cpu.X86_EFLAGS_SF | cpu.X86_EFLAGS_ZF | cpu.X86_EFLAGS_AF | cpu.X86_EFLAGS_PF
    | cpu.X86_EFLAGS_CF | cpu.X86_EFLAGS_RF
)  # fmt: skip
"""What sigreturn takes from the frame."""
HANDLER_CLEARS: Final = cpu.X86_EFLAGS_DF | cpu.X86_EFLAGS_RF | cpu.X86_EFLAGS_TF
"""Cleared for the handler."""

# flags link ss_sp ss_flags ss_size; r8-r15 di si bp bx dx ax cx sp ip flags;
# cs gs fs ss; err trapno oldmask cr2 fpstate; reserved; sigmask
_ucontext = struct.Struct("<QQQi4xQ 18Q 4H 5Q 64x Q")
_software = struct.Struct("<IIQI28x")
_general = struct.Struct("<21Q")
_header = struct.Struct("<Q56x").pack
_u32 = struct.Struct("<I").unpack_from
_u64 = struct.Struct("<Q").unpack_from
_RESERVED = bytes(56)
"""What the XSAVE header has behind XSTATE_BV: the compacted form is not used."""
_MAGIC2 = struct.pack("<I", FP_XSTATE_MAGIC2)
MAGIC2_SIZE: Final = len(_MAGIC2)


def min_signal_stack(xsave_size: int) -> int:
    """AT_MINSIGSTKSZ: the largest frame with its padding (get_sigframe_size)."""
    size = FRAME_SIZE + 15 + (XSAVE_ALIGN - 1) + xsave_size + MAGIC2_SIZE
    return (size + 15) & ~15


def push(task: Task, info: SigInfo, action: Action, mask: int) -> None:
    """Write the frame of a handler and point the registers at the handler.

    `mask` is what sigreturn restores. Nothing is changed when it raises.
    Raises: EFAULT, NeedsFault.
    """
    if not action.flags & SA_RESTORER:
        raise EFAULT("no restorer")
    ctx = task.ctx
    sp = ctx.regs[_RSP]
    platform = task.kernel.platform
    size = platform.xsave_size
    alt_sp, alt_flags, alt_size = task.altstack
    stack = sp - RED_ZONE
    on_alternate = altstack.is_on(task.altstack, sp)
    if action.flags & SA_ONSTACK and alt_size and not altstack.is_on(task.altstack, stack):
        stack = alt_sp + alt_size
        on_alternate = True
    fp_at = (stack - size - MAGIC2_SIZE) & -XSAVE_ALIGN
    at = ((fp_at - FRAME_SIZE) & -16) - 8
    if at < 0 or fp_at + size + MAGIC2_SIZE > TASK_SIZE:
        raise EFAULT(f"signal frame at {at:#x}")
    if on_alternate and not alt_sp < at <= alt_sp + alt_size:
        raise EFAULT("overflow of the alternate stack")
    frame = SignalFrame(
        at, fp_at, platform.xfeatures, action.restorer, UC_FLAGS, alt_sp, alt_flags, alt_size,
        *task.trap, mask, info.signo, action.handler, HANDLER_CLEARS, info.pack(),
    )  # fmt: skip
    mm = task.mm
    while not ctx.push_frame(mm.space, frame):
        mm.resolve(True)
    if alt_flags & SS_AUTODISARM:
        task.altstack = altstack.NONE


def pop(task: Task) -> tuple[int, bool]:
    """rt_sigreturn(2): take all registers from the frame; gives the signal mask to restore, and
    whether the FPU state was good. A bad one is SIGSEGV where the frame returns to.

    Raises: EFAULT when the frame is bad: the caller makes that SIGSEGV. Nothing is changed then.
    """
    ctx = task.ctx
    regs = ctx.regs
    at = regs[Reg.RSP] - 8
    if at < 0 or at + FRAME_SIZE > TASK_SIZE:
        raise EFAULT("frame outside user space")
    ordinary = ctx.pop_frame(task.mm.space, at, FIX_EFLAGS)
    if ordinary is not None:
        _back_on(task, ordinary.alt_sp, ordinary.alt_flags, ordinary.alt_size)
        return ordinary.mask, True
    (
        _, _, alt_sp, alt_flags, alt_size,
        r8, r9, r10, r11, r12, r13, r14, r15, di, si, bp, bx, dx, ax, cx, sp, ip, flags,
        cs, _, _, _, _, _, _, _, fp_at, mask,
    ) = _ucontext.unpack(task.mm.read(at + UCONTEXT_AT, _ucontext.size))  # fmt: skip
    if cs | 3 != USER_CS:
        raise EFAULT(f"return to {cs:#x}:{ip:#x}")
    try:
        image, intact = _get_fpu(task, fp_at) if fp_at else b"", True
    except EFAULT:
        image, intact = b"", False
    flags = regs[Reg.RFLAGS] & ~FIX_EFLAGS | flags & FIX_EFLAGS
    _general.pack_into(
        regs, 0, r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di,
        NO_CALL, ip, USER_CS, flags, sp, USER_DS,
    )  # fmt: skip
    ctx.set_fpu(image)
    if intact:
        _back_on(task, alt_sp, alt_flags & 0xFFFFFFFF, alt_size)
    return int(mask), intact


def _back_on(task: Task, base: int, flags: int, size: int) -> None:
    """The alternate stack of a frame is set again, if it is any (restore_altstack)."""
    if task.altstack != (base, flags, size):
        with suppress(EINVAL, ENOMEM, EPERM):
            altstack.change(task, base, flags, size, task.ctx.regs[_RSP])


def _get_fpu(task: Task, at: int) -> bytes:
    """The FPU image of a frame, checked so that loading it cannot fault (check_xstate_in_sigframe).

    Without the magic numbers only the FXSAVE area counts, the rest is as new.
    """
    platform = task.kernel.platform
    size, allowed = platform.xsave_size, platform.xfeatures
    try:
        data: bytes = task.mm.read(at, size + len(_MAGIC2))
    except EFAULT:
        data = task.mm.read(at, LEGACY_SIZE)
    (mxcsr,) = _u32(data, 24)
    if mxcsr & ~MXCSR_MASK:
        raise EFAULT(f"mxcsr {mxcsr:#x}")
    magic, extended, features, length = _software.unpack_from(data, SW_RESERVED_AT)
    if (
        magic != FP_XSTATE_MAGIC1
        or not LEGACY_SIZE + 64 <= length <= min(size, extended, len(data) - len(_MAGIC2))
        or data[length : length + 4] != _MAGIC2
    ):
        return data[:LEGACY_SIZE] + _header(FEATURES_FP_SSE) + bytes(size - LEGACY_SIZE - 64)
    (present,) = _u64(data, HEADER_AT)
    if present & ~allowed or data[HEADER_AT + 8 : HEADER_AT + 64] != _RESERVED:
        raise EFAULT("xsave header")
    if length == size and not present & ~features:
        return data[:size]
    body = data[:HEADER_AT] + _header(present & features) + data[HEADER_AT + 64 : length]
    return body + bytes(size - length)
