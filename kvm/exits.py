"""Why KVM_RUN returned: one frozen dataclass for each reason, to be told apart with `match`.

The reasons and their payload: Documentation/virt/kvm/api.rst of Linux, section 5 "The kvm_run
structure".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hlt:
    """The guest executed HLT."""


@dataclass(frozen=True, slots=True)
class MmioRead:
    """A load from an address without a memory slot: answer with VCPU.complete_read."""

    address: int
    size: int


@dataclass(frozen=True, slots=True)
class MmioWrite:
    """A store to an address without a memory slot, or to a read-only slot."""

    address: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PortIn:
    """IN or INS: answer with VCPU.complete_in (size * count bytes)."""

    port: int
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class PortOut:
    """OUT or OUTS: `count` items of `size` bytes."""

    port: int
    size: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A signal, or immediate_exit."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Triple fault."""


@dataclass(frozen=True, slots=True)
class FailEntry:
    """The CPU refused the guest's state; `reason` is the hardware's code."""

    reason: int


@dataclass(frozen=True, slots=True)
class InternalError:
    """KVM cannot go on, for example with an instruction that it cannot emulate."""

    suberror: int
    data: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SystemEvent:
    """The guest asked for a reset, a shutdown and the like."""

    kind: int


@dataclass(frozen=True, slots=True)
class BadMemory:
    """KVM_RUN failed with EFAULT: no host memory behind a guest-physical address."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A reason that this package does not decode."""

    reason: int


Exit = (
    Hlt
    | MmioRead
    | MmioWrite
    | PortIn
    | PortOut
    | Interrupted
    | Shutdown
    | FailEntry
    | InternalError
    | SystemEvent
    | BadMemory
    | Unknown
)
