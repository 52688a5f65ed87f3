"""The platform over libunicorn: programs run in an emulated CPU, on the kernel thread.

For tests and for machines without /dev/kvm. It is no security boundary: the emulator is a large C
program that the attacker feeds with instructions. Address spaces, RAM and user copies are the same
as on kvm; the C half is described in unicorn_native/machine.h.

What differs from a real CPU: no AVX (CPUID says so), one context runs at a time, SSE exceptions and
alignment checks are never raised, a #GP for a bad selector has error code 0, and IN, OUT and
SYSENTER are refused only after the rest of their basic block was executed in memory.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sentry.platform import sigframe, unicorn_cpuid
from sentry.platform._native import ffi as memory_ffi
from sentry.platform._native import lib as memory
from sentry.platform._unicorn import ffi, lib
from sentry.platform.constants import NUM_REGS, RO_WINDOW_GPA, RW_WINDOW_GPA
from sentry.platform.interface import ExitKind, FrameRest, SignalFrame
from sentry.platform.memory import AddressSpace, Ram

if TYPE_CHECKING:
    from sentry.platform._native import Data as MemoryData
    from sentry.platform._unicorn import Data

XSAVE_SIZE: Final = 576
"""x87 and SSE: the legacy area and the header."""
_KINDS: Final = {int(kind): kind for kind in ExitKind}
_LIBRARIES: Final = ("libunicorn.so.2", "libunicorn.so")


class Unavailable(RuntimeError):
    """libunicorn cannot be used; the text says why."""


def find_library() -> Path:
    """The library that the `unicorn` package ships. The package itself is not imported.

    Raises: Unavailable.
    """
    spec = importlib.util.find_spec("unicorn")
    for place in (spec and spec.submodule_search_locations) or ():
        for name in _LIBRARIES:
            if (path := Path(place) / "lib" / name).is_file():
                return path
    raise Unavailable(
        "the unicorn platform needs the package unicorn: pip install 'runsc[unicorn]'"
    )


def preload() -> None:
    """Load libunicorn, once: inside the sandbox there are no files. Raises: Unavailable."""
    path = find_library()
    problem = lib.unicorn_load(os.fsencode(path))
    if problem != ffi.NULL:
        raise Unavailable(f"{path}: {ffi.string(problem).decode(errors='replace')}")


class UnicornSpace(AddressSpace):
    """An address space with a name: the page of a destroyed one's top table is used again."""

    __slots__ = ("number",)
    _numbers = itertools.count(1)

    def __init__(self, ram: Ram) -> None:
        super().__init__(ram)
        self.number = next(self._numbers)


class UnicornAccount:
    """See interface.Account."""

    __slots__ = ("native",)

    def __init__(self) -> None:
        self.native = ffi.new("uint64_t *")

    def add_ns(self, time_ns: int) -> None:
        """What others had used."""
        self.native[0] += time_ns

    def cpu_time_ns(self) -> int:
        """Time of all in emulation."""
        return self.native[0]


class UnicornContext:
    """One task's registers; see interface.Context."""

    __slots__ = (
        "_account", "_c", "_platform", "error_code", "exit", "fault_addr", "owner", "regs",
        "vector",
    )  # fmt: skip

    def __init__(self, platform: UnicornPlatform, space: UnicornSpace) -> None:
        self._c = lib.uctx_new(space.root, space.number)
        if self._c == ffi.NULL:
            raise MemoryError("no memory for a context")
        self._platform = platform
        # SAFETY: the view dies with the context; destroy() releases it before the memory goes.
        self.regs = memoryview(ffi.buffer(self._c.regs, NUM_REGS * 8)).cast("B").cast("Q")
        self.exit = ExitKind.NONE
        self.fault_addr = self.error_code = self.vector = 0
        self.owner: object = None

    @property
    def index(self) -> int:
        """Its place in the platform's table."""
        return self._c.index

    def answer(self, value: int) -> None:
        """RAX = value and go on: the end of a system call that changed nothing else."""
        lib.uctx_answer(self._c, value & 0xFFFFFFFFFFFFFFFF)

    def resume(self) -> None:
        """Go on with all of `regs`."""
        lib.uctx_resume(self._c)

    def kick(self) -> None:
        """An exit of some kind follows soon."""
        lib.uctx_kick(self._c)

    def stop(self, callback: Callable[[], None]) -> None:
        """Call `callback` at once: outside of wait() nothing runs."""
        lib.uctx_stop(self._c)
        callback()

    def bind(self, space: UnicornSpace) -> None:
        """Run in another address space from now on. Preconditions: after an exit."""
        lib.uctx_bind(self._c, space.root, space.number)

    def get_fpu(self) -> bytes:
        """The FPU image (XSAVE, standard format). Preconditions: after an exit."""
        image = ffi.new("uint8_t[]", XSAVE_SIZE)
        lib.uctx_get_fpu(self._c, image)
        return bytes(ffi.buffer(image))

    def set_fpu(self, image: bytes) -> None:
        """Go on with this image, what XRSTOR would refuse cleared; empty: the initial state."""
        image = image or bytes(XSAVE_SIZE)
        if len(image) != XSAVE_SIZE:
            raise ValueError(f"an FPU image has {XSAVE_SIZE} bytes")
        lib.uctx_set_fpu(self._c, image)

    def push_frame(self, space: UnicornSpace, frame: SignalFrame) -> bool:
        """Write a signal frame and go on in the handler; False: a fault stopped that."""
        return sigframe.push(self, space, frame)

    def pop_frame(self, space: UnicornSpace, at: int, taken_flags: int) -> FrameRest | None:
        """Take all registers from a frame, if it is an ordinary one; gives what else is in it."""
        features = UnicornPlatform.xfeatures
        return sigframe.pop(self, space, at, taken_flags, XSAVE_SIZE, features)

    def copy_from(self, other: UnicornContext) -> None:
        """Take over registers and FPU state. Preconditions: both after an exit, or new."""
        lib.uctx_copy(self._c, other._c)

    def set_fast(self, pid: int, tid: int, ids: tuple[int, int, int, int]) -> None:
        """Answer getpid, gettid, get[e]uid, get[e]gid (uid euid gid egid) without an exit.

        A pid of 0 turns that off, for a task that somebody observes.
        """
        lib.uctx_set_fast(self._c, [(1 if pid else 0, pid, tid, *ids)])

    def charge(self, account: UnicornAccount) -> None:
        """What it runs from now on counts there, too."""
        self._account = account
        lib.uctx_charge(self._c, account.native)

    def add_ns(self, time_ns: int) -> None:
        """What another one had run that it goes on for."""
        self._c.cpu_ns += time_ns

    def cpu_time_ns(self) -> int:
        """Time in emulation."""
        return self._c.cpu_ns

    def destroy(self) -> None:
        """Give the context up, whatever it does. It must not be used afterwards."""
        self._platform.forget(self.index)
        self.regs.release()
        lib.uctx_destroy(self._c)
        self._c = ffi.NULL

    def update(self) -> None:
        """An exit came: fill in the attributes."""
        c = self._c
        self.exit = _KINDS[c.kind]
        self.fault_addr, self.error_code, self.vector = c.fault_addr, c.error_code, c.vector


