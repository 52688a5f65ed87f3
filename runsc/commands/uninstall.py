"""runsc uninstall: take away what `install` has told an engine."""

from __future__ import annotations

import click

from runsc.commands.install import OPTIONS, settle
from runsc.engines.change import change
from runsc.engines.registry import ENGINES


@click.command(
    help="Take away what `runsc install` has told an engine: Docker, unless said otherwise. The"
    " difference is shown first; at a terminal you are asked, too."
    "\n\n\b\nExample:\n"
    "  runsc uninstall --engine podman"
)
def command(
    engine: str, runtime: str, config_file: str | None, yes: bool, dry_run: bool
) -> None:
    """Change one file."""
    chosen = ENGINES[engine]
    file = config_file or chosen.file()
    wanted = change(file, lambda text: chosen.remove(text, runtime))
    if settle(wanted, yes=yes, dry_run=dry_run):
        click.echo(f"{file} is written. Containers that use it have to end before runsc goes away.")


for _option in reversed(OPTIONS):
    command = _option(command)
