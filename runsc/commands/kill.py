"""runsc kill: a signal for the first process of a container, or for all of them."""

from __future__ import annotations

import click

from runsc.containers import lifecycle, signals
from runsc.errors import RuntimeFailure
from runsc.options import Globals


@click.command(
    help="Send SIGNAL (a name or a number; default: TERM) to the first process of the container"
    " CONTAINER-ID. As on Linux that one ignores what it has no handler for, but not KILL."
)
@click.option("--all", "-a", "everyone", is_flag=True, help="To all processes of the container.")
@click.option(
    "--pid", type=click.IntRange(min=1), metavar="N", help="To this process, as `ps` numbers it."
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("signal", default="TERM")
@click.pass_obj
def command(
    flags: Globals, everyone: bool, pid: int | None, container_id: str, signal: str
) -> None:
    """The container is looked for first, as runc does it."""
    if everyone and pid is not None:
        raise RuntimeFailure("only one of --all and --pid can be given")
    store = flags.store()
    store.load(container_id)
    try:
        number = signals.number_of(signal)
    except ValueError as error:
        raise RuntimeFailure(str(error)) from None
    lifecycle.kill(store, container_id, number, everyone, 1 if pid is None else pid)
