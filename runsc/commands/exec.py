"""runsc exec: another process in a container that runs."""

from __future__ import annotations

from typing import Any

import click

from runsc import executing
from runsc.options import Globals

HELP = """Run another program in the container CONTAINER-ID, which runs.

It has the environment, user and rights of the container's first program, but for what the flags
say. runsc ends with its exit code; 255 if it could not be started.

\b
Examples:
  runsc exec web ps ax
  runsc exec -t web sh                     a shell at this terminal
  runsc exec -u 1000 -e LANG=C web id
  runsc exec -d --pid-file p web worker    in the background
"""


@click.command(
    help=HELP,
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--console-socket",
    metavar="SOCKET",
    help="With a terminal and --detach: a Unix socket to which its other end is sent.",
)
@click.option("--cwd", metavar="DIR", help="Where it starts. Default: as the container.")
@click.option(
    "--env",
    "-e",
    multiple=True,
    metavar="NAME=VALUE",
    help="One more variable, or another value for one.",
)
@click.option("--tty", "-t", is_flag=True, help="It has a terminal, behind this one.")
@click.option("--user", "-u", metavar="UID[:GID]", help="As whom. Default: as the container.")
@click.option(
    "--additional-gids", "-g", type=int, multiple=True, metavar="GID", help="One more group."
)
@click.option(
    "--process", "-p", metavar="FILE", help="All of it comes from a file: `process` of config.json."
)
@click.option("--detach", "-d", is_flag=True, help="Do not wait for it.")
@click.option(
    "--pid-file",
    metavar="FILE",
    help="Gets the pid of a process of the host that lives as long as it.",
)
@click.option("--no-new-privs", is_flag=True, help="It cannot gain rights by set-user-id programs.")
@click.option("--cap", "-c", multiple=True, metavar="CAP", help="One more capability.")
@click.option(
    "--preserve-fds", type=int, default=0, metavar="N", help="Pass the open files 3 to 2+N to it."
)
@click.option(
    "--ignore-paused",
    is_flag=True,
    help="No error if the container is paused: it runs at `resume`.",
)
@click.option("--process-label", hidden=True, expose_value=False)
@click.option("--apparmor", hidden=True, expose_value=False)
@click.option("--cgroup", hidden=True, expose_value=False)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.argument("args", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND [ARG]...]")
@click.pass_obj
def command(flags: Globals, /, **given: Any) -> None:
    """See executing.execute."""
    raise click.exceptions.Exit(executing.execute(flags, **given))
