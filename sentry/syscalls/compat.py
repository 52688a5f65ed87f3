"""The compatibility table: every system call of Linux 6.12 on x86-64, from the declarations.

`runsc help syscalls` prints it and docs/syscalls.md is made of it: `python -m
sentry.syscalls.compat > docs/syscalls.md`. What a `partial` call lacks stands in its declaration.
The lines of socket options and ioctl(2) requests are made in `compat_rows.py`.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import sentry.syscalls.table  # noqa: F401  declares all calls
from sentry.syscalls import compat_rows
from sentry.syscalls.compat_rows import GroupRow, Support
from sentry.syscalls.registry import ABSENT, NUMBERS, TABLE


class Row(NamedTuple):
    """One line of the table."""

    number: int
    name: str
    support: Support
    note: str
    """What is missing, or why it is."""


GONE_FROM_LINUX: Final = frozenset({
    "afs_syscall", "create_module", "epoll_ctl_old", "epoll_wait_old", "get_kernel_syms",
    "get_thread_area", "getpmsg", "lookup_dcookie", "nfsservctl", "putpmsg", "query_module",
    "security", "set_thread_area", "tuxcall", "uselib", "vserver", "_sysctl",
})  # fmt: skip


FIRST_HEXADECIMAL: Final = 1024
AnyRow = Row | GroupRow


def rows() -> list[Row]:
    """The table, by number."""
    result = []
    for number, name in sorted(NUMBERS.items()):
        declaration = TABLE[number] if number < len(TABLE) else None
        if declaration is not None:
            support = Support.PARTIAL if declaration.partial else Support.FULL
            result.append(Row(number, name, support, declaration.partial))
        elif name in GONE_FROM_LINUX:
            result.append(Row(number, name, Support.NOWHERE, "ENOSYS in Linux too"))
        else:
            result.append(Row(number, name, Support.ABSENT, ABSENT.get(number, "")))
    return result


def summary(table: Sequence[AnyRow]) -> str:
    """How many of each kind."""
    counts = Counter(row.support for row in table)
    gone = counts[Support.NOWHERE]
    return (
        f"{counts[Support.FULL]} full, {counts[Support.PARTIAL]} partial, "
        f"{counts[Support.ABSENT]} absent"
        + (f" (ENOSYS), {gone} that Linux does not have any more" if gone else "")
    )


def as_text(table: Sequence[AnyRow]) -> str:
    """For a terminal."""
    lines = [f"{_place(r)} {r.name:26} {r.support.value:8} {r.note}".rstrip() for r in table]
    return "\n".join([*lines, "", summary(table), ""])


def _place(row: AnyRow) -> str:
    return f"{row.number:3}" if isinstance(row, Row) else f"{row.group:21} {_number(row):>10}"


def _number(row: AnyRow) -> str:
    """Requests look better in hexadecimal."""
    return f"{row.number:#x}" if row.number >= FIRST_HEXADECIMAL else str(row.number)


def as_csv(table: Sequence[AnyRow]) -> str:
    """For a spreadsheet: a line of names, then one a row. RFC 4180 but for its line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table[0]._fields)
    writer.writerows(r._replace(support=r.support.value) for r in table)  # type: ignore[arg-type]
    return text.getvalue()


def as_json(table: Sequence[AnyRow]) -> str:
    """For a program: an array of objects whose members are those of a row."""
    return json.dumps([r._asdict() | {"support": r.support.value} for r in table], indent=1) + "\n"


def as_markdown(table: Sequence[AnyRow]) -> str:
    """A section of docs/syscalls.md: how many, then a line for each."""
    head = [f"{summary(table)}.", ""]
    if isinstance(table[0], Row):
        head += ["| number | call | support | what is missing, and why |", "|---|---|---|---|"]
    else:
        head += ["| of | number | name | support | what is missing |", "|---|---|---|---|---|"]
    body = [
        "| "
        + ("" if isinstance(r, Row) else f"{r.group} | ")
        + f"{_number(r)} | `{r.name}` | {r.support.value} | {r.note} |"
        for r in table
    ]
    return "\n".join([*head, *body, ""])


def page() -> str:
    """docs/syscalls.md."""
    return "\n".join(
        [
            "# System calls",
            "",
            "Every system call of Linux 6.12 on x86-64, then the socket options and the ioctl(2)",
            "requests of what there is here. Made from the declarations in `sentry/` by",
            "`python -m sentry.syscalls.compat`; do not edit.",
            "",
            as_markdown(rows()),
            "## Socket options",
            "",
            "By level. What is *absent* is answered with ENOPROTOOPT, or EOPNOTSUPP, as Linux says",
            "of what it does not know. With `--network=host` options are the host's, as far as",
            "`sentry/net/host/options.py` lets them pass.",
            "",
            as_markdown(compat_rows.rows(compat_rows.SOCKOPTS)),
            "## ioctl(2) requests",
            "",
            "By kind of file. What is *absent* is answered with ENOTTY.",
            "",
            as_markdown(compat_rows.rows(compat_rows.IOCTLS)),
        ]
    )


def main() -> None:
    """Write the page to standard output."""
    print(page(), end="")


if __name__ == "__main__":
    main()
