"""The Gofer process: `run` is its life, after the fork.

Preconditions: runsc/launch has given the process its empty root, its namespaces, the rights that
`gofer.confine` lists, and only these descriptors: the socket, the attachments, the log. Everything
imported by this module is all that will ever be needed.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable, Sequence

import gofer.handlers  # noqa: F401  (registers the handlers)
from gofer.attachment import Attachment
from gofer.server import Server
from gofer.shared import Given, limits_for_this_process


def _ignore(_text: str) -> None:
    """No log."""


def _nothing() -> None:
    """No confinement: for tests."""


def run(
    sock: socket.socket | int,
    attachments: Sequence[Attachment],
    lockdown: Callable[[], None] = _nothing,
    log: Callable[[str], None] = _ignore,
    given: Given = Given(),  # noqa: B008  it is frozen
) -> None:
    """Serve `sock` (or its descriptor), and sessions duplicated from it, until all are closed.

    `lockdown` is called last before serving, for a caller who wants to give up more from there on.
    `log` must not open files.
    """
    if isinstance(sock, int):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, sock)
    os.umask(0)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    limits = limits_for_this_process()
    server = Server(attachments, limits, log, given)
    lockdown()
    server.add(sock)
    gc.freeze()
    server.run()
