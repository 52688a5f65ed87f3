"""prctl(2): one line per option. What an option does to credentials is in sentry.auth.

An option that takes fewer arguments than there are is declared with `unused`: the index of the
first one that must be 0, where Linux checks that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Annotated, Final

from sentry.abi import prctl as abi
from sentry.abi.capability import CAP_LAST_CAP, CAP_SYS_RESOURCE
from sentry.abi.prctl import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_IS_SET,
    PR_CAP_AMBIENT_LOWER,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    PR_GET_AUXV,
    PR_GET_CHILD_SUBREAPER,
    PR_GET_DUMPABLE,
    PR_GET_IO_FLUSHER,
    PR_GET_KEEPCAPS,
    PR_GET_MDWE,
    PR_GET_MEMORY_MERGE,
    PR_GET_NAME,
    PR_GET_NO_NEW_PRIVS,
    PR_GET_PDEATHSIG,
    PR_GET_SECCOMP,
    PR_GET_SECUREBITS,
    PR_GET_SPECULATION_CTRL,
    PR_GET_THP_DISABLE,
    PR_GET_TID_ADDRESS,
    PR_GET_TIMERSLACK,
    PR_GET_TIMING,
    PR_GET_TSC,
    PR_MCE_KILL,
    PR_MCE_KILL_CLEAR,
    PR_MCE_KILL_DEFAULT,
    PR_MCE_KILL_EARLY,
    PR_MCE_KILL_GET,
    PR_MCE_KILL_LATE,
    PR_MCE_KILL_SET,
    PR_MDWE_NO_INHERIT,
    PR_MDWE_REFUSE_EXEC_GAIN,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_IO_FLUSHER,
    PR_SET_KEEPCAPS,
    PR_SET_MDWE,
    PR_SET_MEMORY_MERGE,
    PR_SET_MM,
    PR_SET_NAME,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    PR_SET_PTRACER,
    PR_SET_PTRACER_ANY,
    PR_SET_SECCOMP,
    PR_SET_SECUREBITS,
    PR_SET_SPECULATION_CTRL,
    PR_SET_SYSCALL_USER_DISPATCH,
    PR_SET_THP_DISABLE,
    PR_SET_TIMERSLACK,
    PR_SET_TIMING,
    PR_SET_TSC,
    PR_SET_VMA,
    PR_SET_VMA_ANON_NAME,
    PR_SPEC_INDIRECT_BRANCH,
    PR_SPEC_L1D_FLUSH,
    PR_SPEC_NOT_AFFECTED,
    PR_SPEC_STORE_BYPASS,
    PR_TASK_PERF_EVENTS_DISABLE,
    PR_TASK_PERF_EVENTS_ENABLE,
    PR_TIMING_STATISTICAL,
    PR_TSC_ENABLE,
    SECBIT_KEEP_CAPS,
)
from sentry.auth.ptrace import ANY
from sentry.errors import EINVAL, ENODEV, ENXIO, EPERM
from sentry.kernel.task import Task
from sentry.mm.protect import name_anonymous
from sentry.syscalls.args import show_choice, signed
from sentry.syscalls.credentials.ids import commit
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr
from sentry.vfs.file import Result
from sentry.wait.steps import in_steps

Values = tuple[int, int, int, int]
"""arg2 to arg5."""
Option = Callable[[Task, Values], "Result | None"]

_NAMES = {
    n: v
    for n, v in vars(abi).items()
    if n.startswith(("PR_SET_", "PR_GET_", "PR_CAP", "PR_MCE_KILL", "PR_TASK_"))
    and not n.startswith(("PR_CAP_AMBIENT_", "PR_MCE_KILL_", "PR_SET_MM_", "PR_SET_VMA_"))
} | {"PR_MCE_KILL_GET": PR_MCE_KILL_GET}
OptionNumber = Annotated[int, signed(32, show_choice(_NAMES))]

OPTIONS: Final[dict[int, Option]] = {}
SIGNAL_MAX: Final = 64
COMM_LEN: Final = 16
PF_IO_FLUSHER, PF_MCE_PROCESS, PF_MCE_EARLY, PF_MERGE = 1, 2, 4, 8
"""Bits of Task.process_flags."""
VMA_NAME_MAX: Final = 80
VMA_NAME_REFUSED: Final = b"\\`$[]"


@syscall(
    157, partial="core scheduling, SVE and what only other architectures have"
)
def sys_prctl(
    task: Task, option: OptionNumber, arg2: Addr, arg3: Addr, arg4: Addr, arg5: Addr
) -> Result | None:
    """prctl(2). EINVAL for an option that is not known."""
    handler = OPTIONS.get(option & 0xFFFFFFFF)
    if handler is None:
        raise EINVAL(f"option {option}")
    return handler(task, (arg2, arg3, arg4, arg5))


def option(*numbers: int, unused: int = 6) -> Callable[[Option], Option]:
    """Declare the handler of options; arguments from number `unused` (2 to 5) on must be 0."""

    def declare(handler: Option) -> Option:
        def checked(task: Task, values: Values) -> Result | None:
            if any(values[unused - 2 :]):
                raise EINVAL("unused arguments are set")
            return handler(task, values)

        for number in numbers:
            OPTIONS[number] = handler if unused > 5 else checked
        return handler

    return declare


def put_int(task: Task, addr: int, value: int) -> None:
    """A C int for the program."""
    task.mm.write(addr, struct.pack("<i", value))


def flag(value: int) -> bool:
    """An argument that may only be 0 or 1."""
    if value > 1:
        raise EINVAL(f"{value} is neither 0 nor 1")
    return bool(value)


# --- names and signals


@option(PR_SET_NAME)
def set_name(task: Task, values: Values) -> None:
    """The first 15 bytes of a string."""
    addr, name = values[0], b""
    while len(name) < COMM_LEN - 1 and b"\0" not in name:
        at = addr + len(name)
        name += task.mm.read(at, min(COMM_LEN - 1 - len(name), 4096 - (at & 4095)))
    task.comm = name.split(b"\0", 1)[0]


@option(PR_GET_NAME)
def get_name(task: Task, values: Values) -> None:
    """Sixteen bytes with the NUL."""
    task.mm.write(values[0], task.comm.ljust(COMM_LEN, b"\0"))


@option(PR_SET_PDEATHSIG)
def set_parent_death_signal(task: Task, values: Values) -> None:
    """The signal at the parent's death; 0 clears it."""
    if values[0] > SIGNAL_MAX:
        raise EINVAL(f"signal {values[0]}")
    task.parent_death_signal = values[0]


