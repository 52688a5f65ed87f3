"""runsc zygote: a process from which containers start faster."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

import click

from runsc.zygote import asking, beginning, place, server


@click.group(
    help="A process of this user that has all of the runtime in memory. Where one listens, `run`,"
    " `create`, `do`, `restore`, containerd's shim and the Python API start from forks of it, which"
    " share its memory. It ends after five minutes in which nothing has; what sharing costs is"
    " in docs/isolation.md."
    "\n\n\b\nExamples:\n"
    "  runsc zygote start\n"
    "  runsc zygote status"
)
def command() -> None:
    """The group."""


@command.command(help="Start it, and wait until it listens.")
def start() -> None:
    """See asking.start."""
    asking.start()


@command.command(help="End it; what has started from it goes on.")
def stop() -> None:
    """See asking.stop."""
    asking.stop()


@command.command(help="Say whether one listens; exit code 3 if not.")
def status() -> None:
    """See asking.about."""
    found = asking.about()
    if found is None:
        click.echo("no zygote listens")
        raise click.exceptions.Exit(3)
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.since))
    click.echo(f"process {found.pid}, since {since}, has been asked {found.served} times")


@command.command(help="Print where it listens, or would: for a socket unit of systemd.")
def path() -> None:
    """See place.socket_path."""
    click.echo(place.socket_path())


@command.command(
    help="Be it, in the foreground: as the service of a socket unit of systemd, whose socket it"
    " takes, or to see what it says."
)
@click.option("--idle", type=click.IntRange(min=1), default=server.IDLE_S, metavar="SECONDS",
              show_default=True, help="End when nothing has started for so long.")  # fmt: skip
@click.option("--listener", type=click.IntRange(min=3), hidden=True)
@click.option("--claim", type=click.IntRange(min=3), hidden=True)
@click.option("--refusing", type=click.IntRange(min=3), hidden=True)
@click.option("--room", hidden=True, expose_value=False)
def serve(idle: int, listener: int | None, claim: int | None, refusing: int | None) -> None:
    """See server.serve. It listens once all is imported; where somebody may be there before,
    another process refuses (`refusing`: to that of its predecessor). `claim`: see `beginning`."""
    refuser = socket.socket(fileno=refusing) if refusing is not None else None
    if refuser is None and server.is_given():
        with suppress(OSError):  # another one begins, too
            claim = beginning.claimed().detach()
        refuser = server.refuse(server.LISTEN_FD)
    ready = server.prepared()
    with server.listening(listener) as sock:
        if refuser is not None:
            server.answer(refuser)
        if claim is not None:
            os.close(claim)
        server.serve(sock, idle, ready)
