"""runsc exec: another process in a container that runs."""

from __future__ import annotations

from typing import Any

import click

from runsc.containers import execution
from runsc.containers.execspec import Wishes
from runsc.options import Globals


@click.command(
    help="Run COMMAND, or the process that a file describes, in the container CONTAINER-ID.",
    context_settings={"allow_interspersed_args": False},
)
@click.option("--console-socket", metavar="SOCKET", help="Who gets the master of its terminal.")
@click.option("--cwd", metavar="DIR", help="Its working directory; default: the container's.")
@click.option("--env", "-e", multiple=True, metavar="NAME=VALUE", help="More environment.")
@click.option("--tty", "-t", is_flag=True, help="With a terminal.")
@click.option("--user", "-u", metavar="UID[:GID]", help="As whom; default: as the container.")
@click.option(
    "--additional-gids", "-g", type=int, multiple=True, metavar="GID", help="One more group."
)
@click.option("--process", "-p", metavar="FILE", help="process.json: all of it, in OCI's form.")
@click.option("--detach", "-d", is_flag=True, help="Do not wait for it.")
@click.option("--pid-file", metavar="FILE", help="Where to write the pid that stands for it.")
@click.option("--no-new-privs", is_flag=True, help="Set no_new_privs.")
@click.option("--cap", "-c", multiple=True, metavar="CAP", help="One more capability.")
@click.option("--preserve-fds", type=int, default=0, metavar="N", help="Pass descriptors 3 to 2+N.")
@click.option("--ignore-paused", is_flag=True, help="Also if it is paused: it runs at resume.")
@click.option("--process-label", hidden=True, expose_value=False)
@click.option("--apparmor", hidden=True, expose_value=False)
@click.option("--cgroup", hidden=True, expose_value=False)
@click.argument("container-id")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def command(flags: Globals, /, container_id: str, args: tuple[str, ...], **given: Any) -> None:
    """Ask the sandbox for it, then wait for its end or leave somebody who does."""
    wishes = Wishes(container_id, args, **given)
    raise click.exceptions.Exit(execution.run(flags.root, wishes, flags.log.warning))
