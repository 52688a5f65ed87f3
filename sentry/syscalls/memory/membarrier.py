"""membarrier(2)."""

from __future__ import annotations

from typing import Annotated

from sentry.abi import membarrier
from sentry.abi.membarrier import (
    MEMBARRIER_CMD_GET_REGISTRATIONS,
    MEMBARRIER_CMD_GLOBAL,
    MEMBARRIER_CMD_GLOBAL_EXPEDITED,
    MEMBARRIER_CMD_PRIVATE_EXPEDITED,
    MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE,
    MEMBARRIER_CMD_QUERY,
    MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED,
    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
)
from sentry.errors import EINVAL, ENOSYS, EPERM
from sentry.kernel.task import Task
from sentry.platform import barrier
from sentry.syscalls.args import show_choice, signed
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Int, UInt

COMMANDS = {n: v for n, v in vars(membarrier).items() if n.startswith("MEMBARRIER_CMD_")}
Command = Annotated[int, signed(32, show_choice(COMMANDS))]

NEEDS_REGISTRATION = {
    MEMBARRIER_CMD_PRIVATE_EXPEDITED: MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
    MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE: MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
}
REGISTRATIONS = (
    MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED,
    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
)
SUPPORTED = MEMBARRIER_CMD_GLOBAL | MEMBARRIER_CMD_GLOBAL_EXPEDITED
for _command in (*NEEDS_REGISTRATION, *REGISTRATIONS, MEMBARRIER_CMD_GET_REGISTRATIONS):
    SUPPORTED |= _command


@syscall(324)
def sys_membarrier(task: Task, command: Command, flags: UInt, cpu: Int) -> int:
    """membarrier(2): a barrier of the host on all vCPU threads, whatever the command asks.

    Restartable sequences are not offered, and so are not their barriers. An interruption also
    serialises the instruction stream, which SYNC_CORE needs.
    """
    if flags or (command != MEMBARRIER_CMD_QUERY and not command & SUPPORTED):
        raise EINVAL(f"command {command}")
    if command & (command - 1):
        raise EINVAL(f"command {command}")
    if command == MEMBARRIER_CMD_QUERY:
        return SUPPORTED
    mm = task.mm
    if command == MEMBARRIER_CMD_GET_REGISTRATIONS:
        return mm.barriers
    if command in REGISTRATIONS:
        if not barrier.register():
            raise ENOSYS("the host has none")
        mm.barriers |= command
        return 0
    if command in NEEDS_REGISTRATION and not mm.barriers & NEEDS_REGISTRATION[command]:
        raise EPERM("not registered")
    if not barrier.barrier():
        barrier.register()
        barrier.barrier()
    return 0
