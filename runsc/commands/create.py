"""runsc create: make a container whose first process waits for `start`."""

from __future__ import annotations

from typing import Any

import click

from runsc import orders
from runsc.commands import bundles
from runsc.options import Globals


@click.command(
    help="Make the container CONTAINER-ID from a bundle: a folder with config.json. What is wrong"
    " with the bundle is said now; its program waits for `runsc start`."
    "\n\n\b\nExample:\n"
    "  runsc create --bundle /srv/web web         then `runsc start web`"
)
@bundles.flags
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, /, **given: Any) -> None:
    """See orders.create."""
    orders.create(flags, **given)
