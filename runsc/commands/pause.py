"""runsc pause: hold all processes of a container."""

from __future__ import annotations

import click

from runsc import orders
from runsc.options import Globals


@click.command(
    help="Let no process of the container CONTAINER-ID run, until `resume`."
    "\n\n\b\nExample:\n"
    "  runsc pause web"
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, container_id: str) -> None:
    """See orders.pause."""
    orders.pause(flags, container_id)
