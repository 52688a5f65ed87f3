"""A stopped task's registers as ptrace(2) names them: struct user, and the register sets of ELF.

arch/x86/kernel/ptrace.c, arch/x86/kernel/fpu/regset.c. Values are checked as there; what a program
in ring 3 may not have (a selector of the kernel, a base that is not canonical) is EIO.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi.elf import NT_PRFPREG, NT_PRSTATUS, NT_X86_XSTATE
from sentry.abi.processor import X86_EFLAGS_NT
from sentry.errors import EFAULT, EINVAL, EIO
from sentry.kernel.signal_frame import FIX_EFLAGS
from sentry.mm.layout import LINUX_TASK_END
from sentry.platform.constants import NUM_REGS
from sentry.platform.interface import Reg

if TYPE_CHECKING:
    from sentry.kernel.task import Task

WORD: Final = 8
REGS_SIZE: Final = NUM_REGS * WORD
"""sizeof(struct user_regs_struct)."""
FPREGS_SIZE: Final = 512
"""sizeof(struct user_fpregs_struct): an FXSAVE image."""
DEBUGREG_AT: Final = 848
"""offsetof(struct user, u_debugreg)."""
DEBUGREG_END: Final = DEBUGREG_AT + 8 * WORD
USER_SIZE: Final = 928
"""sizeof(struct user) of the kernel, whose end the C library does not have."""
UINT64: Final = (1 << 64) - 1
FLAG_MASK: Final = FIX_EFLAGS | X86_EFLAGS_NT
NULL_IS_BAD: Final = (Reg.CS, Reg.SS)
SELECTORS: Final = (*NULL_IS_BAD, Reg.DS, Reg.ES, Reg.FS, Reg.GS)
X87, SSE = 1, 2
MXCSR_AT: Final = 24
MXCSR_MASK_AT: Final = 28
ST_AT: Final = 32
XMM_AT: Final = 160
SW_RESERVED_AT: Final = 464
HEADER_AT: Final = 512
XMM_END: Final = 416
MXCSR_BITS: Final = 0xFFFF
INITIAL_FCW: Final = b"\x7f\x03"
_u32 = struct.Struct("<I")
_u64 = struct.Struct("<Q")


def get_regs(task: Task) -> bytes:
    """struct user_regs_struct."""
    return bytes(memoryview(task.ctx.regs).cast("B"))


def put_reg(task: Task, index: int, value: int) -> None:
    """putreg(). Raises: EIO."""
    regs = task.ctx.regs
    if index in SELECTORS:
        selector = value & 0xFFFF
        if (selector and selector & 3 != 3) or (not selector and index in NULL_IS_BAD):
            raise EIO(f"selector {value:#x}")
        return  # there is one code segment and one data segment
    if index in (Reg.FS_BASE, Reg.GS_BASE) and value >= LINUX_TASK_END:
        raise EIO(f"base {value:#x}")
    if index == Reg.RFLAGS:
        value = regs[index] & ~FLAG_MASK | value & FLAG_MASK
    regs[index] = value & UINT64


def put_regs(task: Task, data: bytes) -> None:
    """All, or as many as there are; those before a bad one are changed. Raises: EIO."""
    for index, (value,) in enumerate(_u64.iter_unpack(data[: len(data) & -WORD])):
        put_reg(task, index, value)


def get_fpregs(task: Task) -> bytes:
    """The FXSAVE area; what XSAVE left out because it is in its initial state, filled in."""
    return xstate(task)[:FPREGS_SIZE]


def xstate(task: Task) -> bytes:
    """NT_X86_XSTATE: the XSAVE image whose software bytes say which components there are."""
    image = bytearray(task.ctx.get_fpu())
    (present,) = _u64.unpack_from(image, HEADER_AT)
    if not present & X87:
        image[:MXCSR_AT] = INITIAL_FCW + bytes(MXCSR_AT - 2)
        image[ST_AT:XMM_AT] = bytes(XMM_AT - ST_AT)
    if not present & SSE:
        image[XMM_AT:XMM_END] = bytes(XMM_END - XMM_AT)
    _u32.pack_into(image, MXCSR_MASK_AT, MXCSR_BITS)
    image[SW_RESERVED_AT:HEADER_AT] = _u64.pack(task.kernel.platform.xfeatures) + bytes(
        HEADER_AT - SW_RESERVED_AT - 8
    )
    return bytes(image)


def put_fpregs(task: Task, data: bytes) -> None:
    """The FXSAVE area, or its beginning; x87 and SSE state are in use then. Raises: EINVAL."""
    image = bytearray(xstate(task))
    image[: len(data)] = data
    _check_mxcsr(image)
    image[HEADER_AT] |= X87 | SSE
    task.ctx.set_fpu(bytes(image))


def put_xstate(task: Task, data: bytes) -> None:
    """A whole XSAVE image in standard format. Raises: EFAULT (not whole), EINVAL."""
    platform = task.kernel.platform
    if len(data) != platform.xsave_size:
        raise EFAULT("not the whole state")
    present, compact = struct.unpack_from("<QQ", data, HEADER_AT)
    if present & ~platform.xfeatures or compact or any(data[HEADER_AT + 16 : HEADER_AT + 64]):
        raise EINVAL("xsave header")
    if present & (SSE | 4):
        _check_mxcsr(data)
    task.ctx.set_fpu(bytes(data))


def _check_mxcsr(image: bytes | bytearray) -> None:
    (mxcsr,) = _u32.unpack_from(image, MXCSR_AT)
    if mxcsr & ~MXCSR_BITS:
        raise EINVAL(f"mxcsr {mxcsr:#x}")


# The sets of PTRACE_GETREGSET ------------------------------------------------------------------

_GET = {NT_PRSTATUS: get_regs, NT_PRFPREG: get_fpregs, NT_X86_XSTATE: xstate}
_PUT = {NT_PRSTATUS: put_regs, NT_PRFPREG: put_fpregs, NT_X86_XSTATE: put_xstate}


def regset_size(task: Task, kind: int, length: int) -> int:
    """How much of a set of NT_* a buffer takes. Raises: EINVAL."""
    if kind not in _GET or length % WORD:
        raise EINVAL(f"register set {kind:#x}, {length} bytes")
    whole = {NT_PRSTATUS: REGS_SIZE, NT_PRFPREG: FPREGS_SIZE}.get(kind)
    return min(length, task.kernel.platform.xsave_size if whole is None else whole)


def get_regset(task: Task, kind: int, length: int) -> bytes:
    """The first bytes of a set."""
    return _GET[kind](task)[:length]


def put_regset(task: Task, kind: int, data: bytes) -> None:
    """Replace the first bytes of a set. Raises: EIO, EINVAL, EFAULT."""
    _PUT[kind](task, data)


# struct user ------------------------------------------------------------------------------------


def peek_user(task: Task, offset: int) -> int:
    """PTRACE_PEEKUSER. Raises: EIO."""
    _check_user(offset)
    if offset < REGS_SIZE:
        return int(task.ctx.regs[offset // WORD])
    if DEBUGREG_AT <= offset < DEBUGREG_END:
        assert task.trace is not None
        return int(task.trace.debug.get((offset - DEBUGREG_AT) // WORD))
    return 0


def poke_user(task: Task, offset: int, value: int) -> None:
    """PTRACE_POKEUSER. Raises: EIO, ENOSPC, EINVAL."""
    _check_user(offset)
    if offset < REGS_SIZE:
        put_reg(task, offset // WORD, value)
    elif DEBUGREG_AT <= offset < DEBUGREG_END:
        assert task.trace is not None
        task.trace.debug.put(task, (offset - DEBUGREG_AT) // WORD, value)
    else:
        raise EIO(f"offset {offset}")


def _check_user(offset: int) -> None:
    if offset & (WORD - 1) or offset >= USER_SIZE:
        raise EIO(f"offset {offset}")
