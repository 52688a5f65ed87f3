"""What is special to x86: arch_prctl(2), iopl(2), ioperm(2); and personality(2)."""

from __future__ import annotations

import struct
from typing import Annotated

from sentry.abi import prctl as abi
from sentry.abi.prctl import (
    ARCH_ENABLE_TAGGED_ADDR,
    ARCH_FORCE_TAGGED_SVA,
    ARCH_GET_CPUID,
    ARCH_GET_FS,
    ARCH_GET_GS,
    ARCH_GET_MAX_TAG_BITS,
    ARCH_GET_UNTAG_MASK,
    ARCH_GET_XCOMP_PERM,
    ARCH_GET_XCOMP_SUPP,
    ARCH_REQ_XCOMP_PERM,
    ARCH_SET_CPUID,
    ARCH_SET_FS,
    ARCH_SET_GS,
)
from sentry.errors import EINVAL, ENODEV, EOPNOTSUPP, EPERM
from sentry.kernel.task import RESUME, Task
from sentry.platform.constants import TASK_SIZE
from sentry.platform.interface import Reg
from sentry.syscalls.args import show_choice, signed
from sentry.syscalls.registry import absent, syscall
from sentry.syscalls.types import Addr, Int, Size, UInt

_NAMES = {n: v for n, v in vars(abi).items() if n.startswith("ARCH_") and v > 32}
ArchOption = Annotated[int, signed(32, show_choice(_NAMES))]

XFEATURE_MAX = 20
QUERY = 0xFFFFFFFF


@syscall(158)
def sys_arch_prctl(task: Task, option: ArchOption, addr: Addr) -> object:
    """arch_prctl(2): segment bases, XSAVE permissions; no CPUID faulting, tags, shadow stack."""
    if option in (ARCH_SET_FS, ARCH_SET_GS):
        if addr >= TASK_SIZE:
            raise EPERM(f"{addr:#x}")
        regs = task.ctx.regs
        regs[Reg.FS_BASE if option == ARCH_SET_FS else Reg.GS_BASE] = addr
        regs[Reg.RAX] = 0
        return RESUME
    if option in (ARCH_GET_FS, ARCH_GET_GS):
        base = task.ctx.regs[Reg.FS_BASE if option == ARCH_GET_FS else Reg.GS_BASE]
        return put(task, addr, base)
    if option == ARCH_GET_CPUID:
        return 1
    if option in (ARCH_GET_XCOMP_SUPP, ARCH_GET_XCOMP_PERM):
        return put(task, addr, task.kernel.platform.xfeatures)
    if option == ARCH_GET_UNTAG_MASK:
        return put(task, addr, (1 << 64) - 1)
    if option == ARCH_GET_MAX_TAG_BITS:
        return put(task, addr, 0)
    if option == ARCH_REQ_XCOMP_PERM:
        raise (EINVAL if addr >= XFEATURE_MAX else EOPNOTSUPP)(f"feature {addr}")
    if option in (ARCH_SET_CPUID, ARCH_ENABLE_TAGGED_ADDR, ARCH_FORCE_TAGGED_SVA):
        raise ENODEV(f"option {option:#x}")
    raise EINVAL(f"option {option:#x}")


def put(task: Task, addr: int, value: int) -> int:
    """An unsigned long for the program."""
    task.mm.write(addr, struct.pack("<Q", value))
    return 0


@syscall(172, partial="no level above 0 can be had")
def sys_iopl(task: Task, level: UInt) -> None:
    """iopl(2): EPERM even with CAP_SYS_RAWIO, as there are no ports."""
    if level > 3:
        raise EINVAL(f"level {level}")
    if level > 0:
        raise EPERM(f"level {level}")


@syscall(173, partial="ports can only be given up")
def sys_ioperm(task: Task, start: Size, count: Size, turn_on: Int) -> None:
    """ioperm(2): EPERM even with CAP_SYS_RAWIO, as there are no ports."""
    if not start < start + count <= 65536:
        raise EINVAL(f"ports {start} {count}")
    if turn_on:
        raise EPERM("no ports")


@syscall(
    135,
    partial="ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC, STICKY_TIMEOUTS, UNAME26, PER_LINUX32 have an "
    "effect",
)
def sys_personality(task: Task, persona: UInt) -> int:
    """personality(2): all bits set asks for the current one."""
    old = task.group.personality
    if persona != QUERY:
        task.group.personality = persona
    return old


absent(154, "no segment descriptors of the program's own")  # modify_ldt
absent(335, "no probes of functions, from whose trampoline it is called")  # uretprobe
