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


def write(folder: Path) -> None:
    """Also of commands of commands, but for those that nobody types."""
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


if __name__ == "__main__":
    write(Path(sys.argv[1]))
