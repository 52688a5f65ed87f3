"""runsc fork: copies of a container that runs."""

from __future__ import annotations

import click

from runsc.options import Globals
from sentry.control.orders import ForkOrder

HELP = """Make containers that are copies of the container CONTAINER-ID as it is now.

It has to have been started with --forkable, and goes on, unless it is paused: then it is a template
that nothing changes. Each copy has the same processes and memory, a name and a boot id of its own,
and its processes' standard streams lead nowhere. All of them end with the container that they are
copies of. With --forkable they can be copied themselves. A copy made with --template stands still:
to be forked, or for `rollback`.

\b
Example:
  runsc run --detach --forkable warm && runsc pause warm
  runsc fork warm one two && runsc exec one ps
"""


@click.command(help=HELP)
@click.option("--hostname", default="", metavar="NAME", help="Their host name; else as it is.")
@click.option("--forkable", is_flag=True, help="They can be copied, too.")
@click.option("--template", is_flag=True, help="They stand still.")
@click.option(
    "--network", type=click.Choice(["none", "sandbox"]), default=None,
    help="sandbox: each has a network of its own, by passt(1). Default: as ID.",
)  # fmt: skip
@click.option(
    "--netns", "namespaces", multiple=True, metavar="PATH",
    help="One for each: behind the interfaces of this network namespace.",
)  # fmt: skip
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("names", metavar="NEW-ID", nargs=-1, required=True)
@click.pass_obj
def command(
    flags: Globals, container_id: str, names: tuple[str, ...], hostname: str,
    forkable: bool, template: bool, network: str | None, namespaces: tuple[str, ...],
) -> None:  # fmt: skip
    """See runsc.launch.forking."""
    from runsc.launch import forking  # noqa: PLC0415

    origin = forking.Origin(flags, container_id)
    order = ForkOrder(hostname.encode(), forkable=forkable, stands=template)
    origin.fork(names, order, network=network, namespaces=namespaces)
