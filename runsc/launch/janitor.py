"""What cleans up after a foreground container if its command line is killed.

A fork of the command line that waits for the other's end. SIGKILL cannot be caught, so only
another process can do it; the sandbox cannot, it has no file system.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from runsc import host
from runsc.containers import console
from runsc.containers.container import Store
from runsc.containers.lifecycle import destroy
from runsc.launch.title import set_title

if TYPE_CHECKING:
    from runsc.containers.state import State
    from runsc.log import Log


@contextmanager
def keep_clean(
    store: Store, state: State, log: Log, settings: console.Settings | None = None
) -> Iterator[None]:
    """While inside, the death of this process destroys what is left of the container.

    `settings`: those of the terminal at descriptor 0, which come back. It has no other descriptor
    of ours: whoever reads the other end of one waits for our end, and a lock is ours.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _watch(store, state, log, reader, settings)
    os.close(reader)
    try:
        yield
    finally:
        with suppress(BrokenPipeError):  # somebody has killed it
            os.write(writer, b"done")
        os.close(writer)
        os.waitpid(pid, 0)


def _watch(
    store: Store,
    state: State,
    log: Log,
    reader: int,
    settings: console.Settings | None,
) -> None:
    """Never returns. End of file without a word: the command line was killed."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        os.setsid()
        set_title("runsc-janitor", state.id)
        terminal = os.dup(0) if settings is not None else -1
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        host.close_all_but({0, 1, 2, reader, terminal, log.fd})
        store.folders.clear()
        if not os.read(reader, 16):
            if settings is not None:
                console.put_back(terminal, settings)
            found = store.load(state.id)
            if found.created == state.created:
                destroy(store, found, log.warning)
    finally:
        os._exit(0)
