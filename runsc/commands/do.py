"""runsc do: run a command over the host's files, read-only, under an overlay in memory."""

from __future__ import annotations

import os

import click

from runsc.commands.spec import standard_mounts
from runsc.containers import console
from runsc.errors import RuntimeFailure
from runsc.launch import launch
from runsc.launch.configure import Wishes
from runsc.oci import convert, spec
from runsc.options import Globals


def document(
    root: str, cwd: str, args: tuple[str, ...], capabilities: list[str], *, terminal: bool = False
) -> spec.Spec:
    """The container that such a command is."""
    return spec.Spec(
        oci_version="1.2.0",
        process=spec.Process(
            terminal=terminal,
            user=spec.User(0, 0),
            args=list(args),
            env=[f"{name}={value}" for name, value in os.environ.items()],
            cwd=cwd,
            capabilities=spec.CapabilitySets(
                bounding=capabilities, effective=capabilities, permitted=capabilities
            ),
        ),
        root=spec.Root(root),
        hostname=os.uname().nodename,
        mounts=standard_mounts(),
    )


HELP = """Run a program over your own files, in a sandbox.

It sees the files of the host. What it writes stays in memory and is gone afterwards. It has no
network but itself, unless `--network=host` stands before `do`. At a terminal it has one of its own,
of which Ctrl-C and the like work as usual; runsc ends with its exit code.

\b
Examples:
  runsc do bash                            a shell to try things in
  runsc do --cwd /src make test            in another directory
  runsc do --root ./rootfs /bin/sh         over another tree
  runsc --network=host do python3 get.py   with the host's network
"""


@click.command(
    help=HELP,
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
)
@click.option(
    "--root",
    default="/",
    metavar="DIR",
    help="The tree that it sees as /. Default: all of the host's.",
)
@click.option("--cwd", metavar="DIR", help="Where it starts. Default: here.")
@click.option("--quiet", "-q", is_flag=True, help="No warnings of runsc.")
@click.argument("args", nargs=-1, required=True, metavar="COMMAND [ARG]...")
@click.pass_obj
def command(flags: Globals, root: str, cwd: str | None, quiet: bool, args: tuple[str, ...]) -> None:
    """Make a bundle in memory and run it."""
    if not os.path.isdir(root):
        raise RuntimeFailure(f"--root {root}: no such directory")
    where = cwd or os.getcwd()
    if not os.path.isdir(os.path.join(root, where.lstrip("/"))):
        if cwd is not None:
            raise RuntimeFailure(f"--cwd {cwd}: no such directory in {root}")
        where = "/"
    terminal = console.is_ours()
    made = document(root, where, args, sorted(convert.CAPABILITIES), terminal=terminal)
    if not terminal and os.isatty(0) and not console.is_foreground(0):
        _read_nothing()
    container = convert.container("/", made, "memory", _nothing if quiet else flags.log.warning)
    name = f"runsc-do-{os.getpid()}"
    identity = launch.Identity(name, root, container.exports[0].path, made.oci_version, {})
    raise click.exceptions.Exit(launch.run(flags, identity, container, Wishes(as_program=True)))


def _read_nothing() -> None:
    """In a shell's background: what is typed is the shell's, as after `&` in a script."""
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _nothing(message: str) -> None:
    """Messages that --quiet drops."""
