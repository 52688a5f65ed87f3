"""Write a manual page of each command into a folder: `python ci/manpages.py FOLDER`.

The text is that of `--help`. `SOURCE_DATE_EPOCH` says the date, so that two builds are the same.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click
from click_man.core import write_man_pages

from runsc import __version__
from runsc.cli import COMMANDS, main_group
from runsc.shim.program import NAME

SHIM_HELP = """What containerd starts for containers whose runtime is io.containerd.runsc.v1.

It is no command for people: containerd finds it by its name in its PATH, and the program that
`start` leaves serves containerd until the container is deleted. `delete` clears away what a shim
has left that died. To have containerd use it: runsc install --engine containerd.
"""
SHIM_FLAGS = {
    ("-namespace", "NAME"): "Namespace of containerd that the container is in.",
    ("-id", "ID"): "The container.",
    ("-bundle", "FOLDER"): "The container's, with config.json (default: where it is started).",
    ("-address", "SOCKET"): "Socket of containerd.",
    ("-publish-binary", "FILE"): "Program that takes events where TTRPC_ADDRESS names no socket.",
    ("-info", None): "Print what the runtime can do, for containerd.",
    ("-v", None): "Print the version.",
}


def shim() -> click.Command:
    """As if it were a command of click, which it has no time for."""
    flags: list[click.Parameter] = [
        click.Option([flag], metavar=value, is_flag=value is None, help=line)
        for (flag, value), line in SHIM_FLAGS.items()
    ]
    action = click.Argument(["action"], metavar="start|delete")
    line = "containers of runsc for containerd"
    return click.Command(NAME, params=[*flags, action], help=SHIM_HELP, short_help=line)


def write(folder: Path) -> None:
    """Also of commands of commands, but for those that nobody types, and of the shim."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, line in COMMANDS.items():
        command = main_group.get_command(click.Context(main_group), name)
        assert command is not None
        command.short_help = line  # whole
        if isinstance(command, click.Group):
            for word, each in list(command.commands.items()):
                if each.hidden:
                    del command.commands[word]
        main_group.add_command(command, name)
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    date = time.strftime("%Y-%m-%d", time.gmtime(seconds))
    write_man_pages("runsc", main_group, version=__version__, target_dir=str(folder), date=date)
    write_man_pages(NAME, shim(), version=__version__, target_dir=str(folder), date=date)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
