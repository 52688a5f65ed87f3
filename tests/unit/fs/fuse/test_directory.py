"""Directories of a server: what names cost that lead nowhere."""

from __future__ import annotations

from tests.fuzz.resources.fuse import Server
from tests.fuzz.scaling import Bench
from tests.world import Program, World

LEVELS = 20


class InItself(Server):
    """Every name of it is the same directory."""

    mode = 0o40755

    @staticmethod
    def node(unique: int) -> int:
        """Always the same."""
        return 7


def ask(server: Server, user: Program, name: str, *values: int | bytes) -> int:
    call = user.begin(name, *values)
    user.world.settle()
    while not call.done:
        server.answer_all()
        user.world.settle()
    return call.result


def test_directory_in_itself_costs_an_inode_for_each_level() -> None:
    with World() as world:
        server, user = InItself(Bench(world, 1)), world.program()
        assert ask(server, user, "chdir", b"/tmp/m/d") == 0
        before = world.vfs.budget.inodes
        for _ in range(LEVELS):
            assert ask(server, user, "chdir", b"d") == 0
        assert world.vfs.budget.inodes - before == LEVELS
        world.vfs.budget.max_inodes = world.vfs.budget.inodes
        assert ask(server, user, "chdir", b"d") == -12  # ENOMEM


def test_directory_that_stays_where_it_is_stays_the_same() -> None:
    with World() as world:
        server, user = InItself(Bench(world, 1)), world.program()
        assert ask(server, user, "chdir", b"/tmp/m/d") == 0
        before = world.vfs.budget.inodes
        for _ in range(LEVELS):
            assert ask(server, user, "chdir", b"/tmp/m/d") == 0
        assert world.vfs.budget.inodes == before
