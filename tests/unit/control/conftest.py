"""A control server with one client."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sentry.control.server import ControlServer
from sentry.loop import HostOnly, Loop
from tests.unit.control.controlling import Kernel, fail


@pytest.fixture
def served() -> Iterator[tuple[Loop, Kernel, socket.socket]]:
    ours, theirs = socket.socketpair()
    loop, kernel = Loop(HostOnly(), fail), Kernel()
    server = ControlServer(loop, kernel, theirs.detach())
    yield loop, kernel, ours
    ours.close()
    server.close()
