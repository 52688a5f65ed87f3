"""runsc state: what runtime.md, "State", says of one container."""

from __future__ import annotations

import click

from runsc import orders
from runsc.options import Globals


@click.command(
    help="Print what is known of the container CONTAINER-ID, as JSON. Its status is creating,"
    " created,"
    " running, paused or stopped."
    "\n\n\b\nExample:\n"
    "  runsc state web"
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, container_id: str) -> None:
    """See orders.state."""
    orders.state(flags, container_id)
