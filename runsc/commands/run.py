"""runsc run: create and start a container, and stay to its end unless told to detach."""

from __future__ import annotations

from typing import Any

import click

from runsc import orders
from runsc.commands import bundles
from runsc.options import Globals

HELP = """Run a container to its end. CONTAINER-ID is any name that no other container has.

What runs is described by a bundle: a folder with config.json (`runsc spec` writes one) and the
root file system that it names. runsc ends with the exit code of its program.

\b
Examples:
  runsc spec && runsc run web         the bundle is the current folder
  runsc run --bundle /srv/web web     ... or another one
  runsc run --detach web              in the background: see `exec`
  runsc run -p 8080:80 web            port 8080 leads to 80 inside
"""


@click.command(help=HELP)
@bundles.flags
@click.option("--detach", "-d", is_flag=True, help="Leave it once it runs; `delete` it later.")
@click.option(
    "--keep", is_flag=True, help="Do not delete it when it has ended: `state` still knows it."
)
@click.option(
    "--publish",
    "-p",
    multiple=True,
    metavar="[IP:]PORT:PORT",
    help="Let connections to a port of this host (of 127.0.0.1, unless an address is named) reach a"
    " port inside, as port-forward does. May be given several times.",
)
@click.option("--no-subreaper", is_flag=True, hidden=True, expose_value=False)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, /, **given: Any) -> None:
    """See orders.run."""
    raise click.exceptions.Exit(orders.run(flags, **given))
