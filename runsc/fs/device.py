"""`Device`: what a program derives from to serve a character device."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from typing import Any


class OpenDevice:
    """One open(2) of a device. What cannot be done yet raises BlockingIOError, and `poll` says when
    it can; `changed` has it asked again. With `AsyncSandbox` each may be a coroutine function."""

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        """To be called, from any thread, when `poll` says something else than before."""

    def read(self, size: int) -> Any:
        """Up to `size` bytes; none: its end."""
        raise _failed(errno.EINVAL)

    def write(self, data: bytes) -> Any:
        """How many bytes were taken; None: all."""
        raise _failed(errno.EINVAL)

    def ioctl(self, request: int, argument: int, data: bytes) -> Any:
        """ioctl(2): a number, or a number and the bytes that are written where the argument points
        to, as many as the request's number says at most. `data` is what it says that is read
        there."""
        raise _failed(errno.ENOTTY)

    def poll(self) -> int:
        """What is ready: POLLIN, POLLOUT and others of `select`."""
        return select.POLLIN | select.POLLOUT

    def close(self) -> Any:
        """The last descriptor of it is closed."""


class Device:
    """A character device."""

    def open(self, flags: int) -> Any:
        """An `OpenDevice`, for an open(2) with these flags (O_ACCMODE, O_NONBLOCK)."""
        raise _failed(errno.ENXIO)


def _failed(number: int) -> OSError:
    return OSError(number, os.strerror(number))
