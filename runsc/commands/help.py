"""runsc help: how a command is used, and which system calls there are."""

from __future__ import annotations

import sys

import click

FORMATS = ("table", "csv", "json")
SYSCALLS = "syscalls"


def syscalls(form: str) -> str:
    """The compatibility table in one of FORMATS."""
    from sentry.syscalls import compat  # noqa: PLC0415  all of the Sentry: only where it is shown

    write = {"table": compat.as_text, "csv": compat.as_csv, "json": compat.as_json}[form]
    return write(compat.rows())


def usage(ctx: click.Context, name: str) -> str:
    """What `runsc NAME --help` prints. Raises: click.UsageError for a name that is none."""
    top = ctx.parent
    assert top is not None
    if not name:
        return top.get_help() + "\n"
    assert isinstance(top.command, click.Group)
    found = top.command.get_command(top, name)
    if found is None:
        raise click.UsageError(f"no command and no topic {name!r}", ctx)
    return click.Context(found, parent=top, info_name=name).get_help() + "\n"


@click.command(
    help="Show how COMMAND is used; without one, how runsc is. "
    "`help syscalls` lists the system calls that programs find."
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="Of `help syscalls`; default: table."
)
@click.argument("topic", metavar="[COMMAND | syscalls]", default="")
@click.pass_context
def command(ctx: click.Context, form: str | None, topic: str) -> None:
    """Print it."""
    if form is not None and topic != SYSCALLS:
        raise click.UsageError("--format is for `help syscalls`", ctx)
    text = syscalls(form or FORMATS[0]) if topic == SYSCALLS else usage(ctx, topic)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = sys.stderr  # `runsc help syscalls | head`: no complaint, now or at the end
