"""runsc wait: until a container, or a process in it, has ended; how it did."""

from __future__ import annotations

import os

import click
import msgspec

from runsc.containers import lifecycle
from runsc.errors import RuntimeFailure
from runsc.options import Globals

FIRST = 1


class Result(msgspec.Struct, rename="camel"):
    """The names of gVisor's JSON."""

    id: str
    exit_status: int


@click.command(
    help="Wait until the container CONTAINER-ID has ended, and print how, as JSON: its exit code,"
    " or 128 and the signal that killed it. With --pid the same of another process inside."
)
@click.option(
    "--pid", type=click.IntRange(min=1), metavar="N", help="Of this process, as `ps` numbers it."
)
@click.option(
    "--rootpid",
    type=click.IntRange(min=1),
    metavar="N",
    help="The same: a sandbox has one container, whose numbers are the sandbox's.",
)
@click.argument("container-id", metavar="CONTAINER-ID")
@click.pass_obj
def command(flags: Globals, pid: int | None, rootpid: int | None, container_id: str) -> None:
    """Ask the sandbox, which answers in its time."""
    if pid is not None and rootpid is not None:
        raise RuntimeFailure("only one of --pid and --rootpid can be given")
    status = lifecycle.wait(flags.store(), container_id, pid or rootpid or FIRST)
    code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    click.echo(msgspec.json.encode(Result(container_id, code)))
