"""runsc resume: let the processes of a paused container go on."""

from __future__ import annotations

import click

from runsc import orders
from runsc.options import Globals


@click.command(
    help="Let the processes of the paused container CONTAINER-ID go on."
    "\n\n\b\nExample:\n"
    "  runsc resume web"
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, container_id: str) -> None:
    """See orders.resume."""
    orders.resume(flags, container_id)
