"""linux.resources of config.json, and the document of `update --resources`, as typed structs.

Runtime specification 1.2, config-linux.md, "Control groups". `None` is what the document does not
say; what a value means to which file is v1.py's and v2.py's.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from runsc.errors import SpecError
from runsc.oci import spec

U16 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]


class _Base(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """Names as in the specification."""


class Memory(_Base):
    """config-linux.md, "Memory". Bytes; -1 is no limit."""

    limit: spec.I64 | None = None
    reservation: spec.I64 | None = None
    swap: spec.I64 | None = None
    """Memory and swap together."""
    kernel: spec.I64 | None = None
    kernel_tcp: spec.I64 | None = msgspec.field(default=None, name="kernelTCP")
    swappiness: spec.U64 | None = None
    disable_oom_killer: bool | None = msgspec.field(default=None, name="disableOOMKiller")
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class Cpu(_Base):
    """config-linux.md, "CPU". Microseconds."""

    shares: spec.U64 | None = None
    quota: spec.I64 | None = None
    burst: spec.U64 | None = None
    period: spec.U64 | None = None
    realtime_runtime: spec.I64 | None = None
    realtime_period: spec.U64 | None = None
    cpus: str = ""
    mems: str = ""
    idle: spec.I64 | None = None


class Pids(_Base):
    """config-linux.md, "PIDs"."""

    limit: spec.I64 | None = None


class WeightDevice(_Base):
    """config-linux.md, "Block IO": a weight of one device."""

    major: spec.I64
    minor: spec.I64
    weight: U16 | None = None
    leaf_weight: U16 | None = None


class ThrottleDevice(_Base):
    """config-linux.md, "Block IO": bytes or operations a second of one device."""

    major: spec.I64
    minor: spec.I64
    rate: spec.U64 = 0


class BlockIo(_Base):
    """config-linux.md, "Block IO"."""

    weight: U16 | None = None
    leaf_weight: U16 | None = None
    weight_device: list[WeightDevice] | None = None
    throttle_read_bps_device: list[ThrottleDevice] | None = None
    throttle_write_bps_device: list[ThrottleDevice] | None = None
    throttle_read_iops_device: list[ThrottleDevice] | None = msgspec.field(
        default=None, name="throttleReadIOPSDevice"
    )
    throttle_write_iops_device: list[ThrottleDevice] | None = msgspec.field(
        default=None, name="throttleWriteIOPSDevice"
    )


class HugepageLimit(_Base):
    """config-linux.md, "Huge page limits"."""

    page_size: str
    limit: spec.U64


class Resources(_Base):
    """config-linux.md, "Control groups"."""

    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIo | None = msgspec.field(default=None, name="blockIO")
    hugepage_limits: list[HugepageLimit] | None = None
    network: dict[str, Any] | None = None
    rdma: dict[str, dict[str, int]] | None = None
    devices: list[dict[str, Any]] | None = None
    unified: dict[str, str] | None = None

    @property
    def memory_limit(self) -> int | None:
        """Bytes that the sandbox may use; None if that is not limited."""
        limit = self.memory.limit if self.memory else None
        return limit if limit is not None and limit > 0 else None

    @property
    def pids_limit(self) -> int | None:
        """Tasks that the container may have; None if that is not limited."""
        limit = self.pids.limit if self.pids else None
        return limit if limit is not None and limit > 0 else None

    @property
    def cpu_quota(self) -> tuple[int, int]:
        """Microseconds of CPU (0: not limited) in a period, and the period."""
        cpu = self.cpu or Cpu()
        return max(0, cpu.quota or 0), cpu.period or 100_000

    @property
    def cpu_weight(self) -> int | None:
        """`shares` as cpu.weight: from [2, 262144] to [1, 10000], linearly, out of range cut."""
        shares = self.cpu.shares if self.cpu else None
        return 1 + ((min(max(shares, 2), 262144) - 2) * 9999) // 262142 if shares else None

    @property
    def oom_group(self) -> bool:
        """Whether all of the container is to be killed where memory runs out for one."""
        return (self.unified or {}).get("memory.oom.group") == "1"

    @property
    def cpus(self) -> str:
        """A cpuset(7) list; empty if it is not limited."""
        return self.cpu.cpus if self.cpu else ""


def decode(document: object, where: str = "$.linux.resources") -> Resources:
    """Check what JSON has become. Raises: SpecError with the JSON path below `where`."""
    made = spec.convert(document, Resources, where)
    _check(made, where)
    return made


def _check(resources: Resources, where: str) -> None:
    for name, values in (("unified", resources.unified), ("rdma", resources.rdma)):
        for key in values or {}:
            if "/" in key or key in (".", "..") or "\0" in key:
                raise SpecError(f"{where}.{name}", f"{name}: {key!r} is not a name")
    for index, limit in enumerate(resources.hugepage_limits or []):
        if not limit.page_size.isalnum():
            path = f"{where}.hugepageLimits[{index}].pageSize"
            raise SpecError(path, f"{limit.page_size!r} is not a size")


def parse_list(text: str) -> set[int]:
    """The numbers of a cpuset(7) list like "0-2,7". Raises: ValueError for other forms."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        start, end = int(first), int(last if dash else first)
        if not 0 <= start <= end < 1 << 13:
            raise ValueError(text)
        numbers.update(range(start, end + 1))
    return numbers
