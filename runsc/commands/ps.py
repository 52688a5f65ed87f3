"""runsc ps: the processes of a container."""

from __future__ import annotations

from typing import Any

import click

from runsc import orders
from runsc.options import Globals


@click.command(
    help="List the processes of the container CONTAINER-ID, with the numbers that they have"
    " inside. "
    "As json: the pid of the one process of the host that stands for them all; null where the"
    " container has stopped."
    "\n\n\b\nExample:\n"
    "  runsc ps web",
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--format", "-f", "form", default="table", metavar="table|json", help="How they are shown."
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-ef]")
@click.pass_obj
def command(flags: Globals, /, **given: Any) -> None:
    """See orders.ps."""
    orders.ps(flags, **given)
