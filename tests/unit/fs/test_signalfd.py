"""What signalfd shows of each kind of signal, and whose signals it looks at."""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.fcntl import O_NONBLOCK
from sentry.abi.poll import EPOLLIN, EPOLLRDNORM
from sentry.abi.signal import (
    CLD_EXITED,
    SI_QUEUE,
    SI_TIMER,
    SIGCHLD,
    SIGNALFD_SIGINFO,
    SIGSEGV,
    SIGUSR1,
    SIGUSR2,
    SignalfdSiginfo,
)
from sentry.fs.signalfd import SignalFile, convert
from sentry.kernel.signals import SigInfo
from sentry.mm.buffers import UserDest
from sentry.mm.errors import NeedsFault
from sentry.vfs.vfs import Vfs
from sentry.wait.queue import WaitQueue
from tests.world import Program


def shown(info: SigInfo) -> SignalfdSiginfo:
    return SIGNALFD_SIGINFO.unpack(convert(info))


def test_kill_shows_the_sender() -> None:
    got = shown(SigInfo.user(SIGUSR1, 77, 1000))
    assert (got.ssi_signo, got.ssi_code, got.ssi_pid, got.ssi_uid) == (SIGUSR1, 0, 77, 1000)
    assert got.ssi_ptr == 0


@pytest.mark.parametrize(("value", "as_int"), [(5, 5), (0xFFFFFFFF, -1), (1 << 63, 0)])
def test_queued_value_is_shown_as_pointer_and_int(value: int, as_int: int) -> None:
    got = shown(SigInfo.queue(40, SI_QUEUE, 77, 1000, value))
    assert (got.ssi_ptr, got.ssi_int) == (value, as_int)


def test_child_shows_how_it_ended() -> None:
    ran_ns = 30_000_000, 20_000_000
    got = shown(SigInfo.child(SIGCHLD, CLD_EXITED, (9, 5), 42, ran_ns))
    assert (got.ssi_pid, got.ssi_uid, got.ssi_status) == (9, 5, 42)
    assert (got.ssi_utime, got.ssi_stime) == (3, 2)


def test_fault_shows_the_address() -> None:
    assert shown(SigInfo.fault(SIGSEGV, 1, 0x1234)).ssi_addr == 0x1234


def test_timer_shows_overruns() -> None:
    got = shown(SigInfo.timer(40, 3, 7, 99))
    assert (got.ssi_code, got.ssi_tid, got.ssi_overrun, got.ssi_ptr) == (SI_TIMER, 3, 7, 99)


def test_signals_are_looked_at_until_the_file_is_closed() -> None:
    pending = SimpleNamespace(mask=0)
    task: Any = SimpleNamespace(pending=SimpleNamespace(mask=0))
    task.group = SimpleNamespace(signal_queue=WaitQueue(), shared_pending=pending, tasks=[task])
    task.kernel = SimpleNamespace(vfs=Vfs(None, None, lambda: 0))
    file = SignalFile(task, 1 << SIGUSR1 - 1, 0, lambda *_: None)
    file.incref()
    assert not file.poll()
    task.pending.mask = 1 << SIGUSR1 - 1
    assert file.poll() == EPOLLIN | EPOLLRDNORM
    group = sys.getrefcount(task.group)
    file.decref()
    left = sys.getrefcount(task.group)
    assert left == group - 1


def test_signal_that_cannot_be_told_yet_is_read_later(
    task: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    task.block(SIGUSR1, SIGUSR2)
    fd = task.ok("signalfd4", -1, struct.pack("<Q", (1 << 64) - 1), 8, O_NONBLOCK)
    for signo in (SIGUSR1, SIGUSR2):
        task.ok("kill", task.task.group.tgid, signo)
    put, calls = UserDest.put, iter([0, 1, 0])

    async def fetch() -> None: ...

    def fetched_first(dest: UserDest, data: bytes) -> int:
        if next(calls, 0):
            raise NeedsFault(fetch)
        return put(dest, data)

    monkeypatch.setattr(UserDest, "put", fetched_first)
    size = SIGNALFD_SIGINFO.size
    room = task.buffer(2 * size)
    for signo in (SIGUSR1, SIGUSR2):
        assert task.ok("read", fd, room, 2 * size) == size
        assert SIGNALFD_SIGINFO.unpack(task.read(room, size)).ssi_signo == signo
    assert task.call("read", fd, room, 2 * size) == -errno.EAGAIN


def test_signal_is_not_lost_where_memory_has_to_be_waited_for(
    task: Program, changing: Callable[[Program], AbstractContextManager[None]]
) -> None:
    task.block(SIGUSR1)
    mask = task.place(struct.pack("<Q", 1 << SIGUSR1 - 1))
    fd = task.ok("signalfd4", 0xFFFFFFFF, mask, 8, 0)
    room, pid = task.buffer(256), task.ok("getpid")
    call = task.thread().begin("read", fd, room, 256)
    with changing(task):
        task.ok("kill", pid, SIGUSR1)
        task.world.settle()
        assert not call.done
    assert call.wait() == SIGNALFD_SIGINFO.size
    assert SIGNALFD_SIGINFO.unpack(task.read(room, SIGNALFD_SIGINFO.size)).ssi_signo == SIGUSR1
