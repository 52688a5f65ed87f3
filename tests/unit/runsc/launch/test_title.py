"""What ps(1) shows of a process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runsc.launch.title import fitted, set_title, show


def shown_by_a_child(role: str, container_id: str) -> tuple[str, bytes]:
    """Name and arguments, as another process sees them."""
    return shown(lambda: set_title(role, container_id))


def shown(change: Callable[[], None]) -> tuple[str, bytes]:
    """The same after any change."""
    set_reader, set_writer = os.pipe()
    end_reader, end_writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(end_writer)
        change()
        os.write(set_writer, b"x")
        os.read(end_reader, 1)
        os._exit(0)
    os.read(set_reader, 1)
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    for fd in (set_reader, set_writer, end_reader, end_writer):
        os.close(fd)
    os.waitpid(pid, 0)
    return name, arguments


def test_title_takes_the_place_of_the_arguments() -> None:
    name, arguments = shown_by_a_child("runsc-gofer", "c")

    assert name == "runsc-gofer"
    assert arguments.rstrip(b"\0") == b"runsc-gofer: c"


def test_title_that_is_longer_goes_on_over_the_environment() -> None:
    size = len(Path("/proc/self/cmdline").read_bytes())
    container_id = "c" * size

    _, arguments = shown_by_a_child("runsc-gofer", container_id)

    assert arguments.rstrip(b"\0") == b"runsc-gofer: " + container_id.encode()


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [(6, 9, b"abc\0\0\0"), (4, 9, b"abc\0"), (3, 9, b"abc\0"), (2, 3, b"ab\0")],
)
def test_title_is_padded_or_cut(size: int, most: int, expected: bytes) -> None:
    assert fitted(b"abc", size, most) == expected


def test_arguments_are_several() -> None:
    name, arguments = shown(lambda: show(b"shim", b"python\0start\0-id"))

    assert name == "shim"
    assert arguments.rstrip(b"\0") == b"python\0start\0-id"
