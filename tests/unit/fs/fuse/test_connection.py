"""Requests that nobody answers: what those may cost that close files."""

from __future__ import annotations

import errno
from typing import Any
from unittest.mock import Mock

import pytest

from sentry.abi import fuse as f
from sentry.abi.fcntl import O_RDWR
from sentry.abi.mman import MAP_PRIVATE, PROT_READ
from sentry.fs import page_cache
from sentry.fs.fuse import connection
from sentry.fs.fuse.connection import Connection
from sentry.fs.fuse.pages import Pages
from sentry.fs.fuse.request import Request, State
from sentry.loop import PIECE
from sentry.platform.constants import PAGE_SIZE as PAGE
from tests.fuzz.resources.fuse import ROOM, Server
from tests.fuzz.scaling import Bench
from tests.unit.fs.fuse.test_directory import ask
from tests.world import Call, World

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


def test_end_of_a_server_that_owes_much_is_told_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    with World() as world:
        server, user = Server(Bench(world, 1)), world.program()
        fd = ask(server, user, "open", b"/tmp/m/file", 2)
        for _ in range(3 * PIECE):
            user.ok("dup", fd)
        user.fork().begin("exit_group", 0)
        world.settle()
        (served,) = world.vfs.fuse
        assert served.connection.waiting > 2 * PIECE
        server.answer()
        held = world.vfs.fuse.bytes
        monkeypatch.setattr("sentry.loop.PIECE_NS", -1)
        server.program.ok("close", server.device)
        assert not served.connection.waiting
        assert held > world.vfs.fuse.bytes > 0
        world.settle()
        assert world.vfs.fuse.bytes == 0
        assert user.call("close", fd) == -errno.ENOTCONN


def test_those_that_a_closed_device_owes_end_and_others_are_answered() -> None:
    with World() as world:
        server, user = Server(Bench(world, 1)), world.program()
        fd = ask(server, user, "open", b"/tmp/m/file", 2)
        calls = [user.fork() for _ in range(4)]
        syncing = [each.begin("fsync", fd) for each in calls]
        (served,) = world.vfs.fuse
        connection = served.connection
        clone = server.program.ok("open", b"/tmp/fuse", 0o4002)
        number = server.program.place(server.device.to_bytes(4, "little"))
        server.program.ok("ioctl", clone, 0x8004E500, number)
        room = server.program.buffer(ROOM)
        for _ in range(2):
            assert server.program.call("read", clone, room, ROOM) > 0
        server.program.ok("close", clone)
        world.settle()
        assert sorted(call.result for call in syncing if call.done) == [-errno.ECONNABORTED] * 2
        assert connection.waiting == 2
        server.answer_all()
        world.settle()
        assert sorted(call.result for call in syncing) == [-errno.ECONNABORTED] * 2 + [0] * 2


def test_what_a_server_has_read_is_to_be_read_again_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with World() as world:
        server, user = Server(Bench(world, 1)), world.program()
        fd = ask(server, user, "open", b"/tmp/m/file", 2)
        (served,) = world.vfs.fuse
        served.connection.max_background = 4 * PIECE
        for _ in range(3 * PIECE):
            user.ok("dup", fd)
        user.fork().begin("exit_group", 0)
        world.settle()
        room, device = server.program.buffer(ROOM), server.device

        def read() -> int:
            """The number of a request; 0: there is none."""
            got = server.program.call("read", device, room, ROOM)
            data = server.program.read(room, got) if got > 0 else bytes(16)
            return int.from_bytes(data[8:16], "little")

        def resend() -> None:
            size = f.FUSE_OUT_HEADER.size
            notice = f.FUSE_OUT_HEADER.pack(size, f.FUSE_NOTIFY_RESEND, 0)
            assert server.program.call("write", device, notice, size) == size

        sent = []
        while number := read():
            sent.append(number)
        assert len(sent) > 2 * PIECE
        with monkeypatch.context() as short:
            short.setattr("sentry.loop.PIECE_NS", -1)
            resend()
            assert len(served.connection._sent) > PIECE
            again = read()
            assert again & ~f.FUSE_UNIQUE_RESEND in sent
            resend()
        world.settle()
        found = []
        while number := read():
            found.append(number)
        unread = [number | f.FUSE_UNIQUE_RESEND for number in sent]
        assert found == [again, *(number for number in unread if number != again)]
        server.program.ok("close", device)
        world.settle()
        assert (served.connection.waiting, world.vfs.fuse.bytes) == (0, 0)


