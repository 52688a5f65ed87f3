"""runsc install: tell an engine of this runtime."""

from __future__ import annotations

import os
import re
import shutil
import sys
from functools import partial

import click

from runsc.engines.change import Change, change
from runsc.engines.registry import ENGINES
from runsc.engines.settings import SHIM, Engine, Runtime
from runsc.errors import RuntimeFailure
from runsc.log import printable

HELP = """Tell an engine of this runtime, under the name `runsc`: Docker, unless said otherwise.

The difference is shown first; at a terminal you are asked, too. All else in the file stays.
FLAGS after -- are global flags that Docker passes before each command; containerd's shim takes
them, too. containerd is told of the shim where that lies beside the program.

\b
Examples:
  runsc install
  runsc install --runtime runsc-net -- --network=host
  runsc install --engine containerd
  runsc install --engine podman --config-file containers.conf
"""
OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(list(ENGINES)),
        default="docker",
        show_default=True,
        help="Which one.",
    ),
    click.option("--runtime", default="runsc", show_default=True, metavar="NAME", help="Its name."),
    click.option(
        "--config-file",
        "--config_file",
        "config_file",
        metavar="FILE",
        help="The engine's file. Default: where it looks for it.",
    ),
    click.option("--yes", "-y", is_flag=True, help="Do not ask."),
    click.option("--dry-run", is_flag=True, help="Show the difference, and change nothing."),
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def own_path() -> str:
    """The program that this is. Raises: RuntimeFailure."""
    name = sys.argv[0]
    if os.path.basename(name) != "__main__.py" and os.access(name, os.X_OK):
        return os.path.abspath(name)
    found = shutil.which("runsc")
    if found is None:
        raise RuntimeFailure("runsc is not on the PATH: give --path FILE, the program to be run")
    return os.path.abspath(found)


def shim_beside(program: str) -> str:
    """containerd's shim in the same folder, or where a link leads to, if that can be run."""
    for name in (program, os.path.realpath(program)):
        found = os.path.join(os.path.dirname(name), SHIM)
        if os.access(found, os.X_OK):
            return found
    return ""


def settle(wanted: Change, *, yes: bool, dry_run: bool) -> bool:
    """Show it, ask, write it; whether it is written. Nobody is asked but at a terminal."""
    difference = wanted.difference()
    if not difference:
        click.echo(f"{wanted.path} says that already.")
        return False
    click.echo(printable(difference), nl=False)
    asks = not yes and sys.stdin.isatty() and sys.stdout.isatty()
    if dry_run or (asks and not click.confirm("Write it?")):
        return False
    wanted.write()
    return True


@click.command(help=HELP)
@click.option("--path", metavar="FILE", help="The program. Default: this one.")
@click.option(
    "--clobber",
    type=click.BOOL,
    default=True,
    metavar="true|false",
    help="false: nothing happens if there is a runtime of this name.",
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED, metavar="[-- FLAGS...]")
def command(
    engine: str,
    runtime: str,
    config_file: str | None,
    yes: bool,
    dry_run: bool,
    path: str | None,
    clobber: bool,
    args: tuple[str, ...],
) -> None:
    """Change one file."""
    if not _NAME.fullmatch(runtime):
        raise RuntimeFailure(f"--runtime {runtime!r}: letters, digits, - and _ only")
    program = os.path.abspath(path) if path is not None else own_path()
    if not os.access(program, os.X_OK) or os.path.isdir(program):
        raise RuntimeFailure(f"{program} is no program that can be run")
    chosen = ENGINES[engine]
    file = config_file or chosen.file()
    added = Runtime(runtime, program, args, shim_beside(program))
    wanted = change(file, partial(_added, chosen, added, clobber))
    if settle(wanted, yes=yes, dry_run=dry_run):
        click.echo(f"{file} is written. Now {chosen.afterwards.format(name=runtime)}")


def _added(engine: Engine, runtime: Runtime, clobber: bool, text: str) -> str:
    if not clobber and runtime.name in engine.runtimes(text):
        return text
    return engine.add(text, runtime)


for _option in reversed(OPTIONS):
    command = _option(command)
