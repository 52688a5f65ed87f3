"""runsc help: how a command is used, and which system calls there are."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

FORMATS = ("table", "csv", "json")
SYSCALLS = "syscalls"


def table(form: str, *, ioctls: bool, sockopts: bool) -> str:
    """The compatibility table in one of FORMATS: of system calls, or of what is asked for."""
    from sentry.syscalls import compat, compat_rows  # noqa: PLC0415  all of the Sentry: only where it is shown

    write = {"table": compat.as_text, "csv": compat.as_csv, "json": compat.as_json}[form]
    groups = compat_rows.SOCKOPTS * sockopts + compat_rows.IOCTLS * ioctls
    return write(compat_rows.rows(groups) if groups else compat.rows())


def meant(name: str, commands: Iterable[str]) -> str:
    """What somebody may have wanted who mistyped a command; with a space before it."""
    import difflib  # noqa: PLC0415  only for a mistake
    import shutil  # noqa: PLC0415

    close = difflib.get_close_matches(name, list(commands), n=1)
    if close:
        return f" Did you mean {close[0]!r}?"
    if shutil.which(name):
        return f" To run the program in a sandbox: runsc do {name}"
    return ""


def usage(ctx: click.Context, name: str) -> str:
    """What `runsc NAME --help` prints. Raises: click.UsageError for a name that is none."""
    top = ctx.parent
    assert top is not None
    if not name:
        return top.get_help() + "\n"
    assert isinstance(top.command, click.Group)
    found = top.command.get_command(top, name)
    if found is None:
        hint = meant(name, [*top.command.list_commands(top), SYSCALLS])
        raise click.UsageError(f"No such command or topic {name!r}.{hint}", ctx)
    return click.Context(found, parent=top, info_name=name).get_help() + "\n"


@click.command(
    help="Show how COMMAND is used; without one, how runsc is. "
    "`help syscalls` lists the system calls that programs find, or socket options and requests."
    "\n\n\b\nExamples:\n"
    "  runsc help run\n"
    "  runsc help syscalls --format csv"
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="Of `help syscalls`; default: table."
)
@click.option("--ioctls", is_flag=True, help="Of `help syscalls`: ioctl(2) requests instead.")
@click.option("--sockopts", is_flag=True, help="Of `help syscalls`: socket options instead.")
@click.argument("topic", metavar="[COMMAND | syscalls]", default="")
@click.pass_context
def command(ctx: click.Context, form: str | None, topic: str, ioctls: bool, sockopts: bool) -> None:
    """Print it."""
    if (form is not None or ioctls or sockopts) and topic != SYSCALLS:
        raise click.UsageError("--format, --ioctls, --sockopts are for `help syscalls`", ctx)
    if topic == SYSCALLS:
        text = table(form or FORMATS[0], ioctls=ioctls, sockopts=sockopts)
    else:
        text = usage(ctx, topic)
    sys.stdout.write(text)
