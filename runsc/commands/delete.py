"""runsc delete: forget a container that has stopped, or end it first."""

from __future__ import annotations

from typing import Any

import click

from runsc import orders
from runsc.options import Globals


@click.command(
    help="Remove the container CONTAINER-ID, which has stopped or was never started, and what"
    " is left"
    " of it on the host."
    "\n\n\b\nExamples:\n"
    "  runsc delete web\n"
    "  runsc delete --force web                   also while it runs"
)
@click.option(
    "--force", "-f", is_flag=True, help="Kill it first if it runs. No error if there is none."
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, /, **given: Any) -> None:
    """See orders.delete."""
    orders.delete(flags, **given)
