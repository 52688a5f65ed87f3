"""The flags that `create` and `run` have in common."""

from __future__ import annotations

from collections.abc import Callable

import click

Command = Callable[..., None]

_OPTIONS = (
    click.option(
        "--bundle",
        "-b",
        default=".",
        metavar="DIR",
        help="The folder with config.json. Default: here.",
    ),
    click.option(
        "--console-socket",
        metavar="SOCKET",
        help="With process.terminal, for a container that is left alone: a Unix socket to which the"
        " other end of its terminal is sent.",
    ),
    click.option(
        "--pid-file",
        metavar="FILE",
        help="Gets the pid of a process of the host that lives as long as the container does.",
    ),
    click.option(
        "--preserve-fds",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Pass the open files 3 to 2+N to the program.",
    ),
    click.option(
        "--forkable",
        is_flag=True,
        help="It may be copied while it runs, see `fork`. Its Sentry may then fork, and make"
        " virtual machines: see docs/isolation.md.",
    ),
    click.option(
        "--policy",
        metavar="FILE",
        help="Who decides on its system calls: a Python module, or rules as TOML, see"
        " docs/policies.md. `policy load` changes that while it runs.",
    ),
    click.option("--no-pivot", is_flag=True, hidden=True, expose_value=False),
    click.option("--no-new-keyring", is_flag=True, hidden=True, expose_value=False),
)
"""The hidden ones are runc's: accepted where they mean nothing here."""


def flags(function: Command) -> Command:
    """The flags of both."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
