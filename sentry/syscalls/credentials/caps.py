"""capget(2) and capset(2), in the three versions of their structs."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from sentry.abi.capability import (
    _LINUX_CAPABILITY_VERSION_1,
    _LINUX_CAPABILITY_VERSION_2,
    _LINUX_CAPABILITY_VERSION_3,
)
from sentry.errors import EINVAL, EPERM, ESRCH
from sentry.kernel.task import Task
from sentry.syscalls.credentials.ids import commit
from sentry.syscalls.registry import absent, syscall
from sentry.syscalls.types import Addr

if TYPE_CHECKING:
    from collections.abc import Sequence

WORDS = {
    _LINUX_CAPABILITY_VERSION_1: 1,
    _LINUX_CAPABILITY_VERSION_2: 2,
    _LINUX_CAPABILITY_VERSION_3: 2,
}
"""How many __user_cap_data_struct a version has."""


def read_header(task: Task, header: int) -> tuple[int, int]:
    """Number of structs and pid. An unknown version is answered with the newest, and EINVAL."""
    (version,) = struct.unpack("<I", task.mm.read(header, 4))
    words = WORDS.get(version)
    if words is None:
        task.mm.write(header, struct.pack("<I", _LINUX_CAPABILITY_VERSION_3))
        raise EINVAL(f"version {version:#x}")
    (pid,) = struct.unpack("<i", task.mm.read(header + 4, 4))
    return words, pid


@syscall(125)
def sys_capget(task: Task, header: Addr, data: Addr) -> None:
    """capget(2): without `data` it only asks which version the kernel prefers."""
    try:
        words, pid = read_header(task, header)
    except EINVAL:
        if data:
            raise
        return
    if not data:
        return
    if pid < 0:
        raise EINVAL(f"pid {pid}")
    target = task if pid == 0 else task.pids.task_or_zombie(pid)
    if target is None:
        raise ESRCH(f"pid {pid}")
    creds = target.creds
    sets = (creds.effective, creds.permitted, creds.inheritable)
    task.mm.write(data, b"".join(pack(sets, word) for word in range(words)))


def pack(sets: Sequence[int], word: int) -> bytes:
    """One __user_cap_data_struct: 32 bits of each set."""
    return struct.pack("<3I", *(s >> 32 * word & 0xFFFFFFFF for s in sets))


@syscall(126)
def sys_capset(task: Task, header: Addr, data: Addr) -> None:
    """capset(2): only of the calling thread."""
    words, pid = read_header(task, header)
    if pid not in (0, task.own_tid):
        raise EPERM(f"pid {pid}")
    values = (*struct.unpack(f"<{3 * words}I", task.mm.read(data, 12 * words)), 0, 0, 0)
    effective, permitted, inheritable = (values[i] | values[3 + i] << 32 for i in range(3))
    commit(task, task.creds.capset(effective, permitted, inheritable))


absent(444, "no security modules")  # landlock_create_ruleset
absent(445, "no security modules")  # landlock_add_rule
absent(446, "no security modules")  # landlock_restrict_self
absent(459, "no security modules")  # lsm_get_self_attr
absent(460, "no security modules")  # lsm_set_self_attr
absent(461, "no security modules")  # lsm_list_modules
