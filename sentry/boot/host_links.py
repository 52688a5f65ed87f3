"""What comes to the Sentry from the host unasked: a terminal's new size, the end of the Gofer.

The descriptors are made before the filter, and watched by the loop; how many more there may be is
asked before it, too.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
from typing import TYPE_CHECKING, Final

from sentry.vfs.budget import MAX_HOST_DESCRIPTORS

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from sentry.kernel.kernel import Kernel


def _noted(number: int, frame: FrameType | None) -> None:
    """The pipe says it."""


def sizes() -> int:
    """A descriptor that becomes readable at a SIGWINCH.

    The kernel sends it to the foreground of the terminal that is ours (runsc/launch makes it the
    controlling one where nobody else's shell is behind it).
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGWINCH, _noted)
    return reader


def take_size(kernel: Kernel, reader: int) -> None:
    """The host's terminal has a new size: so has the container's."""
    try:
        came = os.read(reader, 4096)
    except BlockingIOError:
        return
    if signal.SIGWINCH not in came:
        return
    console = kernel.container.console
    if console is not None:
        console.refresh_size()


RESERVE: Final = 4096
"""Descriptors that programs cannot take: those of `exec` (four each) and what is under way."""


def open_files(fd: int) -> tuple[int, int]:
    """How many descriptors programs may make this process hold, and how many are kept from them.

    As many as the host's limit leaves now, and a quarter of that in reserve. `fd` is any one.
    Preconditions: what is there for good has been opened.
    """
    lowest = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(lowest)
    left = max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - lowest, 0)
    reserve = min(left // 4, RESERVE)
    return min(left - reserve, MAX_HOST_DESCRIPTORS), reserve


def gofer_end(fd: int) -> int:
    """A descriptor of the Gofer's socket for its end alone: the session has its own watch."""
    return os.dup(fd)


def gofer_ended(kernel: Kernel, fd: int, end: Callable[[], None]) -> None:
    """Without its files the container is over, also one that needs none at the moment."""
    kernel.loop.watch(fd, 0)
    kernel.log.write("the gofer process has ended: so does the sandbox\n")
    end()
