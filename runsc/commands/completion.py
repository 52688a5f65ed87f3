"""runsc completion: what a shell asks when Tab is pressed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
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


class Place(StringParamType):
    """A file or a folder of the host: the shell knows them itself."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type=self._kind)]


class Words(StringParamType):
    """A few that are known."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words = tuple(words)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(word) for word in self._words if word.startswith(incomplete)]


FILES = frozenset({"FILE", "IMAGE", "RECORDING", "SOCKET", "SRC:DST[:ro]"})
"""Words of metavars that stand for a file, or may."""


def answer(group: click.Group, instruction: str) -> int:
    """What the shell wants to know: the exit code."""
    topics = [*group.list_commands(click.Context(group)), "syscalls"]
    _give_types(group, set(os.environ.get("COMP_WORDS", "").split()), topics)
    try:
        return shell_complete(group, {}, "runsc", VARIABLE, instruction)
    except click.UsageError:  # of a command line that is not finished
        return 0


def _give_types(command: click.Command, words: set[str], topics: list[str]) -> None:
    """Have the parameters of the commands that are named in `words` know what there is."""
    for parameter in command.params:
        found = _type_of(parameter, topics)
        if found is not None:
            parameter.type = found
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in words.intersection(command.list_commands(ctx)):
            found_command = command.get_command(ctx, name)
            assert found_command is not None
            _give_types(found_command, words, topics)


def _type_of(parameter: click.Parameter, topics: list[str]) -> StringParamType | None:
    """By its metavar, which says to people what it stands for."""
    metavar = parameter.metavar or ""
    if parameter.name == "signal":
        return Words(sorted(each.name.removeprefix("SIG") for each in signal.Signals))
    if metavar.startswith("[COMMAND |"):
        return Words(topics)
    words = metavar.strip("[].").split("|")
    if words[0] in ("CONTAINER-ID", "TEMPLATE-ID"):
        return ContainerId()
    if FILES.intersection((metavar, *words)):
        return Place("file")
    if metavar == "DIR":
        return Place("dir")
    return Words(filter(str.islower, words)) if len(words) > 1 else None


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
