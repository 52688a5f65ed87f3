"""What removes the state of a foreground container if its command line is killed.

A fork of the command line that waits for the other's end. SIGKILL cannot be caught, so only
another process can do it; the sandbox cannot, it has no file system.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from runsc.container import Store


@contextmanager
def keep_clean(store: Store, container_id: str) -> Iterator[None]:
    """While inside, the death of this process removes the container's state."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _watch(store, container_id, reader, writer)
    os.close(reader)
    try:
        yield
    finally:
        os.write(writer, b"done")
        os.close(writer)
        os.waitpid(pid, 0)


def _watch(store: Store, container_id: str, reader: int, writer: int) -> None:
    """Never returns. End of file without a word: the command line was killed."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(writer)
        if not os.read(reader, 16):
            store.remove(container_id)
    finally:
        os._exit(0)