@option(PR_GET_PDEATHSIG)
def get_parent_death_signal(task: Task, values: Values) -> None:
    """Into an int."""
    put_int(task, values[0], task.parent_death_signal)


@option(PR_SET_CHILD_SUBREAPER)
def set_child_subreaper(task: Task, values: Values) -> None:
    """Orphans among the descendants become this process's children."""
    task.group.child_subreaper = bool(values[0])


@option(PR_GET_CHILD_SUBREAPER)
def get_child_subreaper(task: Task, values: Values) -> None:
    """Into an int."""
    put_int(task, values[0], int(task.group.child_subreaper))


@option(PR_GET_TID_ADDRESS)
def get_tid_address(task: Task, values: Values) -> None:
    """What set_tid_address(2) was given."""
    task.mm.write(values[0], struct.pack("<Q", task.clear_child_tid))


# --- credentials


@option(PR_SET_DUMPABLE)
def set_dumpable(task: Task, values: Values) -> None:
    """0 or 1; 2 can only be had from fs.suid_dumpable."""
    task.group.dumpable = int(flag(values[0]))


@option(PR_GET_DUMPABLE)
def get_dumpable(task: Task, values: Values) -> int:
    """The value."""
    return task.group.dumpable


@option(PR_SET_PTRACER)
def set_ptracer(task: Task, values: Values) -> None:
    """yama_task_prctl(): whom besides its ancestors a process lets trace it; 0: nobody."""
    group = task.group
    wanted = values[0] & 0xFFFFFFFF
    if values[0] == 0:
        group.allowed_tracer = None, ANY
    elif wanted == PR_SET_PTRACER_ANY & 0xFFFFFFFF:
        group.allowed_tracer = group.leader, ANY
    else:
        tracer = task.pids.task_or_zombie(wanted)
        if tracer is None:
            raise EINVAL(f"pid {wanted}")
        group.allowed_tracer = group.leader, tracer


