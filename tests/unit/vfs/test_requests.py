"""Tables of ioctl(2) requests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi import socket
from sentry.abi.ioctl import FIONREAD, TIOCOUTQ
from sentry.errors import EINVAL, ENOTTY
from sentry.vfs.requests import Requests, put_int


class Memory:
    """Where answers go."""

    def __init__(self) -> None:
        self.written: list[tuple[int, bytes]] = []

    def write(self, addr: int, data: bytes) -> None:
        self.written.append((addr, data))


def test_a_request_is_answered_by_its_row() -> None:
    rows = Requests()
    caller: Any = SimpleNamespace(mm=Memory())
    rows.row("FIONREAD", put_int(lambda file: file))
    assert rows.answer(7, caller, FIONREAD, 0x1000) == 0
    assert caller.mm.written == [(0x1000, b"\x07\0\0\0")]


def test_what_a_handler_gives_is_the_result() -> None:
    rows = Requests()

    @rows.handles("FIONREAD", "TIOCOUTQ")
    def handler(file: object, caller: object, argument: int) -> int:
        return argument + 1

    assert rows.answer(None, None, FIONREAD, 1) == rows.answer(None, None, TIOCOUTQ, 1) == 2


@pytest.mark.parametrize("error", [ENOTTY, EINVAL])
def test_what_is_not_known_is_said_in_the_way_of_the_file(error: Any) -> None:
    with pytest.raises(error):
        Requests(unknown=error).answer(None, None, FIONREAD, 0)


def test_names_are_those_of_the_headers_given() -> None:
    rows = Requests(names=(socket,))
    rows.row("SIOCATMARK", put_int(lambda file: 0))
    assert socket.SIOCATMARK in rows
    with pytest.raises(StopIteration):
        rows.row("FIONREAD", put_int(lambda file: 0))