class UnicornPlatform:
    """A machine with one emulated CPU. At most one per process at a time.

    `ram_fd` is the file behind guest memory (ours from now on), `ram_size` its length in bytes
    (sparse, a multiple of 1 GiB).

    Raises: Unavailable, OSError.
    """

    name = "unicorn"
    description = "one emulated CPU; a system call ends its run"
    xsave_size = XSAVE_SIZE
    xfeatures = 3

    def __init__(self, ram_fd: int, ram_size: int) -> None:
        if not lib.unicorn_loaded():
            preload()
        self.ready: list[tuple[int, int]] = []
        self._contexts: dict[int, UnicornContext] = {}
        self.ram = Ram(ram_fd, -1, ram_size)
        try:
            self._open()
        except BaseException:
            lib.machine_close()
            self.ram.close()
            raise

    def _open(self) -> None:
        ro_window, rw_window = memory.frame_host(RO_WINDOW_GPA), memory.frame_host(RW_WINDOW_GPA)
        flushes = memory_ffi.addressof(memory.ram_counters, "flush_calls")
        code = memory_ffi.addressof(memory.ram_counters, "code_changes")
        # SAFETY: RAM, windows and counters outlive the machine: close() ends it first.
        opened = lib.machine_open(
            _pointer(memory.ram.base), memory.ram.span, _pointer(ro_window), _pointer(rw_window),
            _pointer(flushes), _pointer(code),
        )  # fmt: skip
        _check(opened, "emulator")
        cpus = len(os.sched_getaffinity(0))
        self.vdso = None
        self.exit_ns = 0
        self.cpuid = unicorn_cpuid.allowed(self._raw_cpuid, cpus)
        rows = [
            (e.function, e.index, e.function in unicorn_cpuid.INDEXED, (e.eax, e.ebx, e.ecx, e.edx))
            for e in self.cpuid
        ]
        _check(lib.machine_set_cpuid(ffi.new("struct cpuid[]", rows), len(rows)), "CPUID")

    @staticmethod
    def _raw_cpuid(function: int, index: int) -> tuple[int, int, int, int]:
        value = ffi.new("uint32_t[]", 4)
        _check(lib.machine_read_cpuid(function, index, value), "CPUID")
        return value[0], value[1], value[2], value[3]

    def new_address_space(self) -> UnicornSpace:
        """An empty address space."""
        return UnicornSpace(self.ram)

    def new_context(self, space: UnicornSpace) -> UnicornContext:
        """A context in the state after an exit: set `regs`, then resume()."""
        context = UnicornContext(self, space)
        self._contexts[context.index] = context
        return context

    def new_account(self) -> UnicornAccount:
        """One that nothing counts in yet."""
        return UnicornAccount()

    def forget(self, index: int) -> None:
        """A context is being destroyed."""
        del self._contexts[index]

    def wait(self, deadline_ns: int | None) -> Sequence[UnicornContext]:
        """Emulate until an exit, a ready descriptor (then in `ready`) or the deadline."""
        machine = lib.machine
        count = lib.machine_wait(-1 if deadline_ns is None else deadline_ns)
        if (ready := machine.n_ready) or self.ready:
            self.ready = [(machine.ready[i].fd, machine.ready[i].events) for i in range(ready)]
        exited = [self._contexts[machine.events[i]] for i in range(count)]
        for context in exited:
            context.update()
        return exited

    def events_so_far(self) -> dict[str, int]:
        """None are counted."""
        return {}

    def watch(self, fd: int, events: int) -> None:
        """Report these EPOLL* events of a host descriptor, level-triggered; 0 ends that."""
        _check(lib.machine_watch(fd, events), "epoll_ctl")

    def close(self) -> None:
        """Give everything back; contexts and spaces must not be used again."""
        for context in self._contexts.values():
            context.regs.release()
        self._contexts.clear()
        lib.machine_close()
        self.ram.close()


def _pointer(address: MemoryData) -> Data:
    """A pointer of the memory half's module for this one."""
    return ffi.cast("void *", int(memory_ffi.cast("uintptr_t", address)))


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    if result > 0:
        raise Unavailable(f"{what}: {ffi.string(lib.machine_strerror(result)).decode()}")
