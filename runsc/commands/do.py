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


def document(root: str, cwd: str, args: tuple[str, ...], capabilities: list[str]) -> spec.Spec:
    """The container that such a command is: with a terminal of its own where it has the caller's."""
    return spec.Spec(
        oci_version="1.2.0",
        process=spec.Process(
            terminal=console.is_ours(),
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


@click.command(
    help="Run a command over the host's files. What it writes stays in the sandbox.",
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
)
@click.option("--root", default="/", metavar="DIR", help="Its root; default: the host's.")
@click.option("--cwd", metavar="DIR", help="Its working directory; default: the current one.")
@click.option("--quiet", "-q", is_flag=True, help="No messages of ours.")
@click.argument("args", nargs=-1, required=True)
@click.pass_obj
def command(flags: Globals, root: str, cwd: str | None, quiet: bool, args: tuple[str, ...]) -> None:
    """Make a bundle in memory and run it."""
    where = cwd or os.getcwd()
    if not os.path.isdir(os.path.join(root, where.lstrip("/"))):
        if cwd is not None:
            raise RuntimeFailure(f"--cwd {cwd}: no such directory in {root}")
        where = "/"
    made = document(root, where, args, sorted(convert.CAPABILITIES))
    if not made.process.terminal and os.isatty(0) and not console.is_foreground(0):
        _read_nothing()
    container = convert.container("/", made, "memory", _nothing if quiet else flags.log.warning)
    name = f"runsc-do-{os.getpid()}"
    identity = launch.Identity(name, root, container.exports[0].path, made.oci_version, {})
    raise click.exceptions.Exit(launch.run(flags, identity, container, Wishes(mortal_init=True)))


def _read_nothing() -> None:
    """In a shell's background: what is typed is the shell's, as after `&` in a script."""
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _nothing(message: str) -> None:
    """Messages that --quiet drops."""
