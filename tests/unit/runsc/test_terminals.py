"""What a program has shown at a terminal."""

from __future__ import annotations

import errno
import os

import pytest

from runsc.terminals import shown


def test_what_is_there_then_the_end() -> None:
    master, slave = os.openpty()
    os.write(slave, b"last words")
    os.close(slave)

    assert shown(master, 4) == b"last"
    assert shown(master, 64) == b" words"
    assert shown(master, 64) == b""

    os.close(master)


def test_who_cannot_wait_is_told() -> None:
    master, slave = os.openpty()
    os.set_blocking(master, False)

    with pytest.raises(BlockingIOError):
        shown(master, 64)

    os.close(master)
    os.close(slave)


def test_end_that_came_before_the_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Linux says it, once in 100,000 times, of what is written while it looks."""
    master, slave = os.openpty()
    read = os.read

    def too_early(fd: int, size: int) -> bytes:
        monkeypatch.setattr(os, "read", read)
        os.write(slave, b"last words")
        os.close(slave)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "read", too_early)

    assert shown(master, 64) == b"last words"
    assert shown(master, 64) == b""

    os.close(master)
