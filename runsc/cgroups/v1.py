"""Limits as files of version 1: Documentation/admin-guide/cgroup-v1, as runc writes them.

The limit of processes is not among them. A sandbox's host threads are its vCPUs and a few helpers,
a number that no program can change (its filter has no fork); the container's tasks are the
Sentry's, which gets the number and gives EAGAIN. The list of devices is not either: devices of a
container are the Sentry's own, and its processes open none of the host.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from runsc.cgroups import files
from runsc.errors import RuntimeFailure
from runsc.oci.resources import BlockIo, Cpu, Memory, Resources


def asks(resources: Resources) -> list[str]:
    """The controllers (by their names of version 1) that the document has limits for."""
    found = []
    memory, cpu, blkio = resources.memory, resources.cpu, resources.block_io
    if memory is not None and _has_values(memory):
        found.append("memory")
    if cpu is not None and (cpu.cpus or cpu.mems):
        found.append("cpuset")
    if cpu is not None and (
        any((cpu.shares, cpu.quota, cpu.period, cpu.realtime_runtime, cpu.realtime_period))
        or cpu.burst is not None
        or cpu.idle is not None
    ):
        found.append("cpu")
    if blkio is not None and _has_values(blkio):
        found.append("blkio")
    if any(limit.limit for limit in resources.hugepage_limits or []):
        found.append("hugetlb")
    if resources.rdma:
        found.append("rdma")
    return found


def _has_values(document: Memory | BlockIo) -> bool:
    return any(getattr(document, name) for name in document.__struct_fields__)


def apply(controller: str, directory: str, resources: Resources) -> None:
    """Write the limits of one controller. Raises: RuntimeFailure."""
    match controller:
        case "memory":
            assert resources.memory is not None
            _memory(directory, resources.memory)
        case "cpuset":
            assert resources.cpu is not None
            _cpuset(directory, resources.cpu)
        case "cpu":
            assert resources.cpu is not None
            _cpu(directory, resources.cpu)
        case "blkio":
            assert resources.block_io is not None
            _blkio(directory, resources.block_io)
        case "hugetlb":
            for limit in resources.hugepage_limits or []:
                files.must_write(
                    directory, f"hugetlb.{limit.page_size}.limit_in_bytes", str(limit.limit)
                )
        case "rdma":
            rdma(directory, resources.rdma or {})


def rdma(directory: str, devices: dict[str, dict[str, int]]) -> None:
    """The same file in both versions."""
    names = {"hcaHandles": "hca_handle", "hcaObjects": "hca_object"}
    for device, limits in devices.items():
        words = [f"{names[key]}={value}" for key, value in limits.items() if key in names]
        files.must_write(directory, "rdma.max", " ".join([device, *words]))


def inherit_cpuset(directory: str) -> None:
    """A new cgroup of cpuset has no CPUs and no nodes, and takes no process before it has some."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not files.read(directory, name).strip():
            above = files.read(os.path.dirname(directory), name).strip()
            if above:
                files.write(directory, name, above)


