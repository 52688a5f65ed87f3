"""One connection of port-forward, with nobody inside."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from runsc.containers import forwarding, listener
from sentry.control.protocol import Reply


def test_a_connection_closed_again_closes_nothing_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ask_over(*_: Any) -> Reply:
        return Reply()

    monkeypatch.setattr(listener, "connect", lambda _: socket.socket())
    monkeypatch.setattr(listener, "ask_over", ask_over)
    ours, theirs = socket.socketpair()
    connection = forwarding.Connection("", theirs, 80)
    connection.close()
    others = os.pipe2(os.O_CLOEXEC)

    connection.close()

    for fd in others:
        os.close(fd)
    ours.close()
