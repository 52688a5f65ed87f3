"""runsc delete: forget a container that has stopped, or end it first."""

from __future__ import annotations

import click

from runsc.containers import lifecycle
from runsc.options import Globals


@click.command(help="Delete the container CONTAINER-ID and what is left of it.")
@click.option("--force", "-f", is_flag=True, help="Kill it if it runs; no error if it is gone.")
@click.argument("container-id")
@click.pass_obj
def command(flags: Globals, force: bool, container_id: str) -> None:
    """See lifecycle.delete."""
    lifecycle.delete(flags.store(), container_id, force, flags.log.warning)
