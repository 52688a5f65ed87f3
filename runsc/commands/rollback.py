"""runsc rollback: a container goes on from where a template of it is."""

from __future__ import annotations

import click

from runsc.options import Globals

HELP = """Put the container CONTAINER-ID back to where it was when TEMPLATE-ID was
made of it, by `fork --template`.

It is the same container, for everybody outside: its name, its standard streams
and who waits for its end stay. Its processes and files are those of the
template, which goes on standing still, so it can be gone back to any number of
times. Connections to the container (`exec`) end.

\b
Example:
  runsc run --detach --forkable web
  runsc fork --template web before
  runsc exec web rm -r /srv
  runsc rollback web before
"""


@click.command(help=HELP)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("template-id", metavar="TEMPLATE-ID")
@click.pass_obj
def command(flags: Globals, container_id: str, template_id: str) -> None:
    """See runsc.launch.succession."""
    from runsc.launch import forking, succession  # noqa: PLC0415

    succession.roll_back(flags.store(), container_id, forking.Origin(flags, template_id))