@option(PR_SET_KEEPCAPS)
def set_keep_caps(task: Task, values: Values) -> None:
    """SECBIT_KEEP_CAPS, which needs no capability."""
    commit(task, task.creds.set_keep_caps(flag(values[0])))


@option(PR_GET_KEEPCAPS)
def get_keep_caps(task: Task, values: Values) -> int:
    """The bit."""
    return int(bool(task.creds.securebits & SECBIT_KEEP_CAPS))


@option(PR_SET_SECUREBITS)
def set_securebits(task: Task, values: Values) -> None:
    """CAP_SETPCAP; locks cannot be undone."""
    commit(task, task.creds.set_securebits(values[0]))


@option(PR_GET_SECUREBITS)
def get_securebits(task: Task, values: Values) -> int:
    """All of them."""
    return task.creds.securebits


@option(PR_CAPBSET_READ)
def read_bounding(task: Task, values: Values) -> int:
    """Whether a capability is in the bounding set."""
    if values[0] > CAP_LAST_CAP:
        raise EINVAL(f"capability {values[0]}")
    return task.creds.bounding >> values[0] & 1


@option(PR_CAPBSET_DROP)
def drop_bounding(task: Task, values: Values) -> None:
    """Take a capability out of the bounding set, for ever."""
    commit(task, task.creds.drop_bounding(values[0]))


@option(PR_CAP_AMBIENT)
def ambient(task: Task, values: Values) -> int | None:
    """The ambient set: CLEAR_ALL, IS_SET, RAISE, LOWER."""
    action, cap, *rest = values
    creds = task.creds
    if action == PR_CAP_AMBIENT_CLEAR_ALL:
        if any(values[1:]):
            raise EINVAL("unused arguments are set")
        commit(task, creds.clear_ambient())
        return None
    if cap > CAP_LAST_CAP or any(rest):
        raise EINVAL(f"capability {cap}")
    if action == PR_CAP_AMBIENT_IS_SET:
        return creds.ambient >> cap & 1
    if action == PR_CAP_AMBIENT_RAISE:
        commit(task, creds.raise_ambient(cap))
    elif action == PR_CAP_AMBIENT_LOWER:
        commit(task, creds.lower_ambient(cap))
    else:
        raise EINVAL(f"action {action}")
    return None


@option(PR_SET_NO_NEW_PRIVS, unused=3)
def set_no_new_privs(task: Task, values: Values) -> None:
    """Only 1: there is no way back."""
    if values[0] != 1:
        raise EINVAL(f"{values[0]} is not 1")
    task.no_new_privs = True


@option(PR_GET_NO_NEW_PRIVS, unused=2)
def get_no_new_privs(task: Task, values: Values) -> int:
    """0 or 1."""
    return int(task.no_new_privs)


# --- seccomp


@option(PR_SET_SYSCALL_USER_DISPATCH)
def set_user_dispatch(task: Task, values: Values) -> None:
    """Calls from elsewhere than one range are signals."""
    from sentry.syscalls.processes import prctl_dispatch  # noqa: PLC0415  hardly ever

    prctl_dispatch.set_user_dispatch(task, values)


