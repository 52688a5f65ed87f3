"""Descriptors that are closed together, where the kernel waits at each.

A packet socket that is closed waits until no CPU can be in it any more, and so do tables of
nftables: packet_release(), nft_rcv_nl_event(), 10 to 20 ms each. Who waits in several threads waits
once.
"""

from __future__ import annotations

import os
import socket
from _thread import allocate_lock, start_new_thread
from collections.abc import Iterable
from contextlib import suppress


class Closers:
    """Threads that wait for what they are to close.

    Preconditions: what is each thread's own is set (capabilities, Landlock, no_new_privs), and no
    filter is on yet: they are beyond their beginning when this is made.
    """

    def __init__(self, count: int) -> None:
        self._fds: list[int] = []
        self._here, self._there = socket.socketpair()
        self._begun, self._never = allocate_lock(), allocate_lock()
        self._begun.acquire()
        self._never.acquire()
        with suppress(RuntimeError):  # so many tasks the user may have: fewer take longer
            for _ in range(count):
                start_new_thread(self._wait, ())
                self._begun.acquire()

    def _wait(self) -> None:
        self._begun.release()
        self._there.recvmsg(1)
        self._close_some()
        self._never.acquire()  # the end of a thread would take more calls of the host

    def _close_some(self) -> None:
        with suppress(IndexError):
            while True:
                os.close(self._fds.pop())

    def close(self, fds: Iterable[int]) -> None:
        """All are being closed when it returns; they are when the process has ended. Once."""
        self._fds += fds
        self._here.close()
        self._close_some()
