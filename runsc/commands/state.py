"""runsc state: what runtime.md, "State", says of one container."""

from __future__ import annotations

import sys

import click
import msgspec

from runsc.commands.list import Row
from runsc.options import Globals


@click.command(
    help="Print what is known of the container CONTAINER-ID, as JSON. Its status is creating,"
    " created,"
    " running, paused or stopped."
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, container_id: str) -> None:
    """As runc prints it: with the owner left empty."""
    row = Row.of(flags.store().load(container_id), "")
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(row), indent=2).decode())
