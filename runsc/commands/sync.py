"""runsc sync: what a container has written is on the host's disk."""

from __future__ import annotations

import click

from runsc.containers import lifecycle
from runsc.options import Globals


@click.command(
    help="Wait until all that programs of the container CONTAINER-ID have done to its files is on"
    " the host's disk: names, attributes and data, as sync(2) inside. It may be paused. Of one that"
    " has ended the host has everything already, and there is nobody to ask: exit code 1, as for"
    " one that does not exist. Exit code 1, too, if the host has refused something, which is then"
    " said once."
    "\n\n\b\nExample:\n"
    "  runsc sync web"
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, container_id: str) -> None:
    """See lifecycle.sync."""
    lifecycle.sync(flags.store(), container_id)
