"""Sandboxes whose roots others show, too: from then on they write through.

What a program has changed by then is with the host before the other container begins, and what it
changes later at once; so a name that both want to make is made by one of them.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from typing import TYPE_CHECKING

from runsc.containers import asking, lifecycle
from runsc.containers.processes import pidfd_of
from runsc.errors import NotRunning, RuntimeFailure
from runsc.launch.overlap import overlapping

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runsc.containers.container import Store
    from runsc.containers.state import State


def ask(
    store: Store, own_id: str, paths: Sequence[str], warn: Callable[[str], object]
) -> None:
    """Of a container that begins, with what it shows of the roots of others (`claims.behind`).

    Those that are being made answer when they are there. What cannot be had is told to `warn`.
    """
    reached = False
    for other in store.all():
        if other.id == own_id or not other.written_behind:
            continue
        with suppress(OSError):  # its root is gone
            if overlapping(other.rootfs, paths):
                reached = True
                problem = _write_through(store, other)
                if problem:
                    warn(f'"{other.id}" does not share its root file system: {problem}')
    if not reached:
        warn(
            f"{', '.join(paths)}: of the root file system of a sandbox that is not known here"
            " (another --root?): what it changes is seen up to a second late"
        )


def _write_through(store: Store, other: State) -> str:
    """What went wrong."""
    try:
        return lifecycle.tell(store, other, asking.line("share"))
    except NotRunning:
        _await_written(other)
        return ""
    except RuntimeFailure as failure:
        return str(failure)


def _await_written(other: State) -> None:
    """Until its Gofer has written what the Sentry has left it, for a bounded time."""
    pidfd = pidfd_of(other.gofer_pid, other.gofer_start)
    if pidfd < 0:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(lifecycle.DRAINED_MS)
    finally:
        os.close(pidfd)
