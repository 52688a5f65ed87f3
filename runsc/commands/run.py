"""runsc run: create and start a container, and stay to its end unless told to detach."""

from __future__ import annotations

import click

from runsc.commands import bundles
from runsc.launch import launch
from runsc.launch.configure import Wishes
from runsc.options import Globals


@click.command(help="Create and run the container CONTAINER-ID from a bundle.")
@bundles.flags
@click.option("--detach", "-d", is_flag=True, help="Leave it once it runs.")
@click.option("--keep", is_flag=True, help="Do not delete it when it has ended.")
@click.option("--no-subreaper", is_flag=True, hidden=True)
@click.argument("container-id")
@click.pass_obj
def command(
    flags: Globals,
    container_id: str,
    bundle: str,
    console_socket: str | None,
    pid_file: str | None,
    preserve_fds: int,
    detach: bool,
    keep: bool,
    no_subreaper: bool,
) -> None:
    """Decode the bundle, start it, wait for its end."""
    identity, container = bundles.understood(flags, bundle, container_id)
    wishes = Wishes(pid_file, console_socket, detach, keep, preserve_fds)
    raise click.exceptions.Exit(launch.run(flags, identity, container, wishes))
