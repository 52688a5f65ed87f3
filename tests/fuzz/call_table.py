"""The declarations of the system calls as a C table, for tests/fuzz/calls.c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sentry.syscalls.table  # noqa: F401  declares all calls
from sentry.abi import fcntl, ioctl, keyctl, mman, prctl, ptrace, seccomp, socket
from sentry.syscalls.args import Arg
from sentry.syscalls.registry import TABLE
from sentry.syscalls.show import show_dirfd, show_path
from sentry.syscalls.strace.names import names

LEFT_OUT = ("reboot", "exit", "exit_group", "pause", "restart_syscall")
"""They end or stop the caller, which teaches nothing."""
DESCRIPTORS = ("fd", "fds", "dirfd", "oldfd", "newfd", "infd", "outfd", "group_fd", "epfd", "pidfd")
PROCESSES = ("pid", "tid", "tgid", "pgid", "pgrp", "who", "pid1", "pid2", "sid")
SIZES = ("count", "length", "len", "size", "n", "nr", "maximum", "number")
COMMANDS: dict[str, dict[str, int]] = {
    "ioctl": names(ioctl, "TC", "TIOC", "FIO", "FS_IOC", "FIGETBSZ", "FICLONE"),
    "fcntl": names(fcntl, "F_", "DN_", "O_"),
    "prctl": names(prctl, "PR_"),
    "arch_prctl": names(prctl, "ARCH_"),
    "ptrace": names(ptrace, "PTRACE_"),
    "seccomp": names(seccomp, "SECCOMP_"),
    "keyctl": names(keyctl, "KEYCTL_", "KEY_"),
    "madvise": names(mman, "MADV_"),
    "mmap": names(mman, "MAP_", "PROT_"),
    "getsockopt": names(socket, "SO", "SOL_", "IP"),
    "setsockopt": names(socket, "SO", "SOL_", "IP"),
    "socket": names(socket, "AF_", "SOCK_", "IPPROTO_", "NETLINK_"),
}
"""Values for the numbers of a call, besides those that its declaration names."""


def numbers_of(value: Any, depth: int = 0) -> set[int]:
    """The numbers that a function which shows an argument has names for."""
    found: set[int] = set()
    if depth > 3:
        return found
    for cell in getattr(value, "__closure__", None) or ():
        inside = cell.cell_contents
        if isinstance(inside, Mapping):
            for pair in inside.items():
                found.update(n & (1 << 64) - 1 for n in pair if isinstance(n, int))
        elif callable(inside):
            found |= numbers_of(inside, depth + 1)
    return found


def kind_of(name: str, mark: Arg) -> str:
    """A letter: descriptor, path, address, id of a process, size, or another number."""
    if mark.is_fd or mark.show is show_dirfd or name in DESCRIPTORS:
        return "f"
    if mark.show is show_path or "read_path" in mark.source:
        return "p"
    if "{raw}" in mark.source and any(word in mark.source for word in ("User", "Struct", "in_")):
        return "a"
    if mark.source == "{raw}":
        return "s" if name in SIZES else "a"
    if name in PROCESSES:
        return "i"
    return "s" if name in SIZES else "n"


def table() -> str:
    """C source of `calls`."""
    lines, values = [], []
    for declaration in filter(None, TABLE):
        if declaration.name in LEFT_OUT:
            continue
        kinds, sets = "", []
        for position, (name, mark) in enumerate(declaration.args):
            kinds += kind_of(name, mark)
            known = numbers_of(mark.show)
            if kinds[-1] == "n":
                known.update(v & (1 << 64) - 1 for v in COMMANDS.get(declaration.name, {}).values())
            if known:
                label = f"values_{declaration.number}_{position}"
                numbers = ", ".join(f"{v:#x}ull" for v in sorted(known))
                values.append(f"static const uint64_t {label}[] = {{{numbers}}};")
                sets.append(f"{{{label}, {len(known)}}}")
            else:
                sets.append("{0, 0}")
        each = ", ".join(sets) or "{0, 0}"
        lines.append(f'    {{{declaration.number}, "{declaration.name}", "{kinds}", {{{each}}}}},')
    return "\n".join([*values, "static const struct call calls[] = {", *lines, "};", ""])
