"""A stand-in whose maker is killed. All else: tests/e2e."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable

import pytest

from runsc.launch import isolation
from runsc.launch.stand_in import Namespaces, fork
from runsc.oci.exports import Users
from tests.patience import TIMEOUT_S


def _plainly(body: Callable[[], int], _: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(body())
        finally:
            os._exit(1)
    return pid


def test_who_waits_for_its_ids_ends_when_nobody_can_map_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolation, "spawn", _plainly)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    with ours, theirs:
        pid = fork(Namespaces(users=Users()), "c", theirs, (), -1)

    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    try:
        assert poll.poll(TIMEOUT_S * 1000)
    finally:
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        os.close(pidfd)
