"""runsc read: a file of a container, also of one that has no program to show it."""

from __future__ import annotations

import errno
import os
import sys

import click

from runsc.containers import lifecycle, listener
from runsc.errors import NotRunning, RuntimeFailure
from runsc.options import Globals
from sentry.control.protocol import Request

PIECE = 1 << 16


@click.command(
    help="Write the file PATH of the container CONTAINER-ID, which runs or is created, to standard"
    " output: as its first program would read it, with no program of it taking part."
    "\n\n\b\nExample:\n"
    "  runsc read web /etc/hosts"
)
@click.option(
    "--size",
    type=click.IntRange(min=0, max=1 << 62),
    default=0,
    metavar="BYTES",
    help="No more than that. 0: all.",
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("path", metavar="PATH")
@click.pass_obj
def command(flags: Globals, size: int, container_id: str, path: str) -> None:
    """Copy what comes; how it ended is said behind it."""
    store = flags.store()
    state = store.load(container_id)
    lifecycle.require_running(state)
    try:
        sock = listener.connect(store.path(container_id, "control.sock"))
    except OSError:
        raise NotRunning(container_id) from None
    out, into = os.pipe2(os.O_CLOEXEC)
    request = Request("read", path=os.fsencode(path), size=size)
    with sock, open(out, "rb", buffering=0) as source:
        try:
            listener.send(sock, request, (into,))
        finally:
            os.close(into)
        try:
            while data := source.read(PIECE):
                sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # whoever read it has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return
        try:
            reply = listener.answer(sock, lifecycle.ANSWER_S)
        except (OSError, ValueError):
            raise NotRunning(container_id) from None
    if reply.error:
        raise RuntimeFailure(f"read {path}: {_why(reply.error)}")


def _why(name: str) -> str:
    """The name of an errno, if the sandbox says one."""
    number = getattr(errno, name, None)
    return f"{os.strerror(number).lower()} ({name})" if isinstance(number, int) else name
