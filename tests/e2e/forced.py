"""Ways of CPython and glibc that a run takes seldom, taken under the filter of a role.

    python -m tests.e2e.forced ROLE

A child puts itself under the role's filter, does everything below and ends. A second one ends by a
broken heap: glibc says so, and is killed, for the signal that it wants to send no role may send.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable

from runsc import filters, host
from sentry.abi import prctl, unistd
from sentry.abi.fcntl import AT_EMPTY_PATH
from sentry.abi.futex import FUTEX_WAKE
from sentry.abi.membarrier import (
    MEMBARRIER_CMD_PRIVATE_EXPEDITED,
    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
)
from sentry.platform._native import lib as platform

PROGRAMS: dict[str, Callable[[], bytes]] = {
    "sentry": lambda: filters.sentry_program("kvm", "none"),
    "gofer": filters.gofer_program,
    "network": filters.network_program,
    "nameserver": lambda: filters.network_program(uplinks=True, listens=True),
    "dialer": filters.dialer_program,
}
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.malloc.restype = ctypes.c_void_p
BUFFER = ctypes.create_string_buffer(256)
FILE = os.memfd_create("file")
MAPPING = mmap.mmap(-1, 4096)


def grow() -> None:
    """mremap(2)."""
    data = bytearray(1 << 20)
    for _ in range(4):
        data.extend(bytes(1 << 20))


def status_by_descriptor() -> None:
    """What fstat(3) of some versions of glibc calls."""
    assert LIBC.syscall(unistd.newfstatat, FILE, b"", BUFFER, AT_EMPTY_PATH) == 0


def protect() -> None:
    where = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(MAPPING)))
    assert LIBC.mprotect(where, 4096, mmap.PROT_READ) == 0


def barrier() -> None:
    assert platform.host_membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0


def cpu_time() -> None:
    """A clock that no vDSO has."""
    time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)


def say() -> None:
    """To the log."""
    os.write(2, b"\n")


def waits() -> None:
    """What is asked after a slow write."""
    resource.getrusage(resource.RUSAGE_THREAD)


def start_thread() -> None:
    """What glibc does in a thread that has just been made, and has done in this one."""
    LIBC.syscall(unistd.set_robust_list, 0, 0)
    LIBC.syscall(unistd.rseq, 0, 0, 0, 0)


def random_bytes() -> None:
    """Where the vDSO has none."""
    assert LIBC.syscall(unistd.getrandom, BUFFER, 16, 0) == 16


def wait_in_poll(reader: int) -> None:
    """With a time, so that the kernel goes on by restart_syscall(2)."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    assert poll.poll(60_000)


def wait_for_lock(reader: int) -> None:
    """The same in futex(2), as waiting for the interpreter's lock is."""
    lock = threading.Lock()
    lock.acquire()
    thread = threading.Thread(target=lambda: (os.read(reader, 1), lock.release()))
    thread.start()
    assert lock.acquire(timeout=60)
    thread.join()


def wake() -> None:
    """What a thread does that lets another one have the interpreter's lock."""
    assert LIBC.syscall(unistd.futex, BUFFER, FUTEX_WAKE, 1) == 0


def change_mode() -> None:
    """Before Linux 6.6."""
    os.fchmod(FILE, 0o600)


def read_file() -> None:
    """What a thread does where a file system knows no RWF_NOWAIT."""
    os.pread(FILE, 1, 0)


STEPS: dict[str, tuple[Callable[[], None], ...]] = {
    "sentry": (
        grow, say, status_by_descriptor, protect, barrier, waits, start_thread, random_bytes,
    ),
    "gofer": (grow, status_by_descriptor, cpu_time, change_mode, read_file),
    "network": (grow, say),
    "nameserver": (wake,),
    "dialer": (grow, say),
}
WAITS = {"sentry": (wait_in_poll, unistd.poll), "gofer": (wait_for_lock, unistd.futex)}


def child(role: str, reader: int, broken: bool) -> None:
    program = PROGRAMS[role]()
    signal.signal(signal.SIGUSR1, lambda *_: None)
    platform.host_membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
    host.prctl(prctl.PR_SET_NO_NEW_PRIVS, 1)
    filters.install(program, filters.Switches(), 2)
    for step in STEPS[role]:
        step()
    if role in WAITS:
        WAITS[role][0](reader)
    if broken:
        block = ctypes.c_void_p(LIBC.malloc(64))
        LIBC.free(block)
        LIBC.free(block)
    os._exit(0)


def sleeps_in(pid: int, number: int) -> bool:
    """Whether the main thread is asleep in this system call, for a time."""
    with open(f"/proc/{pid}/syscall") as call, open(f"/proc/{pid}/stat") as stat:
        found, *arguments = call.read().split()
        if found != str(number) or ") S " not in stat.read():
            return False
    return number != unistd.futex or arguments[3] != "0x0"


def await_sleep(pid: int, *numbers: int) -> int:
    """Until it sleeps in one of them; which."""
    while True:
        for number in numbers:
            if sleeps_in(pid, number):
                return number
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def interrupt(pid: int, number: int) -> None:
    """Until it has been asleep in this call when it was stopped, and goes on with it.

    What it slept in may have been a shorter wait before, for the interpreter.
    """
    while await_sleep(pid, number, unistd.restart_syscall) == number:
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        os.kill(pid, signal.SIGCONT)


def run(role: str, broken: bool) -> None:
    """One child, which has to end as it should."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(role, reader, broken)
        except BaseException as error:
            os.write(2, repr(error).encode())
        finally:
            os._exit(9)
    if role in WAITS:
        interrupt(pid, WAITS[role][1])  # a handler that runs before would end the call
        if role == "sentry":
            os.kill(pid, signal.SIGUSR1)
        os.write(writer, b".")
    status = os.waitpid(pid, 0)[1]
    assert status == (signal.SIGSYS if broken else 0), (role, broken, status)


if __name__ == "__main__":
    for ending in (False, True):
        run(sys.argv[1], ending)
