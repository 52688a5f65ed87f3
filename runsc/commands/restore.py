"""runsc restore: a container goes on where `checkpoint` has written it."""

from __future__ import annotations

from typing import Any

import click

from runsc import orders
from runsc.commands import bundles
from runsc.options import Globals


@click.command(
    help="Make the container CONTAINER-ID from a bundle, as `run` does, and let it go on with what"
    " `runsc checkpoint` has written. The bundle has the same mounts and the same root as the one"
    " that was written. What is damaged, or does not fit, is said by its name, and nothing is"
    " left. See docs/snapshots.md."
    "\n\n\b\nExample:\n"
    "  runsc restore --bundle /srv/web --image-path /srv/web.state web"
)
@bundles.flags
@click.option(
    "--image-path",
    default="checkpoint",
    metavar="DIR",
    help="The folder of the snapshot. Default: ./checkpoint.",
)
@click.option(
    "--background",
    is_flag=True,
    help="Do not read all of memory first, but what is needed when it is, and do not check it. The"
    " folder must not be changed while the container runs. What is compressed, or builds on another"
    " snapshot, is read first all the same.",
)
@click.option("--detach", "-d", is_flag=True, help="Leave it once it runs; `delete` it later.")
@click.option(
    "--keep", is_flag=True, help="Do not delete it when it has ended: `state` still knows it."
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, /, **given: Any) -> None:
    """See orders.restore."""
    raise click.exceptions.Exit(orders.restore(flags, **given))
