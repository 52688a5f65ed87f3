"""prctl(PR_SET_MM): where a process says its arguments, data and stack are."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi.capability import CAP_SYS_RESOURCE
from sentry.abi.prctl import (
    PR_SET_MM_ARG_END,
    PR_SET_MM_ARG_START,
    PR_SET_MM_AUXV,
    PR_SET_MM_END_CODE,
    PR_SET_MM_END_DATA,
    PR_SET_MM_ENV_END,
    PR_SET_MM_ENV_START,
    PR_SET_MM_MAP,
    PR_SET_MM_MAP_SIZE,
    PR_SET_MM_START_CODE,
    PR_SET_MM_START_DATA,
    PR_SET_MM_START_STACK,
)
from sentry.errors import EINVAL, EPERM
from sentry.platform.constants import TASK_SIZE

if TYPE_CHECKING:
    from sentry.kernel.task import Task

FIELDS: Final = {
    PR_SET_MM_START_CODE: "start_code",
    PR_SET_MM_END_CODE: "end_code",
    PR_SET_MM_START_DATA: "start_data",
    PR_SET_MM_END_DATA: "end_data",
    PR_SET_MM_START_STACK: "start_stack",
    PR_SET_MM_ARG_START: "arg_start",
    PR_SET_MM_ARG_END: "arg_end",
    PR_SET_MM_ENV_START: "env_start",
    PR_SET_MM_ENV_END: "env_end",
}
MM_MAP: Final = struct.Struct("<13QIi")
"""struct prctl_mm_map, <linux/prctl.h>: 11 addresses, brk among them, auxv, its size, exe_fd."""
LOWEST: Final = 65536
MAX_AUXV: Final = 416


def set_mm(task: Task, values: tuple[int, int, int, int]) -> None:
    """The addresses that /proc/self/cmdline, environ, stat and auxv go by. brk and exe stay."""
    what, addr, arg4, arg5 = values
    if arg5 or (arg4 and what not in (PR_SET_MM_AUXV, PR_SET_MM_MAP, PR_SET_MM_MAP_SIZE)):
        raise EINVAL("unused arguments are set")
    if what == PR_SET_MM_MAP_SIZE:
        task.mm.write(addr, struct.pack("<I", MM_MAP.size))
        return
    if what == PR_SET_MM_MAP:
        set_map(task, addr, arg4)
        return
    if not task.creds.has(CAP_SYS_RESOURCE):
        raise EPERM("CAP_SYS_RESOURCE")
    layout = task.mm.map.layout
    if what == PR_SET_MM_AUXV:
        if arg4 > MAX_AUXV or arg4 % 16:
            raise EINVAL(f"auxv of {arg4} bytes")
        layout.auxv = task.mm.read(addr, arg4)
        return
    name = FIELDS.get(what)
    if name is None or not LOWEST <= addr < TASK_SIZE:
        raise EINVAL(f"PR_SET_MM {what} {addr:#x}")
    if task.mm.map.vmas.find(addr) is None and what > PR_SET_MM_END_DATA:
        raise EINVAL(f"{addr:#x} is not mapped")
    setattr(layout, name, addr)


def set_map(task: Task, addr: int, size: int) -> None:
    """PR_SET_MM_MAP: all of them at once."""
    if size != MM_MAP.size:
        raise EINVAL(f"struct of {size} bytes")
    fields = MM_MAP.unpack(task.mm.read(addr, size))
    addresses, (vector, vector_size, exe_fd) = fields[:11], (fields[11], fields[13], fields[14])
    code, data, arguments, environment = (
        addresses[0:2], addresses[2:4], addresses[7:9], addresses[9:11]
    )  # fmt: skip
    ordered = all(a <= b for a, b in (code, data, arguments, environment))
    if not all(LOWEST <= a < TASK_SIZE for a in addresses) or not ordered:
        raise EINVAL("addresses")
    if vector_size > MAX_AUXV or vector_size % 16 or (vector_size and not vector):
        raise EINVAL("auxv")
    if exe_fd != -1:
        raise EPERM("the program file stays")
    auxv = task.mm.read(vector, vector_size) if vector_size else None
    layout = task.mm.map.layout
    layout.start_code, layout.end_code = code
    layout.start_data, layout.end_data = data
    layout.start_stack = addresses[6]
    layout.arg_start, layout.arg_end = arguments
    layout.env_start, layout.env_end = environment
    if auxv is not None:
        layout.auxv = auxv
