"""runsc list: the containers of this state root."""

from __future__ import annotations

import sys

import click
import msgspec

from runsc.containers import lifecycle
from runsc.containers.container import State, status
from runsc.containers.processes import STOPPED
from runsc.errors import RuntimeFailure
from runsc.options import Globals

_HEAD = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
_NARROWEST, _PADDING = 12, 3


class Row(msgspec.Struct, rename="camel"):
    """One container, with the names and the order of runc's JSON."""

    oci_version: str
    id: str
    pid: int
    status: str
    bundle: str
    rootfs: str
    created: str
    annotations: dict[str, str] | msgspec.UnsetType
    owner: str

    @classmethod
    def of(cls, state: State, owner: str) -> Row:
        """What is true now of a container on disk."""
        word = status(state)
        pid = 0 if word == STOPPED else state.pid
        notes = state.annotations or msgspec.UNSET
        return cls(
            state.oci_version, state.id, pid, word, state.bundle, state.rootfs, state.created,
            notes, owner,
        )  # fmt: skip


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
    rows = [Row.of(state, _user(state.owner)) for state in store.all()]
    if quiet:
        sys.stdout.writelines(f"{row.id}\n" for row in rows)
    elif form == "table":
        cells = [
            (row.id, str(row.pid), row.status, row.bundle, row.created, row.owner) for row in rows
        ]
        sys.stdout.write(table([_HEAD, *cells]))
    elif form == "json":
        sys.stdout.write(msgspec.json.encode(rows or None).decode() + "\n")
    else:
        raise RuntimeFailure(f"invalid format option: {form!r}; table or json")
