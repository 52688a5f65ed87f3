"""runsc start: let the first process of a created container run."""

from __future__ import annotations

import click

from runsc import orders
from runsc.options import Globals


@click.command(
    help="Let the program of the container CONTAINER-ID run, which `create` has made."
    "\n\n\b\nExample:\n"
    "  runsc start web"
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, container_id: str) -> None:
    """See orders.start."""
    orders.start(flags, container_id)