def test_who_says_that_much_is_old_goes_on_when_all_have_lost_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page_cache, "MANY", -1)
    with World() as world:
        server, user = Server(Bench(world, 1)), world.program()
        fd = ask(server, user, "open", b"/tmp/m/file", 2)
        file: Any = user.task.files.get_raw(fd).inode
        file.pages = Pages(file, world.vfs.ram_file())
        file.pages.ram.truncate(PAGE)
        file.pages.ram.bring(0, b"old")
        at = user.ok("mmap", 0, PAGE, PROT_READ, MAP_PRIVATE, fd, 0)
        child = user.fork()
        assert user.read(at, 3) == child.read(at, 3) == b"old"
        notice = f.FUSE_NOTIFY_INVAL_INODE_OUT.pack(file.nodeid, 0, 0)
        size = f.FUSE_OUT_HEADER.size + len(notice)
        notice = f.FUSE_OUT_HEADER.pack(size, f.FUSE_NOTIFY_INVAL_INODE, 0) + notice
        frames = world.platform.ram.counters().frames
        call = server.program.begin("write", server.device, notice, size)
        assert call.wait() == size
        assert world.platform.ram.counters().frames == frames - 1
        for each in (user, child):
            assert not each.task.mm.space.check(at, 1, False)


def test_request_that_is_another_devices_by_now_is_not_forsaken_with_the_first() -> None:
    """It was read again (NOTIFY_RESEND) while the end of the first is told in pieces."""
    later: list[tuple[list[Any], Any]] = []
    served: Any = Connection(
        1, None, None, Mock(bytes=0), lambda items, do: later.append((list(items), do))
    )
    first, second = Mock(unanswered=0), Mock(unanswered=0)
    served.devices = 2
    request = Request(served, f.FUSE_ACCESS, 1, b"")
    served.submit(request)
    served.next_message(ROOM).taken(first)
    served.device_closed(first)
    served.resend()
    (owed, forsake), (read, unread) = later
    for each in read:
        unread(each)
    served.next_message(ROOM).taken(second)

    for each in owed:
        forsake(each)

    assert request.state is State.SENT
    served.answer(second, request.unique, 0, b"")
    assert request.error is None


class OneFile(Server):
    """Every name of it is the same file."""

    @staticmethod
    def node(unique: int) -> int:
        return 7


def test_file_that_a_truncation_names_is_released_behind_it() -> None:
    with World() as world:
        server, user = OneFile(Bench(world, 1)), world.program()
        other = user.thread()

        def serve(call: Call) -> None:
            for _ in range(20):
                world.settle()
                if call.done:
                    return
                server.answer_all()

        opening = user.begin("open", b"/tmp/m/file", O_RDWR, 0)
        serve(opening)
        server.owes[f.FUSE_SETATTR] = 0
        truncating = other.begin("truncate", other.place(b"/tmp/m/file\0"), 3)
        serve(truncating)
        assert server.owes[f.FUSE_SETATTR]
        serve(user.begin("close", opening.result))
        server.answer_all()
        assert f.FUSE_RELEASE not in server.seen

        size = f.FUSE_OUT_HEADER.size
        answer = f.FUSE_OUT_HEADER.pack(size, -errno.EIO, server.owes[f.FUSE_SETATTR])
        assert server.program.call("write", server.device, answer, size) == size
        assert truncating.wait() == -errno.EIO
        server.answer_all()
        assert server.seen.count(f.FUSE_RELEASE) == 1
