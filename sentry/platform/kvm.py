"""The platform over /dev/kvm: programs run in ring 3 of vCPUs that C threads drive.

This file sets the machine up and gives the C half (native/vcpu.h) its Python face. What happens
on a system call is there; per event, Python does one call to wait and one to answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import guest_stubs
from kvm.binding import lib as kvm_lib
from kvm.errors import Unavailable
from kvm.system import System
from kvm.vcpu import VCPU
from sentry.abi import processor as cpu
from sentry.platform import cpuid
from sentry.platform._native import ffi, lib
from sentry.platform.constants import DOORBELL_GPA, ENTRY_BASE, ENTRY_STRIDE, NUM_REGS
from sentry.platform.interface import ExitKind, FrameRest, SignalFrame
from sentry.platform.memory import AddressSpace, Ram
from sentry.platform.probe import MSR_LSTAR, MSR_SFMASK, MSR_STAR, STAR, SYSCALL_CLEARS, probe
from sentry.platform.vdso import Vdso, tsc_is_usable

if TYPE_CHECKING:
    from sentry.platform._native import Event

CHEAP_EXIT_NS = 8_000
"""Below this an exit costs less than handing over to another thread."""
_STOPPED: Final = lib.EVENT_STOPPED
_SYSCALL: Final = ExitKind.SYSCALL
_platform_wait: Final = lib.platform_wait
_ctx_answer: Final = lib.ctx_answer
_push_frame, _pop_frame = lib.ctx_push_frame, lib.ctx_pop_frame
_frame, _rest = ffi.new("struct sigframe *"), ffi.new("struct sigframe_rest *")
_KINDS = {int(kind): kind for kind in ExitKind}
_DETAILED = frozenset({ExitKind.FAULT, ExitKind.EXCEPTION, ExitKind.BROKEN})
_READY_SHIFT = 20
_EVENTS_MASK = (1 << _READY_SHIFT) - 1

_CR4 = (
    cpu.X86_CR4_PAE | cpu.X86_CR4_OSFXSR | cpu.X86_CR4_OSXMMEXCPT | cpu.X86_CR4_FSGSBASE
    | cpu.X86_CR4_OSXSAVE
)  # fmt: skip

_COUNTED = (
    *("mailbox", "handoffs", "crossings", "exits", "doorbell", "inline", "kicks", "switches"),
    "sleeps",
)
_REQUIRED = ("KVM_CAP_SYNC_REGS", "KVM_CAP_IMMEDIATE_EXIT", "KVM_CAP_READONLY_MEM", "KVM_CAP_XCRS")


class KvmAccount:
    """See interface.Account."""

    __slots__ = ("native",)

    def __init__(self) -> None:
        self.native = ffi.new("struct account *")

    def add_ns(self, time_ns: int) -> None:
        """What others had used."""
        self.native.cpu_ns += time_ns

    def cpu_time_ns(self) -> int:
        """CPU time of all, less what they spun for answers."""
        return lib.account_cpu_ns(self.native)


class KvmContext:
    """One task's registers; see interface.Context."""

    __slots__ = (
        "_account", "_c", "_platform", "_stop", "error_code", "exit", "fault_addr", "owner", "regs",
        "vector",
    )  # fmt: skip

    def __init__(self, platform: KvmPlatform, space: AddressSpace) -> None:
        self._c = lib.ctx_new(space.native)
        if self._c == ffi.NULL:
            raise MemoryError("no memory for a context")
        self._platform = platform
        self._stop: list[Callable[[], None]] = []
        # SAFETY: the view dies with the context; destroy() releases it before the memory goes.
        self.regs = memoryview(ffi.buffer(self._c.regs, NUM_REGS * 8)).cast("B").cast("Q")
        self.exit = ExitKind.NONE
        self.fault_addr = self.error_code = self.vector = 0
        self.owner: object = None

    def answer(self, value: int) -> None:
        """RAX = value and go on: the end of a system call that changed nothing else."""
        _ctx_answer(self._c, value)

    def resume(self) -> None:
        """Go on with all of `regs`."""
        lib.ctx_resume(self._c)

    def kick(self) -> None:
        """An exit of some kind follows soon."""
        lib.ctx_kick(self._c)

    def stop(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the vCPU is outside KVM_RUN: at once, or from wait()."""
        if lib.ctx_stop(self._c):
            callback()
        else:
            self._stop.append(callback)

    def bind(self, space: AddressSpace) -> None:
        """Run in another address space from now on. Preconditions: after an exit."""
        lib.ctx_bind(self._c, space.native)

    def get_fpu(self) -> bytes:
        """The FPU image (XSAVE, standard format). Preconditions: after an exit."""
        image = self._platform.fpu_scratch
        if lib.ctx_get_fpu(self._c, image):
            raise OSError("the FPU state cannot be read")
        return bytes(ffi.buffer(image))

    def set_fpu(self, image: bytes) -> None:
        """Go on with this image, or with the initial state if it is empty.

        Bits that XRSTOR would refuse are cleared.
        """
        image = image or self._platform.initial_fpu
        if len(image) != self._platform.xsave_size:
            raise ValueError(f"an FPU image has {self._platform.xsave_size} bytes")
        lib.ctx_set_fpu(self._c, image)

    def push_frame(self, space: AddressSpace, frame: SignalFrame) -> bool:
        """Write a signal frame and go on in the handler; False: a fault stopped that."""
        _frame[0] = frame
        done = _push_frame(self._c, _frame, space.fault)
        if done < 0:
            raise OSError("the FPU state cannot be read")
        return done > 0

    def pop_frame(self, space: AddressSpace, at: int, taken_flags: int) -> FrameRest | None:
        """Take all registers from a frame, if it is an ordinary one; gives what else is in it."""
        if not _pop_frame(self._c, at, taken_flags, _rest, space.fault):
            return None
        return FrameRest(_rest.alt_sp, _rest.alt_flags, _rest.alt_size, _rest.mask)

    def copy_from(self, other: KvmContext) -> None:
        """Take over registers and FPU state. Preconditions: both after an exit, or new."""
        if lib.ctx_copy(self._c, other._c):
            raise OSError("the FPU state cannot be read")

    def set_fast(self, pid: int, tid: int, ids: tuple[int, int, int, int]) -> None:
        """Let the entry code answer getpid, gettid, get[e]uid, get[e]gid (uid euid gid egid).

        A pid of 0 turns that off, for a task that somebody observes.
        """
        lib.ctx_set_fast(self._c, [(1 if pid else 0, pid, tid, *ids)])

    def charge(self, account: KvmAccount) -> None:
        """What it runs from now on counts there, too."""
        self._account = account
        lib.ctx_charge(self._c, account.native)

    def add_ns(self, time_ns: int) -> None:
        """What another one had run that it goes on for."""
        self._c.own.cpu_ns += time_ns

    def cpu_time_ns(self) -> int:
        """CPU time of the program, less what it spun for answers."""
        return lib.ctx_cpu_ns(self._c)

    def destroy(self) -> None:
        """Give the context up, whatever it does. It must not be used afterwards."""
        self._platform.forget(self._c.index)
        self.regs.release()
        lib.ctx_destroy(self._c)
        self._c = ffi.NULL

    def update(self, kind: ExitKind) -> None:
        """An exit came: fill in the attributes."""
        self.exit = kind
        if kind in _DETAILED:
            c = self._c
            self.fault_addr, self.error_code, self.vector = c.fault_addr, c.error_code, c.vector

    def stopped(self) -> None:
        """The vCPU is outside KVM_RUN."""
        callbacks, self._stop = self._stop, []
        for callback in callbacks:
            callback()


class KvmPlatform:
    """A machine with a pool of vCPUs. At most one per process at a time.

    `ram_fd` is the file behind guest memory (ours from now on), `ram_size` its length in bytes
    (sparse, a multiple of 1 GiB). `mailbox` chooses whether system calls may be answered without
    an exit, `inline` when the kernel thread runs programs itself. `kvm_fd` is /dev/kvm, if it was
    opened before.
    Raises: Unavailable, OSError.
    """

    def __init__(
        self,
        ram_fd: int,
        ram_size: int,
        *,
        vcpus: int | None = None,
        mailbox: bool = True,
        inline: bool | None = None,
        kvm_fd: int = -1,
    ) -> None:
        self.name = "kvm"
        cpus = len(os.sched_getaffinity(0))
        self.ready: list[tuple[int, int]] = []
        self._contexts: dict[int, KvmContext] = {}
        self._vcpus: list[VCPU] = []
        self._events_at: Event = ffi.NULL
        self._events = memoryview(b"").cast("I")
        self._watched: dict[int, int] = {}
        self._is_plugged = True
        self._system = System(fd=kvm_fd)
        _require(self._system)
        self._vm = self._system.create_vm()
        self.cpuid = cpuid.allowed(self._system.supported_cpuid(), cpus, _native_cpuid)
        self.xfeatures = cpuid.xfeatures(self.cpuid)
        self.xsave_size = cpuid.xsave_size(self.xfeatures, self.cpuid)
        self.fpu_scratch = ffi.new("uint8_t[]", self.xsave_size)
        self.initial_fpu = cpuid.initial_fpu(self.xsave_size)
        features = cpuid.leaf(self.cpuid, 7)
        if not features.ebx & 1:
            raise Unavailable("the CPU has no FSGSBASE, which the entry code needs")
        self._cr4 = _CR4
        if features.ecx & 4:
            self._cr4 |= cpu.X86_CR4_UMIP
        _check(lib.pool_open(self._vm.fd, self.xsave_size, self.xfeatures), "vCPU pool")
        self.ram = Ram(ram_fd, self._vm.fd, ram_size)
        self._make_vcpus(min(vcpus or max(8, 4 * cpus), lib.MAX_VCPUS - 1) + 1)
        if inline is None:
            inline = cpus == 1 or self.exit_ns < CHEAP_EXIT_NS
        _check(lib.pool_start(mailbox, inline, self.exit_ns), "vCPU threads")
        self.description = self._describe(mailbox, inline)

    def _describe(self, mailbox: bool, inline: bool) -> str:
        if self.quirks.syscall_stays_in_ring3:
            kind = "KVM without virtualization by the CPU (PVM)"
        else:
            kind = "KVM with virtualization by the CPU"
        how = "through shared memory" if mailbox else "by an exit of the virtual machine each"
        where = "a single program has the Sentry's thread" if inline else "vCPUs have threads"
        return f"{kind}; an exit costs {self.exit_ns} ns; system calls come {how}; {where}"

    def _make_vcpus(self, count: int) -> None:
        for number in range(count):
            vcpu = self._vm.create_vcpu(number)
            self._vcpus.append(vcpu)
            vcpu.set_cpuid(self.cpuid)
            vcpu.set_xcr0(self.xfeatures)
        self.quirks = probe(self._vcpus[0], self._cr4, DOORBELL_GPA)
        self.exit_ns = self.quirks.exit_ns
        # Stale edits mean shadow paging, where 2 MiB entries are unsafe (native/memory.h).
        lib.ram.large_entries = not self.quirks.page_table_edits_are_stale
        ring3 = self.quirks.syscall_stays_in_ring3
        entry = guest_stubs.load("entry_ring3" if ring3 else "entry_ring0")
        stubs = guest_stubs.load("exceptions")
        labels = {
            name.removeprefix("entry_"): value
            for name, value in (entry.symbols | stubs.symbols).items()
            if name.startswith(("entry", "trap"))
        }
        at = ffi.new("struct entry_labels *", labels)
        _check(
            lib.pool_set_stubs(ring3, entry.code, len(entry.code), stubs.code, len(stubs.code), at),
            "entry code",
        )
        same_tsc = True
        for number, vcpu in enumerate(self._vcpus):
            same_tsc &= self._tell_entry(number, vcpu)
            run = ffi.cast("void *", vcpu.run_address)
            _check(lib.pool_add_vcpu(vcpu.fd, run, self._cr4), "vCPU")
        power = cpuid.leaf(self.cpuid, 0x80000007).edx
        self.vdso = Vdso(same_tsc and tsc_is_usable(power))

    def _tell_entry(self, number: int, vcpu: VCPU) -> bool:
        """Where SYSCALL leads to; whether the guest's counter is the host's."""
        ring3 = self.quirks.syscall_stays_in_ring3
        same_tsc = vcpu.set_tsc_offset(0) or ring3  # in ring 3 of PVM, RDTSC is the host's
        vcpu.set_msr(MSR_STAR, STAR)
        vcpu.set_msr(MSR_LSTAR, ENTRY_BASE + number * ENTRY_STRIDE)
        vcpu.set_msr(MSR_SFMASK, 0 if ring3 else SYSCALL_CLEARS)
        return same_tsc

    def park(self) -> bool:
        """Take all programs out of the machine; False: not all can be yet, try soon.

        Preconditions: nobody is told to go on meanwhile.
        """
        return bool(lib.pool_park())

    def fork(self) -> int:
        """fork(2), freezing RAM before. Preconditions: `park`, and nothing is under way in other
        threads. In the child all that is left to do is `again`. Raises: OSError."""
        self.ram.freeze()
        pid = lib.pool_fork()
        _check(pid, "fork")
        return pid

    def unplug(self) -> None:
        """In the child: what is watched is noted, and watched once the machine is there again."""
        self._is_plugged = False

    def again(self, ram_fd: int, vcpus: int) -> None:
        """In the child: a machine of its own with the same programs in it, which takes new frames
        from `ram_fd`. `vcpus`: threads with one, at most. Raises: OSError, Errno."""
        for vcpu in self._vcpus:
            vcpu.close()
        self._vm.close()
        self._vm = self._system.create_vm()
        self._vcpus = []
        _check(lib.pool_again(self._vm.fd, vcpus + lib.pool.inlines), "epoll")
        self.ram.thaw(ram_fd, self._vm.fd)
        for number in range(lib.pool.vcpus):
            vcpu = self._vm.create_vcpu(number)
            self._vcpus.append(vcpu)
            vcpu.set_cpuid(self.cpuid)
            vcpu.set_xcr0(self.xfeatures)
            self._tell_entry(number, vcpu)
            lib.pool_renew_vcpu(number, vcpu.fd, ffi.cast("void *", vcpu.run_address))
        self.vdso.again()
        _check(lib.pool_start_threads(), "vCPU threads")
        self._is_plugged = True
        for fd, events in self._watched.items():
            _check(lib.events_watch(fd, events), "epoll_ctl")

    def new_address_space(self) -> AddressSpace:
        """An empty address space."""
        return AddressSpace(self.ram)

    def new_context(self, space: AddressSpace) -> KvmContext:
        """A context in the state after an exit: set `regs`, then resume()."""
        context = KvmContext(self, space)
        self._contexts[context._c.index] = context
        events = lib.pool.told
        if events != self._events_at:
            self._events_at = events
            # SAFETY: the array moves only in ctx_new, above; wait() fills less than 1 << 20 pairs.
            self._events = memoryview(ffi.buffer(events, 8 * lib.pool.events_size)).cast("I")
        return context

    def new_account(self) -> KvmAccount:
        """One that nothing counts in yet."""
        return KvmAccount()

    def forget(self, index: int) -> None:
        """A context is being destroyed."""
        del self._contexts[index]

    def wait(self, deadline_ns: int | None) -> Sequence[KvmContext]:
        """Wait for exits, ready descriptors (then in `ready`) or the deadline (CLOCK_MONOTONIC)."""
        result = _platform_wait(-1 if deadline_ns is None else deadline_ns)
        if result >= 0:
            if self.ready:
                self.ready = []
            context = self._contexts[result]
            context.exit = _SYSCALL
            return (context,)
        result = -1 - result
        ready = lib.pool.ready
        self.ready = [(ready[i].fd, ready[i].events) for i in range(result >> _READY_SHIFT)]
        pairs = self._events[: 2 * (result & _EVENTS_MASK)].tolist()
        contexts = self._contexts
        exited, stopped = [], []
        for index, kind in zip(pairs[::2], pairs[1::2], strict=True):
            context = contexts[index]
            if kind == _STOPPED:
                stopped.append(context)
            else:
                context.update(_KINDS[kind])
                exited.append(context)
        for context in stopped:
            context.stopped()
        return exited

    def events_so_far(self) -> dict[str, int]:
        """What happened between programs and kernel thread."""
        return {name: int(getattr(lib.pool, f"stat_{name}")) for name in _COUNTED}

    def watch(self, fd: int, events: int) -> None:
        """Report these EPOLL* events of a host descriptor, level-triggered; 0 ends that."""
        if events:
            self._watched[fd] = events
        else:
            self._watched.pop(fd, None)
        if self._is_plugged:
            _check(lib.events_watch(fd, events), "epoll_ctl")

    def close(self) -> None:
        """End the threads and give everything back; contexts and spaces must not be used again."""
        for context in self._contexts.values():
            context.regs.release()
        self._contexts.clear()
        self._events = memoryview(b"").cast("I")
        lib.pool_close()
        self.vdso.close()
        for vcpu in self._vcpus:
            vcpu.close()
        self._vm.close()
        self._system.close()
        self.ram.close()


def _native_cpuid(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    registers = ffi.new("uint32_t[]", 4)
    lib.native_cpuid(leaf, subleaf, registers)
    return registers[0], registers[1], registers[2], registers[3]


def _require(system: System) -> None:
    missing = [name for name in _REQUIRED if not system.capability(getattr(kvm_lib, name))]
    synced = kvm_lib.KVM_SYNC_X86_REGS | kvm_lib.KVM_SYNC_X86_SREGS | kvm_lib.KVM_SYNC_X86_EVENTS
    if system.capability(kvm_lib.KVM_CAP_SYNC_REGS) & synced != synced:
        missing.append("KVM_SYNC_X86_EVENTS")
    if missing:
        raise Unavailable(f"this KVM lacks {', '.join(missing)}")


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
