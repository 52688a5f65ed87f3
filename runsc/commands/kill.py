"""runsc kill: a signal for the first process of a container, or for all of them."""

from __future__ import annotations

from typing import Any

import click

from runsc import orders
from runsc.options import Globals


@click.command(
    help="Send SIGNAL (a name or a number; default: TERM) to the first process of the container"
    " CONTAINER-ID. As on Linux that one ignores what it has no handler for, but not KILL; in a"
    " container for which config.json lists no PID namespace it does not."
    "\n\n\b\nExamples:\n"
    "  runsc kill web                       SIGTERM, to its first process\n"
    "  runsc kill --all web KILL"
)
@click.option("--all", "-a", "everyone", is_flag=True, help="To all processes of the container.")
@click.option(
    "--pid", type=click.IntRange(min=1), metavar="N", help="To this process, as `ps` numbers it."
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("signal", default="TERM")
@click.pass_obj
def command(flags: Globals, /, **given: Any) -> None:
    """See orders.kill."""
    orders.kill(flags, **given)
