"""What ps(1) shows of our processes: which of a container's each is.

They are forks of the command line, whose arguments they would show else. The title is written over
those, and over the environment behind them if it is longer: proc_pid_cmdline(5) takes both. Nothing
of it is read any more: Python has copies.
"""

from __future__ import annotations

import os

from sentry.suppress import suppress

ADDRESSES = slice(45, 49)
"""arg_start, arg_end, env_start, env_end among the fields of proc_pid_stat(5) behind the name."""


def set_title(role: str, container_id: str) -> None:
    """Name and arguments of this process; where /proc is not there it keeps what it has."""
    show(role.encode(), os.fsencode(f"{role}: {container_id}"))


def show(name: bytes, arguments: bytes) -> None:
    """The same with any name, and arguments with NULs between them."""
    with suppress(OSError):
        with open("/proc/self/comm", "wb") as file:
            file.write(name)
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        start, end, more, last = map(int, fields[ADDRESSES])
        if start:
            room = (end - start, (last if more == end else end) - start)
            _overwrite(start, fitted(arguments, *room))


def fitted(title: bytes, size: int, most: int) -> bytes:
    """The title with its NUL and what it takes to fill the arguments; cut to `most` bytes."""
    return title[: most - 1].ljust(max(size, len(title[: most - 1]) + 1), b"\0")


def _overwrite(address: int, data: bytes) -> None:
    fd = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, data, address)
    finally:
        os.close(fd)
