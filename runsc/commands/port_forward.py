"""runsc port-forward: a port of the host leads to a port inside, whatever network there is."""

from __future__ import annotations

import signal
import socket
from typing import NoReturn

import click

from runsc.containers import lifecycle
from runsc.containers.forwarding import Forwarding
from runsc.containers.processes import pidfd_of
from runsc.errors import NotRunning, RuntimeFailure
from runsc.log import printable
from runsc.options import Globals

HELP = """Let connections to a port of this host reach REMOTE, a port of the container CONTAINER-ID.

It needs no network of the container: the connection is made inside, from its loopback interface.
Until Ctrl-C, or until the container has ended. With LOCAL 0, any free port; without LOCAL, the same
number.

\b
Examples:
  runsc port-forward web 8080:80
  runsc port-forward --stream /run/pipe web 80
"""
BACKLOG = 16


def ports(text: str, *, stream: bool) -> tuple[int, int]:
    """LOCAL and REMOTE. Raises: RuntimeFailure."""
    local, colon, remote = text.rpartition(":")
    words = (local if colon else remote, remote)
    if not all(word.isascii() and word.isdigit() and len(word) < 6 for word in words) or (
        stream and colon
    ):
        form = "REMOTE" if stream else "LOCAL:REMOTE"
        raise RuntimeFailure(f"invalid port string {text!r}: {form}")
    numbers = int(words[0]), int(words[1])
    if max(numbers) > 0xFFFF or not numbers[1]:
        raise RuntimeFailure(f"invalid port in {text!r}: 1 to 65535")
    return numbers


@click.command(help=HELP)
@click.option(
    "--stream", metavar="SOCKET", help="Instead of a port: one connection, over a Unix socket."
)
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    metavar="IP",
    help="Where to listen. 0.0.0.0: for other machines, too.",
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("port", metavar="[LOCAL:]REMOTE")
@click.pass_obj
def command(flags: Globals, stream: str | None, address: str, container_id: str, port: str) -> None:
    """Listen, and copy bytes."""
    local, remote = ports(port, stream=stream is not None)
    store = flags.store()
    state = store.load(container_id)
    lifecycle.require_running(state)
    over = pidfd_of(state.pid, state.pid_start)
    if over < 0:
        raise NotRunning(container_id)
    signal.signal(signal.SIGTERM, _interrupt)
    forwarding = Forwarding(store.path(container_id, "control.sock"), over, _say)
    try:
        if stream is not None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(stream)
            forwarding.add(sock, remote)
            forwarding.run({})
            return
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.create_server((address, local), family=family, backlog=BACKLOG) as listening:
            listening.setblocking(False)
            _say(f"Forwarding local port {listening.getsockname()[1]} to {remote}...")
            forwarding.run({listening: remote})
        _say(f'Container "{container_id}" stopped. Exiting...')
    except KeyboardInterrupt:
        _say("Exiting...")
    finally:
        forwarding.close()


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    click.echo(printable(text))