@option(PR_SET_SECCOMP)
def set_seccomp(task: Task, values: Values) -> int:
    """seccomp(2) by its old name."""
    from sentry.syscalls.processes import seccomp  # noqa: PLC0415  most programs have no filter

    return seccomp.set_mode(task, values[0], values[1])


@option(PR_GET_SECCOMP)
def get_seccomp(task: Task, values: Values) -> int:
    """The mode: a task in strict mode (1) does not live to see it."""
    return task.seccomp.mode if task.seccomp else 0


# --- the CPU and memory


@option(PR_SET_TIMERSLACK)
def set_timer_slack(task: Task, values: Values) -> None:
    """In ns; 0 is the default: what the thread was made with."""
    task.timer_slack_ns = values[0] or task.default_slack_ns


@option(PR_GET_TIMERSLACK)
def get_timer_slack(task: Task, values: Values) -> int:
    """In ns, as a long."""
    slack_ns = task.timer_slack_ns
    return slack_ns - (1 << 64) if slack_ns >> 63 else slack_ns


@option(PR_SET_TIMING)
def set_timing(task: Task, values: Values) -> None:
    """Only statistical timing exists."""
    if values[0] != PR_TIMING_STATISTICAL:
        raise EINVAL(f"timing {values[0]}")


@option(PR_GET_TIMING)
def get_timing(task: Task, values: Values) -> int:
    """Statistical."""
    return PR_TIMING_STATISTICAL


@option(PR_SET_TSC)
def set_tsc(task: Task, values: Values) -> None:
    """rdtsc cannot be forbidden: it runs natively."""
    if values[0] != PR_TSC_ENABLE:
        raise EINVAL(f"TSC mode {values[0]}")


@option(PR_GET_TSC)
def get_tsc(task: Task, values: Values) -> None:
    """Into an int: enabled."""
    put_int(task, values[0], PR_TSC_ENABLE)


@option(PR_MCE_KILL, unused=4)
def set_mce_kill(task: Task, values: Values) -> None:
    """There are no machine checks: the policy is kept for PR_MCE_KILL_GET."""
    flags = 0
    if values[0] == PR_MCE_KILL_CLEAR:
        if values[1]:
            raise EINVAL("unused argument is set")
    elif values[0] != PR_MCE_KILL_SET or values[1] > PR_MCE_KILL_DEFAULT:
        raise EINVAL(f"policy {values[:2]}")
    elif values[1] != PR_MCE_KILL_DEFAULT:
        flags = PF_MCE_PROCESS | (PF_MCE_EARLY if values[1] == PR_MCE_KILL_EARLY else 0)
    task.process_flags = task.process_flags & ~(PF_MCE_PROCESS | PF_MCE_EARLY) | flags


@option(PR_MCE_KILL_GET, unused=2)
def get_mce_kill(task: Task, values: Values) -> int:
    """What was set, else the default."""
    if not task.process_flags & PF_MCE_PROCESS:
        return PR_MCE_KILL_DEFAULT
    return PR_MCE_KILL_EARLY if task.process_flags & PF_MCE_EARLY else PR_MCE_KILL_LATE


@option(PR_TASK_PERF_EVENTS_DISABLE, PR_TASK_PERF_EVENTS_ENABLE)
def perf_events(task: Task, values: Values) -> None:
    """There are none to switch."""


@option(PR_SET_IO_FLUSHER)
def set_io_flusher(task: Task, values: Values) -> None:
    """CAP_SYS_RESOURCE; remembered."""
    if not task.creds.has(CAP_SYS_RESOURCE):
        raise EPERM("CAP_SYS_RESOURCE")
    if any(values[1:]):
        raise EINVAL("unused arguments are set")
    on = PF_IO_FLUSHER if flag(values[0]) else 0
    task.process_flags = task.process_flags & ~PF_IO_FLUSHER | on


