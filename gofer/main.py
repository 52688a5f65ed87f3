"""The Gofer process: `run` is its life, after the fork.

Preconditions: runsc/boot has given the process its empty root, its namespaces, and only these
descriptors: the socket, the attachments, the log.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable, Sequence

import gofer.handlers  # noqa: F401  (registers the handlers)
from gofer.attachment import Attachment
from gofer.p9 import extensions, messages
from gofer.p9.codec import compile_all
from gofer.server import Server, limits_for_this_process

assert extensions and messages


def _ignore(_text: str) -> None:
    """No log."""


def _nothing() -> None:
    """No confinement: for tests."""


def run(
    sock: socket.socket,
    attachments: Sequence[Attachment],
    lockdown: Callable[[], None] = _nothing,
    log: Callable[[str], None] = _ignore,
) -> None:
    """Serve `sock` and the sessions duplicated from it until all of them are closed.

    `lockdown` gives up what `gofer.confine` does not list (capabilities, system calls); nothing is
    imported or opened by path after it. `log` must not open files.
    """
    os.umask(0)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    limits = limits_for_this_process()
    compile_all()
    server = Server(attachments, limits, log)
    lockdown()
    server.add(sock)
    gc.freeze()
    server.run()
