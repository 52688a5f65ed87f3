"""Requests that nobody answers: what those may cost that close files."""

from __future__ import annotations

import pytest

from sentry.fs.fuse import connection
from tests.fuzz.resources.fuse import Server
from tests.fuzz.scaling import Bench
from tests.unit.fs.fuse.test_directory import ask
from tests.world import World

FILES = 40


def test_ends_of_processes_leave_a_silent_server_a_bounded_number_of_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with World() as world:
        server, user = Server(Bench(world, 1)), world.program()
        fd = ask(server, user, "open", b"/tmp/m/file", 2)
        for _ in range(FILES):
            user.ok("dup", fd)
        (served,) = world.vfs.fuse
        monkeypatch.setattr(connection, "MAX_CLOSING_BYTES", 0)
        for _ in range(3):
            child = user.fork()
            child.begin("exit_group", 0)
            world.settle()
            assert child.task.dead
        assert served.connection.waiting == connection.FEW
        server.answer_all()
        assert (served.connection.waiting, world.vfs.fuse.bytes) == (0, 0)
        assert ask(server, user, "close", fd) == 0
