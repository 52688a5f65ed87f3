"""A cgroup as a unit of systemd: its names, and limits as properties of a scope.

systemd.slice(5), systemd.scope(5), systemd.resource-control(5), org.freedesktop.systemd1(5). The
forms and the defaults are those of runc, so that engines find what they look for. To talk to
systemd is `systemd.py`'s.
"""

from __future__ import annotations

from msgspec import Struct

from runsc.cgroups import v2
from runsc.errors import SpecError
from runsc.oci.resources import Cpu, Memory, Resources, parse_list

Property = tuple[str, tuple[str, object]]
"""Name, and a variant: its type as D-Bus writes it, and the value."""
INFINITY = 2**64 - 1
PERIOD_US = 100_000
STEP_US = 10_000
"""systemd keeps a quota as whole percents of a second."""


class Unit(Struct, frozen=True):
    """A scope, and the slice that it is in."""

    slice: str
    name: str

    @property
    def path(self) -> str:
        """From the top of what this systemd manages: the slices are directories in each other."""
        return f"{_expand(self.slice)}/{self.name}"


def parse(cgroups_path: str, container_id: str, privileged: bool) -> Unit:
    """What "slice:prefix:name" means. Raises: SpecError."""
    slice_name, prefix, name = "", "runsc", container_id
    if cgroups_path:
        parts = cgroups_path.split(":")
        if len(parts) != 3:
            raise SpecError(
                "$.linux.cgroupsPath",
                'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, '
                f'got "{cgroups_path}" instead',
            )
        slice_name, prefix, name = parts
    unit = Unit(slice_name or ("system.slice" if privileged else "user.slice"), name)
    if name.endswith(".slice"):
        raise SpecError("$.linux.cgroupsPath", "a container is a scope, not a slice")
    unit = Unit(unit.slice, f"{prefix}-{name}.scope")
    if "/" in unit.name or "\0" in unit.name:
        raise SpecError("$.linux.cgroupsPath", f"invalid unit name: {unit.name!r}")
    _expand(unit.slice)
    return unit


def _expand(name: str) -> str:
    """a-b.slice is /a.slice/a-b.slice. Raises: SpecError."""
    stem = name.removesuffix(".slice")
    if stem == "-":
        return ""
    parts = stem.split("-")
    if not name.endswith(".slice") or "/" in name or "\0" in name or not all(parts):
        raise SpecError("$.linux.cgroupsPath", f"invalid slice name: {name}")
    steps = ("-".join(parts[: number + 1]) for number in range(len(parts)))
    return "".join(f"/{step}.slice" for step in steps)


def new_scope(unit: Unit, pid: int) -> list[Property]:
    """What a scope is made with; its tasks are not limited: see v1.py."""
    switches = ("Delegate", "CPUAccounting", "MemoryAccounting", "IOAccounting", "TasksAccounting")
    return [
        ("Description", ("s", f"runsc container {unit.name.removesuffix('.scope')}")),
        ("Slice", ("s", unit.slice)),
        ("PIDs", ("au", [pid])),
        *((name, ("b", True)) for name in switches),
        ("DefaultDependencies", ("b", False)),
        ("TasksMax", ("t", INFINITY)),
    ]


def limits(resources: Resources, version: int) -> list[Property]:
    """What systemd is to know of the limits, lest it undoes them when it reloads its units.

    The files are written besides (v1.py, v2.py). `version` is that of the memory controller.
    """
    found: list[Property] = []
    if resources.memory is not None:
        found += _memory(resources.memory, version)
    if resources.cpu is not None:
        found += _cpu(resources.cpu, resources.cpu_weight, version)
    return found


def _memory(memory: Memory, version: int) -> list[Property]:
    found: list[Property] = []
    if memory.limit:
        name = "MemoryMax" if version == 2 else "MemoryLimit"
        found.append((name, ("t", _bytes(memory.limit))))
    if version != 2:
        return found
    if memory.reservation:
        found.append(("MemoryLow", ("t", _bytes(memory.reservation))))
    if memory.swap and memory.limit:
        swap = v2.swap_of(memory.swap, memory.limit)
        found.append(("MemorySwapMax", ("t", INFINITY if swap == "max" else int(swap))))
    return found


def _bytes(value: int) -> int:
    return INFINITY if value == -1 else value


def _cpu(cpu: Cpu, weight: int | None, version: int) -> list[Property]:
    found: list[Property] = []
    if cpu.shares and version == 2:
        found.append(("CPUWeight", ("t", weight)))
    elif cpu.shares:
        found.append(("CPUShares", ("t", cpu.shares)))
    if cpu.period:
        found.append(("CPUQuotaPeriodUSec", ("t", cpu.period)))
    if cpu.quota:
        found.append(("CPUQuotaPerSecUSec", ("t", _per_second(cpu.quota, cpu.period))))
    for name, text in (("AllowedCPUs", cpu.cpus), ("AllowedMemoryNodes", cpu.mems)):
        if text and version == 2:
            found.append((name, ("ay", _bits(text, name))))
    return found


def _per_second(quota: int, period: int | None) -> int:
    """Microseconds of a second, rounded up to a step."""
    if quota < 0:
        return INFINITY
    return -(-quota * 1_000_000 // (period or PERIOD_US) // STEP_US) * STEP_US


def _bits(text: str, name: str) -> bytes:
    """A list as a mask, the lowest byte first. Raises: SpecError."""
    try:
        mask = sum(1 << number for number in parse_list(text))
    except ValueError:
        raise SpecError("$.linux.resources.cpu", f"{name}: {text!r} is not a list") from None
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")
