"""runsc wait: until a container, or a process in it, has ended; how it did."""

from __future__ import annotations

from typing import Any

import click

from runsc import orders
from runsc.options import Globals


@click.command(
    help="Wait until the container CONTAINER-ID has ended, and print how, as JSON: its exit code,"
    " or 128 and the signal that killed it. With --pid the same of another process inside. Of a"
    " container that has stopped before there is nobody to ask: exit code 1."
    "\n\n\b\nExample:\n"
    "  runsc wait web"
)
@click.option(
    "--pid", type=click.IntRange(min=1), metavar="N", help="Of this process, as `ps` numbers it."
)
@click.option(
    "--rootpid",
    type=click.IntRange(min=1),
    metavar="N",
    help="The same, as callers of gVisor name it: numbers are always the container's.",
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, /, **given: Any) -> None:
    """See orders.wait."""
    orders.wait(flags, **given)