def _memory(directory: str, memory: Memory) -> None:
    _memory_and_swap(directory, memory.limit or 0, memory.swap or 0)
    for name, value in (
        ("memory.soft_limit_in_bytes", memory.reservation),
        ("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp),
        ("memory.swappiness", memory.swappiness),
        ("memory.oom_control", 1 if memory.disable_oom_killer else None),
    ):
        if value or (value is not None and name == "memory.swappiness"):
            files.must_write(directory, name, str(value))


def _memory_and_swap(directory: str, limit: int, swap: int) -> None:
    """The kernel keeps limit <= memory and swap at every moment, so the order matters."""
    if limit == -1 and not swap:
        swap = -1
    if swap and not files.exists(directory, "memory.memsw.limit_in_bytes"):
        swap = 0  # no swap accounting
    writes = [("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", swap)]
    now = files.read_number(directory, "memory.memsw.limit_in_bytes") or 0
    if swap == -1 or swap > now:
        writes.reverse()
    for name, value in writes:
        if not value:
            continue
        try:
            files.must_write(directory, name, str(value))
        except RuntimeFailure as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno == errno.EBUSY:
                usage = files.read_number(directory, "memory.usage_in_bytes")
                peak = files.read_number(directory, "memory.max_usage_in_bytes")
                raise RuntimeFailure(
                    f"unable to set memory limit to {value} "
                    f"(current usage: {usage}, peak usage: {peak})"
                ) from None
            raise


def _cpuset(directory: str, cpu: Cpu) -> None:
    if cpu.cpus:
        files.must_write(directory, "cpuset.cpus", cpu.cpus)
    if cpu.mems:
        files.must_write(directory, "cpuset.mems", cpu.mems)


def _cpu(directory: str, cpu: Cpu) -> None:
    if cpu.idle is not None:
        files.must_write(directory, "cpu.idle", str(cpu.idle))
    if cpu.shares:
        _shares(directory, cpu.shares)
    if cpu.realtime_period:
        files.must_write(directory, "cpu.rt_period_us", str(cpu.realtime_period))
    if cpu.realtime_runtime:
        files.must_write(directory, "cpu.rt_runtime_us", str(cpu.realtime_runtime))
    burst = "" if cpu.burst is None else str(cpu.burst)
    if burst:  # a burst above the quota is refused: none while the quota changes
        with suppress(OSError):
            files.write(directory, "cpu.cfs_burst_us", "0")
    period = str(cpu.period) if cpu.period else ""
    if period:
        try:
            files.must_write(directory, "cpu.cfs_period_us", period)
            period = ""
        except RuntimeFailure as error:
            cause = error.__cause__
            if not (isinstance(cause, OSError) and cause.errno == errno.EINVAL and cpu.quota):
                raise
    if cpu.quota:
        files.must_write(directory, "cpu.cfs_quota_us", str(cpu.quota))
    if period:  # quota and period together must stay below the parent's share: the other order
        files.must_write(directory, "cpu.cfs_period_us", period)
    if burst:
        files.must_write(directory, "cpu.cfs_burst_us", burst)


def _shares(directory: str, shares: int) -> None:
    """The kernel cuts what is out of range; runc makes that an error."""
    files.must_write(directory, "cpu.shares", str(shares))
    now = files.read_number(directory, "cpu.shares")
    if now is None or now == shares:
        return
    if shares > now:
        raise RuntimeFailure(f"the maximum allowed cpu-shares is {now}")
    raise RuntimeFailure(f"the minimum allowed cpu-shares is {now}")


def _blkio(directory: str, blkio: BlockIo) -> None:
    prefix = "blkio"
    if not files.exists(directory, "blkio.weight"):
        prefix = "blkio.bfq"  # since Linux 5.0 weights are BFQ's
    if blkio.weight:
        files.must_write(directory, f"{prefix}.weight", str(blkio.weight))
    if blkio.leaf_weight:
        files.must_write(directory, "blkio.leaf_weight", str(blkio.leaf_weight))
    for device in blkio.weight_device or []:
        number = f"{device.major}:{device.minor}"
        if device.weight:
            files.must_write(directory, f"{prefix}.weight_device", f"{number} {device.weight}")
        if device.leaf_weight:
            value = f"{number} {device.leaf_weight}"
            files.must_write(directory, "blkio.leaf_weight_device", value)
    for name, devices in (
        ("read_bps", blkio.throttle_read_bps_device),
        ("write_bps", blkio.throttle_write_bps_device),
        ("read_iops", blkio.throttle_read_iops_device),
        ("write_iops", blkio.throttle_write_iops_device),
    ):
        for limit in devices or []:
            value = f"{limit.major}:{limit.minor} {limit.rate}"
            files.must_write(directory, f"blkio.throttle.{name}_device", value)
