from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace, coroutine
from typing import Any

import pytest

from sentry.abi.fcntl import O_RDONLY, SEEK_END
from sentry.abi.sched import CLONE_NEWPID
from sentry.abi.signal import SIGCHLD
from sentry.errors import EAGAIN
from sentry.kernel.accounting import RECORD, compressed, terminal_of, turn_on
from sentry.kernel.accounting_file import MAX_UNDERWAY, Accounting
from sentry.kernel.pids import PidNamespace
from sentry.wait.eager import eager
from sentry.wait.queue import WaitQueue
from sentry.wait.sleep import until
from tests.world import World


@pytest.mark.parametrize(("number", "packed"), [
    (0, 0),
    (8191, 8191),
    (8192, 1 << 13 | 1024),
    (8195, 1 << 13 | 1024),
    (8196, 1 << 13 | 1025),
    (65532, 2 << 13 | 1024),  # rounded up to what needs another step
    (1 << 40, 0xFFFF),
])  # fmt: skip
def test_numbers_are_packed_in_sixteen_bits(number: int, packed: int) -> None:
    assert compressed(number) == packed


@pytest.mark.parametrize(("rdev", "shown"), [(None, 0), (0x8805, 0x8805), (0x403, 0x403)])
def test_terminal_is_shown_in_the_old_form(rdev: int | None, shown: int) -> None:
    terminal = SimpleNamespace(rdev=rdev) if rdev is not None else None
    group: Any = SimpleNamespace(session=SimpleNamespace(terminal=terminal))

    assert terminal_of(group) == shown


class File:
    """A file on a file system with so much room."""

    def __init__(self, free: int) -> None:
        self.creds = None
        self.free = free
        self.records: list[bytes] = []
        self.inode = SimpleNamespace(fs=self)

    def incref(self) -> File:
        return self

    async def statfs(self) -> Any:
        return SimpleNamespace(blocks=100, blocks_free=self.free)

    def write(self, _: Any, source: Any) -> int:
        self.records.append(bytes(source.get(source.count)))
        return len(self.records[-1])


def test_a_full_file_system_stops_it_until_there_is_room() -> None:
    file: Any = File(2)
    accounting = Accounting(file)

    def write(free: int) -> int:
        file.free = free
        eager(accounting.look())
        eager(accounting.write(b"record"))
        return len(file.records)

    assert write(2) == 0
    assert write(3) == 0
    assert write(4) == 1
    assert write(3) == 2
    assert write(2) == 2


def test_the_room_is_looked_at_again_behind_a_record() -> None:
    file: Any = File(3)
    accounting = Accounting(file)
    eager(accounting.look())
    file.free = 2

    for _ in range(2):
        eager(accounting.write(b"within the time"))
    accounting._checked_ns = -(1 << 60)
    for _ in range(2):
        eager(accounting.write(b"after it"))

    assert file.records == [b"within the time"] * 2 + [b"after it"]


@pytest.mark.parametrize("ended", [False, True])
def test_a_namespace_that_has_ended_keeps_no_file(ended: bool) -> None:
    file: Any = File(3)
    pids = PidNamespace(None, None, None)
    pids.ended = ended
    task: Any = SimpleNamespace(kernel=None, group=SimpleNamespace(pids=pids))

    eager(turn_on(task, file))

    assert (pids.accounting is None) is ended


def test_records_that_a_file_system_does_not_take_are_few() -> None:
    file: Any = File(100)
    asked: list[Any] = []

    @coroutine
    def for_ever() -> Any:
        yield

    async def write(_: Any, source: Any) -> None:
        asked.append(source)
        await for_ever()

    file.write = write
    accounting = Accounting(file)
    waiting = [accounting.write(b"record") for _ in range(MAX_UNDERWAY + 10)]
    for record in waiting:
        with suppress(StopIteration):  # of those that are lost
            record.send(None)
    assert len(asked) == MAX_UNDERWAY
    for record in waiting[: MAX_UNDERWAY // 2]:
        record.close()
    waiting.append(accounting.write(b"record"))
    waiting[-1].send(None)
    assert len(asked) == MAX_UNDERWAY + 1
    for record in waiting:
        record.close()


def test_file_named_while_the_first_process_ends_is_given_back(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
    with World() as world:
        program = world.program()
        program.ok("mknod", b"/records", 0o100644, 0)
        init = program._made(program.ok("clone", CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0))
        pids = init.task.group.pids
        other = init._made(pids.known(init.ok("fork")))
        before = world.vfs.budget.files
        init.begin("exit_group", 0)
        named = other.begin("acct", b"/records")
        assert named.done and not pids.ended
        world.settle()
        assert pids.ended
        assert world.vfs.budget.files == before


def test_record_that_is_being_written_goes_to_the_file_that_was_named_then(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    with World() as world:
        program = world.program()
        before = world.vfs.budget.files
        for name in (b"/first", b"/second"):
            program.ok("mknod", name, 0o100644, 0)
        program.ok("acct", b"/first")
        accounting = program.task.group.pids.accounting
        assert accounting is not None
        kind, queue, is_held = type(accounting.file), WaitQueue(), True
        write = kind.write

        def free() -> None:
            if is_held:
                raise EAGAIN

        async def slow(file: Any, caller: Any, source: Any, rwf: int = 0) -> Any:
            await until(free, (queue,))
            return write(file, caller, source, rwf)

        monkeypatch.setattr(kind, "write", slow)
        child = program._made(program.ok("fork"))
        child.begin("exit_group", 3)
        world.settle()
        program.ok("acct", b"/second")
        program.ok("acct", 0)
        world.settle()
        is_held = False
        queue.notify_all()
        world.settle()
        monkeypatch.undo()
        sizes = []
        for name in (b"/first", b"/second"):
            fd = program.ok("open", name, O_RDONLY, 0)
            sizes.append(program.ok("lseek", fd, 0, SEEK_END) // RECORD.size)
            program.ok("close", fd)
        assert sizes == [2, 1]  # and the last of each is of who has turned it off
        assert world.vfs.budget.files == before
