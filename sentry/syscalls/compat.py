"""The compatibility table: every system call of Linux 6.12 on x86-64, from the declarations.

`runsc help syscalls` prints it and docs/syscalls.md is made of it: `python -m
sentry.syscalls.compat > docs/syscalls.md`. What a `partial` call lacks stands in its declaration.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from enum import Enum
from typing import Final, NamedTuple

import sentry.syscalls.table  # noqa: F401  declares all calls
from sentry.syscalls.registry import NUMBERS, TABLE


class Support(Enum):
    """How much of a call there is."""

    FULL = "full"
    PARTIAL = "partial"
    ABSENT = "absent"
    NOWHERE = "gone"
    """Linux itself answers ENOSYS: sys_ni_syscall in syscall_64.tbl."""


class Row(NamedTuple):
    """One line of the table."""

    number: int
    name: str
    support: Support
    note: str
    """What is missing, or why it is."""


GONE_FROM_LINUX: Final = frozenset({
    "afs_syscall", "create_module", "epoll_ctl_old", "epoll_wait_old", "get_kernel_syms",
    "getpmsg", "lookup_dcookie", "nfsservctl", "putpmsg", "query_module", "security", "tuxcall",
    "uselib", "vserver", "_sysctl",
})  # fmt: skip
REASONS: Final = {
    "the kernel of the sandbox has no modules and does not boot others": (
        "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
    ),
    "no quotas": ("quotactl",),
    "no I/O rings: ENOSYS makes programs fall back": (
        "io_uring_setup", "io_uring_enter", "io_uring_register",
    ),
    "no extended BPF and no performance counters": ("bpf", "perf_event_open"),
    "one memory node": ("mbind", "migrate_pages", "move_pages", "set_mempolicy_home_node"),
    "the mailbox hides a thread's migration: the C library does without": ("rseq",),
    "no segment descriptors of the program's own": ("modify_ldt",),
    "no user-level fault handling": ("userfaultfd",),
    "no protection keys and no shadow stacks": (
        "pkey_alloc", "pkey_free", "pkey_mprotect", "map_shadow_stack",
    ),
    "no permission events": (
        "fanotify_init", "fanotify_mark",
    ),
    "no security modules": (
        "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self",
        "lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules",
    ),
}  # fmt: skip
_WHY: Final = {name: reason for reason, names in REASONS.items() for name in names}


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
            result.append(Row(number, name, Support.ABSENT, _WHY.get(name, "")))
    return result


def summary(table: list[Row]) -> str:
    """How many of each kind."""
    counts = Counter(row.support for row in table)
    return (
        f"{counts[Support.FULL]} full, {counts[Support.PARTIAL]} partial, "
        f"{counts[Support.ABSENT]} absent (ENOSYS), "
        f"{counts[Support.NOWHERE]} that Linux does not have any more"
    )


def as_text(table: list[Row]) -> str:
    """For a terminal."""
    lines = [f"{r.number:3} {r.name:26} {r.support.value:8} {r.note}".rstrip() for r in table]
    return "\n".join([*lines, "", summary(table), ""])


def as_csv(table: list[Row]) -> str:
    """For a spreadsheet: a line of names, then one a call. RFC 4180 but for its line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows((r.number, r.name, r.support.value, r.note) for r in table)
    return text.getvalue()


def as_json(table: list[Row]) -> str:
    """For a program: an array of objects whose members are those of a Row."""
    return json.dumps([r._asdict() | {"support": r.support.value} for r in table], indent=1) + "\n"


def as_markdown(table: list[Row]) -> str:
    """docs/syscalls.md."""
    head = [
        "# System calls",
        "",
        "Every system call of Linux 6.12 on x86-64. Made from the declarations in",
        "`sentry/syscalls/` by `python -m sentry.syscalls.compat`; do not edit.",
        "",
        f"{summary(table)}.",
        "",
        "| number | call | support | what is missing, and why |",
        "|---|---|---|---|",
    ]
    body = [f"| {r.number} | `{r.name}` | {r.support.value} | {r.note} |" for r in table]
    return "\n".join([*head, *body, ""])


def main() -> None:
    """Write the page to standard output."""
    print(as_markdown(rows()), end="")


if __name__ == "__main__":
    main()
