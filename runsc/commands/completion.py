"""runsc completion: what a shell asks when Tab is pressed."""

from __future__ import annotations

import os
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class, shell_complete
from click.types import StringParamType

from runsc.containers.names import default_root, is_id

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_RUNSC_COMPLETE"
"""Says, in the environment, that a shell asks and not somebody who wants the command."""


class ContainerId(StringParamType):
    """The containers that there are."""

    name = "container"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        root = ctx.find_root().params.get("root") or default_root()
        try:
            with os.scandir(root) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir())
                # the shell types what it is told, and the folder in /tmp may be another user's
                names = [name for name in names if is_id(name)]
        except OSError:
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def answer(group: click.Group, instruction: str) -> int:
    """What the shell wants to know: the exit code."""
    _find_containers(group, set(os.environ.get("COMP_WORDS", "").split()))
    try:
        return shell_complete(group, {}, "runsc", VARIABLE, instruction)
    except click.UsageError:  # of a command line that is not finished
        return 0


def _find_containers(command: click.Command, words: set[str]) -> None:
    """Have the arguments of the commands that are named in `words` know the containers."""
    for parameter in command.params:
        if parameter.metavar == "CONTAINER-ID":
            parameter.type = ContainerId()
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in words.intersection(command.list_commands(ctx)):
            found = command.get_command(ctx, name)
            assert found is not None
            _find_containers(found, words)


@click.command(
    help="""Print what makes SHELL complete the words of runsc.

    \b
    bash:  source <(runsc completion bash)          in ~/.bashrc
    zsh:   source <(runsc completion zsh)           in ~/.zshrc
    fish:  runsc completion fish | source           in ~/.config/fish/config.fish
    """
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print it."""
    root: Any = ctx.find_root().command
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(root, {}, "runsc", VARIABLE).source())
