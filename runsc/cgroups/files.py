"""Writing and reading the files of a cgroup, with runc's words for what goes wrong."""

from __future__ import annotations

import errno
import os

from runsc.errors import RuntimeFailure


def write(directory: str, name: str, value: str) -> None:
    """One write(2): the kernel takes or refuses it as a whole.

    Raises: OSError. `must_write` is the same for what was asked for by the user.
    """
    fd = os.open(os.path.join(directory, name), os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def must_write(directory: str, name: str, value: str) -> None:
    """Raises: RuntimeFailure with runc's message."""
    try:
        write(directory, name, value)
    except OSError as error:
        path = os.path.join(directory, name)
        reason = (error.strerror or str(error)).lower()
        raise RuntimeFailure(f'failed to write "{value}": write {path}: {reason}') from error


def read(directory: str, name: str) -> str:
    """The contents; empty if there is no such file."""
    try:
        with open(os.path.join(directory, name), encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return ""
        raise


def read_number(directory: str, name: str) -> int | None:
    """A number; None for "max", for no file and for what is none."""
    text = read(directory, name).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def read_table(directory: str, name: str) -> dict[str, int]:
    """Lines of a name and a number, as memory.stat has them."""
    pairs = (line.split() for line in read(directory, name).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def exists(directory: str, name: str) -> bool:
    """Whether this kernel has that file."""
    return os.path.exists(os.path.join(directory, name))