@option(PR_GET_IO_FLUSHER)
def get_io_flusher(task: Task, values: Values) -> int:
    """0 or 1."""
    if not task.creds.has(CAP_SYS_RESOURCE):
        raise EPERM("CAP_SYS_RESOURCE")
    if any(values):
        raise EINVAL("unused arguments are set")
    return int(bool(task.process_flags & PF_IO_FLUSHER))


@option(PR_SET_MEMORY_MERGE, unused=3)
def set_memory_merge(task: Task, values: Values) -> None:
    """Remembered: equal pages are not merged."""
    on = PF_MERGE if values[0] else 0
    task.process_flags = task.process_flags & ~PF_MERGE | on


@option(PR_GET_MEMORY_MERGE, unused=2)
def get_memory_merge(task: Task, values: Values) -> int:
    """0 or 1."""
    return int(bool(task.process_flags & PF_MERGE))


@option(PR_GET_SPECULATION_CTRL, unused=3)
def get_speculation(task: Task, values: Values) -> int:
    """The host decides about mitigations; to the program nothing is adjustable."""
    if values[0] not in (PR_SPEC_STORE_BYPASS, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_L1D_FLUSH):
        raise ENODEV(f"speculation {values[0]}")
    return PR_SPEC_NOT_AFFECTED


@option(PR_SET_SPECULATION_CTRL, unused=4)
def set_speculation(task: Task, values: Values) -> None:
    """ENXIO: cannot be controlled per thread."""
    if values[0] not in (PR_SPEC_STORE_BYPASS, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_L1D_FLUSH):
        raise ENODEV(f"speculation {values[0]}")
    raise ENXIO("not adjustable")


@option(PR_SET_THP_DISABLE, unused=3)
def set_thp_disable(task: Task, values: Values) -> None:
    """Remembered; which pages are huge is not visible to the program."""
    task.mm.no_huge_pages = bool(values[0])


@option(PR_GET_THP_DISABLE, unused=2)
def get_thp_disable(task: Task, values: Values) -> int:
    """0 or 1."""
    return int(task.mm.no_huge_pages)


@option(PR_SET_MDWE, unused=3)
def set_mdwe(task: Task, values: Values) -> None:
    """Memory that can be written or was is never executable; there is no way back."""
    bits = values[0]
    if bits & ~(PR_MDWE_REFUSE_EXEC_GAIN | PR_MDWE_NO_INHERIT) or bits == PR_MDWE_NO_INHERIT:
        raise EINVAL(f"bits {bits:#x}")
    if task.mm.map.mdwe and task.mm.map.mdwe != bits:
        raise EPERM("it cannot be changed")
    task.mm.map.mdwe = bits


@option(PR_GET_MDWE, unused=2)
def get_mdwe(task: Task, values: Values) -> int:
    """The bits."""
    return task.mm.map.mdwe


@option(PR_SET_VMA)
def set_vma_name(task: Task, values: Values) -> Result:
    """PR_SET_VMA_ANON_NAME: a name for anonymous memory, as /proc/self/maps shows it."""
    what, addr, length, pointer = values
    if what != PR_SET_VMA_ANON_NAME:
        raise EINVAL(f"option {what}")
    name = task.mm.read_cstr(pointer, VMA_NAME_MAX, EINVAL) if pointer else b""
    if any(not 32 <= c < 127 or c in VMA_NAME_REFUSED for c in name):
        raise EINVAL(f"name {name!r}")
    named = name_anonymous.steps(task.mm.map, addr, length, name)
    return in_steps(named, task.mm.map.lock)


@option(PR_GET_AUXV, unused=4)
def get_auxv(task: Task, values: Values) -> int:
    """The auxiliary vector, as much as fits; gives its size."""
    vector = task.mm.map.layout.auxv
    task.mm.write(values[0], vector[: values[1]])
    return len(vector)


@option(PR_SET_MM)
def set_mm(task: Task, values: Values) -> None:
    """What /proc/PID shows of a process's layout."""
    from sentry.syscalls.processes import prctl_mm  # noqa: PLC0415  hardly ever

    prctl_mm.set_mm(task, values)
