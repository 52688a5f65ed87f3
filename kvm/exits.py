"""Why KVM_RUN returned: one frozen struct for each reason, to be told apart with `match`.

The reasons and their payload: Documentation/virt/kvm/api.rst of Linux, section 5 "The kvm_run
structure".
"""

from __future__ import annotations

from msgspec import Struct


class Hlt(Struct, frozen=True):
    """The guest executed HLT."""


class MmioRead(Struct, frozen=True):
    """A load from an address without a memory slot: answer with VCPU.complete_read."""

    address: int
    size: int


class MmioWrite(Struct, frozen=True):
    """A store to an address without a memory slot, or to a read-only slot."""

    address: int
    data: bytes


class PortIn(Struct, frozen=True):
    """IN or INS: answer with VCPU.complete_in (size * count bytes)."""

    port: int
    size: int
    count: int


class PortOut(Struct, frozen=True):
    """OUT or OUTS: `count` items of `size` bytes."""

    port: int
    size: int
    data: bytes


class Interrupted(Struct, frozen=True):
    """A signal, or immediate_exit."""


class Shutdown(Struct, frozen=True):
    """Triple fault."""


class FailEntry(Struct, frozen=True):
    """The CPU refused the guest's state; `reason` is the hardware's code."""

    reason: int


class InternalError(Struct, frozen=True):
    """KVM cannot go on, for example with an instruction that it cannot emulate."""

    suberror: int
    data: tuple[int, ...]


class SystemEvent(Struct, frozen=True):
    """The guest asked for a reset, a shutdown and the like."""

    kind: int


class BadMemory(Struct, frozen=True):
    """KVM_RUN failed with EFAULT: no host memory behind a guest-physical address."""


class Unknown(Struct, frozen=True):
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
