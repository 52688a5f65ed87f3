"""The flags of `runsc do`. What they mean is in `do_values.py`."""

from __future__ import annotations

from collections.abc import Callable

import click

PYTHON = "--python"
_OPTIONS = (
    click.option(
        "--root",
        metavar="DIR",
        help="The tree that it sees as /. Default: all of the host's.",
    ),
    click.option(
        "--image",
        metavar="IMAGE",
        help="An image instead: an archive of docker save or skopeo, a tar of a root, a file of"
        " EROFS, or a name that podman or Docker knows. It says what runs, unless COMMAND does.",
    ),
    click.option(
        PYTHON,
        is_flag=True,
        help="Run Python: all that follows is for it (SCRIPT, -c CODE, -m MODULE; nothing: its"
        " prompt). It is the host's python3, as your shell finds it, also of a virtual"
        " environment; with --root or --image the one in there.",
    ),
    click.option(
        "--volume",
        "-v",
        multiple=True,
        metavar="SRC:DST[:ro]",
        help="Have a file or folder of the host at DST, too: what is written there is kept. With"
        " :ro nothing can be. SRC alone: at the same place. May be given several times.",
    ),
    click.option(
        "--publish",
        "-p",
        multiple=True,
        metavar="[IP:]PORT:PORT",
        help="Let connections to a port of this host (of 127.0.0.1, unless an address is named)"
        " reach a port inside, whatever network it has. May be given several times.",
    ),
    click.option(
        "--env",
        "-e",
        multiple=True,
        metavar="NAME=VALUE",
        help="One more variable, or another value for one; NAME alone: as it is here, for an image."
        " Over your own files it has all of your variables.",
    ),
    click.option(
        "--env-file",
        multiple=True,
        metavar="FILE",
        help="The same, a line each; # begins a comment.",
    ),
    click.option(
        "--user",
        "-u",
        metavar="USER[:GROUP]",
        help="As whom, by name or number. Default: root of its own kernel, or as the image says.",
    ),
    click.option(
        "--cwd",
        "--workdir",
        "-w",
        "cwd",
        metavar="DIR",
        help="Where it starts. Default: here, or as the image says.",
    ),
    click.option(
        "--network",
        "--net",
        type=click.Choice(["none", "host", "sandbox"]),
        help="As the flag of this name before `do`; see `runsc --help`. Default: none.",
    ),
    click.option(
        "--memory",
        "-m",
        metavar="SIZE",
        help="Memory of all its programs together: bytes, or with K, M, G. Default: half of the"
        " host's.",
    ),
    click.option(
        "--cpus", metavar="N", help="How much CPU it may use, such as 0.5: by a cgroup of the host."
    ),
    click.option(
        "--read-only", is_flag=True, help="It can write to no file but those of a volume."
    ),
    click.option("--hostname", metavar="NAME", help="Its host name. Default: that of the host."),
    click.option(
        "--policy",
        metavar="FILE",
        help="Who decides on its system calls: a Python module, or rules as TOML, see"
        " docs/policies.md.",
    ),
    click.option("--quiet", "-q", is_flag=True, help="No warnings of runsc."),
    click.option("--interactive", "-i", is_flag=True, hidden=True, expose_value=False),
    click.option("--tty", "-t", is_flag=True, hidden=True, expose_value=False),
    click.option("--rm", is_flag=True, hidden=True, expose_value=False),
)
"""The hidden ones are docker's: accepted, for it is so anyway."""


class Command(click.Command):
    """`do`, whose flags end with --python."""

    last = PYTHON

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What is behind --python is Python's, as -c and -m."""
        options = [each for each in self.params if isinstance(each, click.Option)]
        with_value = {name for each in options if not each.is_flag for name in each.opts}
        at = 0
        while at < len(args) and args[at][:1] == "-" and args[at] not in ("--", PYTHON):
            at += 1 + _takes_next(args[at], with_value)
        if args[at : at + 1] == [PYTHON]:
            args = [*args[: at + 1], "--", *args[at + 1 :]]
        return super().parse_args(ctx, args)


def _takes_next(word: str, with_value: set[str]) -> bool:
    """Whether the value of a flag, or of the first in a bundle (`-iv`) that has one, is behind."""
    if word[:2] == "--":
        return word in with_value
    found = [at for at, letter in enumerate(word) if f"-{letter}" in with_value]
    return found[:1] == [len(word) - 1]


def flags(function: Callable[..., None]) -> Callable[..., None]:
    """All of them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
