"""Limits as files of version 2: Documentation/admin-guide/cgroup-v2.rst.

config.json speaks of version 1; the conversions are those of runc and crun, so that the same
document means the same under each. See v1.py for what is not written.
"""

from __future__ import annotations

import errno
from contextlib import suppress

from runsc.cgroups import files
from runsc.cgroups.v1 import rdma
from runsc.errors import RuntimeFailure
from runsc.oci.resources import BlockIo, Cpu, Memory, Resources, ThrottleDevice

_NOT_FOUND = (errno.ENOENT, errno.EACCES, errno.EPERM)


def apply(controller: str, directory: str, resources: Resources) -> None:
    """Write the limits of one controller, called as in version 1. Raises: RuntimeFailure."""
    match controller:
        case "memory":
            assert resources.memory is not None
            _memory(directory, resources.memory)
        case "cpuset":
            assert resources.cpu is not None
            _cpuset(directory, resources.cpu)
        case "cpu":
            assert resources.cpu is not None
            _cpu(directory, resources.cpu, resources.cpu_weight)
        case "blkio":
            assert resources.block_io is not None
            _io(directory, resources.block_io)
        case "hugetlb":
            for limit in resources.hugepage_limits or []:
                files.must_write(directory, f"hugetlb.{limit.page_size}.max", str(limit.limit))
        case "rdma":
            rdma(directory, resources.rdma or {})


def apply_unified(directory: str, values: dict[str, str]) -> None:
    """The document's own files and values, after everything else."""
    for name, value in values.items():
        try:
            files.must_write(directory, name, value)
        except RuntimeFailure as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in _NOT_FOUND:
                controller = name.partition(".")[0]
                known = files.read(directory, "cgroup.controllers").split()
                if controller not in (*known, "cgroup"):
                    raise RuntimeFailure(
                        f'unified resource "{name}" can\'t be set: '
                        f'controller "{controller}" not available'
                    ) from None
            raise


def enable_controllers(directory: str) -> None:
    """Let the children have all controllers. Those that cannot be had show when limits are set."""
    with suppress(OSError):
        wanted = set(files.read(directory, "cgroup.controllers").split())
        wanted -= set(files.read(directory, "cgroup.subtree_control").split())
        for controller in sorted(wanted):
            with suppress(OSError):
                files.write(directory, "cgroup.subtree_control", f"+{controller}")


def weight_of_blkio(weight: int) -> int:
    """blkio.weight [10, 1000] to io.weight [1, 10000]."""
    return 1 + (min(max(weight, 10), 1000) - 10) * 9999 // 990


def swap_of(swap: int, limit: int) -> str:
    """Memory and swap together to swap alone; empty for no limit to write.

    Raises: RuntimeFailure.
    """
    if limit == -1 and not swap:
        return "max"
    if not swap:
        return ""
    if swap == -1:
        return "max"
    if limit == -1:
        return str(swap)
    if not limit:
        raise RuntimeFailure("unable to set swap limit without memory limit")
    if swap < limit:
        raise RuntimeFailure("memory+swap limit should be >= memory limit")
    return str(swap - limit)


def _number(value: int) -> str:
    return "max" if value == -1 else str(value)


def _memory(directory: str, memory: Memory) -> None:
    limit = memory.limit or 0
    if memory.check_before_update and limit > 0:
        usage = files.read_number(directory, "memory.current") or 0
        if limit < usage:
            raise RuntimeFailure(f"rejecting memory limit {limit}: current usage is {usage}")
    known = limit or files.read_number(directory, "memory.max") or 0
    swap = swap_of(memory.swap or 0, known)
    if swap:
        try:
            files.must_write(directory, "memory.swap.max", swap)
        except RuntimeFailure as error:
            missing = isinstance(error.__cause__, FileNotFoundError)
            if not missing or swap not in ("max", "0"):
                raise
    if limit:
        files.must_write(directory, "memory.max", _number(limit))
    if memory.reservation:
        files.must_write(directory, "memory.low", _number(memory.reservation))


def _cpuset(directory: str, cpu: Cpu) -> None:
    if cpu.cpus:
        files.must_write(directory, "cpuset.cpus", cpu.cpus)
    if cpu.mems:
        files.must_write(directory, "cpuset.mems", cpu.mems)


def _cpu(directory: str, cpu: Cpu, weight: int | None) -> None:
    if cpu.idle is not None:
        files.must_write(directory, "cpu.idle", str(cpu.idle))
    if weight:
        files.must_write(directory, "cpu.weight", str(weight))
    if cpu.burst is not None:
        with suppress(OSError):
            files.write(directory, "cpu.max.burst", "0")
    if cpu.quota or cpu.period:
        quota = _quota(directory) if not cpu.quota else str(cpu.quota)
        if quota.startswith("-"):
            quota = "max"
        period = f" {cpu.period}" if cpu.period else ""
        files.must_write(directory, "cpu.max", quota + period)
    if cpu.burst is not None:
        files.must_write(directory, "cpu.max.burst", str(cpu.burst))


def _quota(directory: str) -> str:
    """The quota in force: a period alone does not change it."""
    words = files.read(directory, "cpu.max").split()
    return words[0] if words else "max"


def _io(directory: str, blkio: BlockIo) -> None:
    is_bfq = files.exists(directory, "io.bfq.weight")
    if blkio.weight and is_bfq:
        files.must_write(directory, "io.bfq.weight", str(blkio.weight))
    elif blkio.weight:
        value = f"default {weight_of_blkio(blkio.weight)}"
        files.must_write(directory, "io.weight", value)
    for device in blkio.weight_device or []:
        if device.weight and is_bfq:
            value = f"{device.major}:{device.minor} {device.weight}"
            files.must_write(directory, "io.bfq.weight", value)
    throttles: tuple[tuple[str, list[ThrottleDevice] | None], ...] = (
        ("rbps", blkio.throttle_read_bps_device),
        ("wbps", blkio.throttle_write_bps_device),
        ("riops", blkio.throttle_read_iops_device),
        ("wiops", blkio.throttle_write_iops_device),
    )
    for name, devices in throttles:
        for limit in devices or []:
            rate = str(limit.rate) if limit.rate else "max"
            files.must_write(directory, "io.max", f"{limit.major}:{limit.minor} {name}={rate}")
