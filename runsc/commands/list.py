"""runsc list: the containers of this state root."""

from __future__ import annotations

import sys

import click

from runsc import as_json
from runsc.containers import lifecycle, showing
from runsc.errors import RuntimeFailure
from runsc.options import Globals

_HEAD = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
_COLUMNS = ("id", "pid", "status", "bundle", "created", "owner")
_NARROWEST, _PADDING = 12, 3


_NONE = """There is no container in {}, which is what --root says.
`runsc do COMMAND` runs a program, `runsc run NAME` a bundle.
"""


def _to_the_second(text: str) -> str:
    """RFC 3339, for a person."""
    return text[:19] + "Z" if text[19:20] == "." else text


def _user(uid: int) -> str:
    import pwd  # noqa: PLC0415

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns as Go's tabwriter makes them for runc."""
    last = len(rows[0]) - 1
    widths = [
        max(_NARROWEST, _PADDING + max(len(row[column]) for row in rows)) for column in range(last)
    ]
    lines = [
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[last]
        for row in rows
    ]
    return "\n".join(lines) + "\n"


@click.command(
    help="List the containers, those that have stopped too. (Of this user: see --root of runsc.)"
    "\n\n\b\nExamples:\n"
    "  runsc list\n"
    "  runsc list --quiet                         names only, for scripts"
)
@click.option(
    "--format", "-f", "form", default="table", metavar="table|json", help="How they are shown."
)
@click.option("--quiet", "-q", is_flag=True, help="Names only.")
@click.pass_obj
def command(flags: Globals, form: str, quiet: bool) -> None:
    """What a killed `run` left behind is removed on the way."""
    store = flags.store()
    lifecycle.sweep(store, flags.log.warning)
    rows = [showing.row(state, _user(state.owner)) for state in store.all()]
    if quiet:
        sys.stdout.writelines(f"{row['id']}\n" for row in rows)
    elif form == "table":
        is_person = sys.stdout.isatty()
        if is_person and not rows:
            sys.stdout.write(_NONE.format(store.root))
            return
        if is_person:
            rows = [row | {"created": _to_the_second(str(row["created"]))} for row in rows]
        cells = [tuple(str(row[column]) for column in _COLUMNS) for row in rows]
        sys.stdout.write(table([_HEAD, *cells]))
    elif form == "json":
        sys.stdout.write(as_json.dumps(rows or None).decode() + "\n")
    else:
        raise RuntimeFailure(f"invalid format option: {form!r}; table or json")
