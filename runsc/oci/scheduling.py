"""process.scheduler, process.ioPriority and linux.personality of config.json, as numbers.

Inside the sandbox these are kept and reported, as the system calls do that set them
(sentry/kernel/sched.py): the host schedules vCPUs. Checks and messages are runc's.
"""

from __future__ import annotations

import msgspec

from runsc.errors import SpecError
from runsc.oci import spec
from sentry.abi import ioprio, sched
from sentry.abi.personality import PER_LINUX32
from sentry.config import SchedulerConfig

POLICIES = {
    "SCHED_OTHER": sched.SCHED_NORMAL,
    "SCHED_FIFO": sched.SCHED_FIFO,
    "SCHED_RR": sched.SCHED_RR,
    "SCHED_BATCH": sched.SCHED_BATCH,
    "SCHED_IDLE": sched.SCHED_IDLE,
    "SCHED_DEADLINE": sched.SCHED_DEADLINE,
}
FLAGS = {
    f"SCHED_FLAG_{name}": getattr(sched, f"SCHED_FLAG_{name}")
    for name in (
        "RESET_ON_FORK",
        "RECLAIM",
        "DL_OVERRUN",
        "KEEP_POLICY",
        "KEEP_PARAMS",
        "UTIL_CLAMP_MIN",
        "UTIL_CLAMP_MAX",
    )
}
CLASSES = {
    "IOPRIO_CLASS_RT": ioprio.IOPRIO_CLASS_RT,
    "IOPRIO_CLASS_BE": ioprio.IOPRIO_CLASS_BE,
    "IOPRIO_CLASS_IDLE": ioprio.IOPRIO_CLASS_IDLE,
}
DOMAINS = {"LINUX": 0, "LINUX32": PER_LINUX32}
"""personality(2): PER_LINUX and PER_LINUX32."""


class Scheduler(msgspec.Struct, rename="camel"):
    """config.md, "Linux Process": scheduler."""

    policy: str = ""
    nice: int = 0
    priority: int = 0
    flags: list[str] | None = None
    runtime: spec.U64 = 0
    deadline: spec.U64 = 0
    period: spec.U64 = 0


class IoPriority(msgspec.Struct, rename="camel"):
    """config.md, "Linux Process": ioPriority."""

    class_: str = msgspec.field(name="class", default="")
    priority: int = 0


class Personality(msgspec.Struct, rename="camel"):
    """config-linux.md, "Personality"."""

    domain: str = "LINUX"
    flags: list[str] | None = None


def scheduler(document: object, path: str) -> SchedulerConfig:
    """Raises: SpecError."""
    made = spec.convert(document, Scheduler, path)
    policy = POLICIES.get(made.policy)
    if policy is None:
        text = f"invalid scheduler policy: {made.policy}" if made.policy else "policy is required"
        raise SpecError(f"{path}.policy", text)
    if not -20 <= made.nice <= 19:
        raise SpecError(f"{path}.nice", f"invalid scheduler.nice: {made.nice}")
    real_time = policy in (sched.SCHED_FIFO, sched.SCHED_RR)
    if made.priority and not real_time:
        text = "scheduler.priority can only be specified for SchedFIFO or SchedRR policy"
        raise SpecError(f"{path}.priority", text)
    if real_time and not 1 <= made.priority <= 99:
        raise SpecError(f"{path}.priority", f"invalid scheduler.priority: {made.priority}")
    times = (made.runtime, made.deadline, made.period)
    if any(times) and policy != sched.SCHED_DEADLINE:
        text = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy"
        raise SpecError(path, text)
    last = made.period or made.deadline
    if policy == sched.SCHED_DEADLINE and not (0 < made.runtime <= made.deadline <= last < 1 << 62):
        raise SpecError(path, "0 < runtime <= deadline <= period does not hold")
    for index, flag in enumerate(made.flags or []):
        if flag not in FLAGS:
            raise SpecError(f"{path}.flags[{index}]", f"invalid scheduler flag: {flag}")
    reset = "SCHED_FLAG_RESET_ON_FORK" in (made.flags or [])
    return SchedulerConfig(policy, made.nice, made.priority, reset, times)


def io_priority(document: object, path: str) -> int:
    """IOPRIO_PRIO_VALUE. Raises: SpecError."""
    made = spec.convert(document, IoPriority, path)
    if made.class_ not in CLASSES:
        raise SpecError(f"{path}.class", f"invalid ioPriority.class: {made.class_!r}")
    if not 0 <= made.priority <= 7:
        raise SpecError(f"{path}.priority", f"invalid ioPriority.priority: {made.priority}")
    return CLASSES[made.class_] << ioprio.IOPRIO_CLASS_SHIFT | made.priority


def personality(document: object, path: str = "$.linux.personality") -> int:
    """Raises: SpecError."""
    made = spec.convert(document, Personality, path)
    if made.domain not in DOMAINS:
        raise SpecError(f"{path}.domain", f"invalid personality domain {made.domain}")
    if made.flags:
        raise SpecError(f"{path}.flags", "additional flags are not supported")
    return DOMAINS[made.domain]
