"""runsc create: make a container whose first process waits for `start`."""

from __future__ import annotations

import click

from runsc.commands import bundles
from runsc.launch import launch
from runsc.launch.configure import Wishes
from runsc.options import Globals


@click.command(
    help="Make the container CONTAINER-ID from a bundle: a folder with config.json. What is wrong"
    " with the bundle is said now; its program waits for `runsc start`."
)
@bundles.flags
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(
    flags: Globals,
    container_id: str,
    bundle: str,
    console_socket: str | None,
    pid_file: str | None,
    preserve_fds: int,
) -> None:
    """Decode the bundle, make the sandbox, leave it."""
    identity, container = bundles.understood(flags, bundle, container_id)
    wishes = Wishes(pid_file, console_socket, detach=True, preserve_fds=preserve_fds)
    launch.create(flags, identity, container, wishes)
