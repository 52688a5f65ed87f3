"""What two containers of a sandbox have together, where a snapshot of one is made."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sentry.abi.fcntl import F_SETLK, F_SETOWN, F_WRLCK, LOCK_EX, LOCK_NB, O_CREAT, O_RDWR
from sentry.abi.mman import MAP_SHARED, PROT_READ, PROT_WRITE
from sentry.abi.socket import (
    AF_INET,
    AF_UNIX,
    BPF_TCP_CLOSE,
    BPF_TCP_ESTABLISHED,
    SOCK_DGRAM,
    SOCK_STREAM,
)
from sentry.abi.sysvipc import IPC_CREAT
from sentry.boot.first_process import make_task
from sentry.config import ProcessConfig
from sentry.errors import EOPNOTSUPP
from sentry.fs.tmpfs.filesystem import TmpFs
from sentry.kernel.container import Container
from sentry.kernel.namespaces import beside
from sentry.kernel.task import Task
from sentry.kernel.task_clone import first_task
from sentry.mm.mapping import mmap
from sentry.net.interfaces import bring_up
from sentry.platform.interface import Reg
from sentry.state import records
from sentry.state.open_files import locks
from sentry.state.saver import Saver
from sentry.state.saving import Saving
from sentry.vfs.mount import stand
from sentry.wait.steps import Pace
from tests.caller import AREA, AREA_SIZE
from tests.world import Program, World

LOOPBACK = struct.pack("<H", AF_INET) + struct.pack(">H", 4000) + bytes([127, 0, 0, 1]) + bytes(8)
ABSTRACT = struct.pack("<H", AF_UNIX) + b"\0name"


class Two:
    """A container, and another one of its pod, of which a snapshot is made."""

    def __init__(self, world: World, *shared: str) -> None:
        kernel = world.kernel
        self.world = world
        self.first = world.program()
        self.container = made = Container()
        names = (b"second", b"")
        root = world.vfs.new_mount(TmpFs.make(world.vfs, "mode=0755"))
        made.ns = beside(kernel, made, root, names, dict.fromkeys(shared, kernel.first))
        made.first_mounts = {mount.id: stand(mount) for mount in made.ns.mounts.mounts}
        bring_up(kernel.first.net.stack.interfaces.loopback)
        kernel.further.append(made)
        self.second = self.program()
        made.init = made.pids.init = self.second.task.group

    def program(self) -> Program:
        """One more in the second."""
        task = make_task(self.world.kernel, ProcessConfig((b"x",)), self.container)
        first_task(self.world.kernel, task)
        mmap(task.mm.map, AREA, AREA_SIZE, 3, 0x32)
        task.ctx.regs[Reg.RSP] = AREA + AREA_SIZE
        return Program(self.world, task)

    def forked(self) -> Task:
        """A child in the second."""
        number = self.container.pids.known(self.second.ok("fork"))
        return self.world.kernel.pids.tasks[number]

    def saver(self) -> Saver:
        """That of a snapshot, which has looked at the others."""
        made = Saver(self.world.kernel, self.container)
        self.world.run(made.others.look(Pace()))
        return made

    def record(self, fd: int, saver: Saver | None = None) -> Any:
        """That of an open file of the second."""
        saver = saver or self.saver()
        place = saver.files(self.second.task.files.get(fd))
        self.world.run(saver.catch_up(Pace()))
        return saver.files.records[place]

    def given(self, giver: Program, fd: int, taker: Program) -> int:
        """The open file of one in another one, as by SCM_RIGHTS."""
        return taker.task.files.install(giver.task.files.get(fd).incref(), 100)


@pytest.fixture
def two() -> Iterator[Two]:
    with World() as made:
        yield Two(made, "network", "ipc")


def listening(program: Program, family: int, address: bytes) -> int:
    fd = program.ok("socket", family, SOCK_STREAM, 0)
    program.ok("bind", fd, program.place(address), len(address))
    program.ok("listen", fd, 5)
    return fd


def connected(program: Program, family: int, address: bytes) -> int:
    fd = program.ok("socket", family, SOCK_STREAM, 0)
    program.ok("connect", fd, program.place(address), len(address))
    return fd


def test_numbers_are_those_of_the_container(two: Two) -> None:
    child = two.forked()
    saver = two.saver()

    assert [saver.number(each.tid) for each in (two.second.task, child)] == [1, 2]
    assert saver.number(two.first.task.tid) == 0
    assert saver.known(two.first.task.tid) is None
    assert saver.number(-1) == -1


def test_what_is_shared_is_said(two: Two) -> None:
    assert two.saver().others.shared == ["ipc", "net"]


@pytest.mark.parametrize("is_accepted", [False, True])
def test_a_connection_of_tcp_with_another_container_is_reset(two: Two, is_accepted: bool) -> None:
    server = listening(two.first, AF_INET, LOOPBACK)
    client = connected(two.second, AF_INET, LOOPBACK)
    if is_accepted:
        two.first.ok("accept", server, 0, 0)

    record = two.record(client)

    assert (record.outside, record.peer, record.state) == (True, None, BPF_TCP_CLOSE)


def test_what_waits_for_accept_from_another_container_is_left_out(two: Two) -> None:
    server = listening(two.second, AF_INET, LOOPBACK)
    connected(two.first, AF_INET, LOOPBACK)
    own = connected(two.second, AF_INET, LOOPBACK)
    saver = two.saver()

    mine = two.record(own, saver)

    assert two.record(server, saver).accepted == [mine.peer]
    assert (mine.outside, mine.state) == (False, BPF_TCP_ESTABLISHED)


def unix_connection(two: Two) -> int:
    server = listening(two.first, AF_UNIX, ABSTRACT)
    client = connected(two.second, AF_UNIX, ABSTRACT)
    two.first.ok("accept", server, 0, 0)
    return client


def unix_connection_that_waits(two: Two) -> int:
    listening(two.first, AF_UNIX, ABSTRACT)
    return connected(two.second, AF_UNIX, ABSTRACT)


def unix_listener_with_somebody(two: Two) -> int:
    server = listening(two.second, AF_UNIX, ABSTRACT)
    connected(two.first, AF_UNIX, ABSTRACT)
    return server


def datagram_of_another(two: Two) -> int:
    fd = two.second.ok("socket", AF_UNIX, SOCK_DGRAM, 0)
    two.second.ok("bind", fd, two.second.place(ABSTRACT), len(ABSTRACT))
    other = two.first.ok("socket", AF_UNIX, SOCK_DGRAM, 0)
    name = two.first.place(ABSTRACT)
    two.first.ok("sendto", other, two.first.place(b"x"), 1, 0, name, len(ABSTRACT))
    return fd


def end_of_a_pipe(two: Two) -> int:
    pair = two.second.buffer(8)
    two.second.ok("pipe2", pair, 0)
    reads, writes = struct.unpack("<2i", two.second.read(pair, 8))
    two.given(two.second, reads, two.first)
    two.second.ok("close", reads)
    return int(writes)


def open_file_of_both(two: Two) -> int:
    fd = two.second.ok("eventfd2", 0, 0)
    two.given(two.second, fd, two.first)
    return fd


def memory_of_both(two: Two) -> int:
    fd = two.second.ok("memfd_create", b"m", 0)
    two.second.ok("ftruncate", fd, 4096)
    other = two.given(two.second, fd, two.first)
    two.first.ok("mmap", 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0)
    two.first.ok("close", other)
    return fd


def process_of_another(two: Two) -> int:
    child = two.first.fork()
    fd = two.first.ok("pidfd_open", child.task.tid, 0)
    mine = two.given(two.first, fd, two.second)
    two.first.ok("close", fd)
    return mine


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (unix_connection, "an open file, or an end of a connection"),
        (unix_connection_that_waits, "an open file, or an end of a connection"),
        (unix_listener_with_somebody, "an open file, or an end of a connection"),
        (datagram_of_another, "an open file, or an end of a connection"),
        (end_of_a_pipe, "a pipe whose other end"),
        (open_file_of_both, "an open file"),
        (memory_of_both, "memory that another"),
        (process_of_another, "a pidfd of a process of another"),
    ],
)
def test_what_cannot_be_cut_in_two_is_refused(
    two: Two, make: Callable[[Two], int], what: str
) -> None:
    fd = make(two)

    with pytest.raises(EOPNOTSUPP, match=f"cannot checkpoint: {what}.*container"):
        two.record(fd)


def test_what_is_the_containers_own_is_kept_beside_others(two: Two) -> None:
    end_of_a_pipe(two)
    pair = two.second.buffer(8)
    two.second.ok("pipe2", pair, 0)
    reads, _ = struct.unpack("<2i", two.second.read(pair, 8))

    assert isinstance(two.record(reads), records.PipeEnd)


def test_a_segment_that_another_container_has_attached_is_refused(two: Two) -> None:
    mine, theirs = (two.second.ok("shmget", key, 4096, IPC_CREAT | 0o600) for key in (7, 8))
    two.second.ok("shmat", mine, 0, 0)
    saving = Saving(two.world.kernel, two.container)
    two.world.run(saving.saver.others.look(Pace()))
    from sentry.state import sysv  # noqa: PLC0415  as `Saving` does it

    made: Any = two.container.ns.ipc.made
    found = sysv.save(saving.saver, made)
    assert [(each.key, each.cpid, each.creator) for each in found.segments] == [
        (7, 1, 1), (8, 1, 1)
    ]  # fmt: skip

    two.first.ok("shmat", theirs, 0, 0)
    saver = two.saver()
    with pytest.raises(EOPNOTSUPP, match="memory that another container"):
        sysv.save(saver, made)


def test_locks_and_owners_of_others_are_left_out(two: Two) -> None:
    fd = two.second.ok("open", b"/file", O_CREAT | O_RDWR, 0o644)
    lock = struct.pack("<hh4xqqi4x", F_WRLCK, 0, 0, 4, 0)
    two.second.ok("fcntl", fd, F_SETLK, two.second.place(lock))
    two.second.ok("flock", fd, LOCK_EX | LOCK_NB)
    two.second.ok("fcntl", fd, F_SETOWN, 1)
    file = two.second.task.files.get(fd)
    theirs = two.first.task.files.install(file.incref(), 100)
    other = struct.pack("<hh4xqqi4x", F_WRLCK, 0, 8, 4, 0)
    two.first.ok("fcntl", theirs, F_SETLK, two.first.place(other))
    saver = two.saver()
    saver.others._held.pop(id(file))

    found = locks(saver, file)

    assert found is not None
    assert [(each.pid, each.start) for each in found.held] == [(1, 0)]
    assert [each.pid for each in found.flocks] == [1]
    assert two.record(fd, saver).owner == (1, 1)


def test_processes_are_those_of_the_container(two: Two) -> None:
    child = two.forked()

    found = Saving(two.world.kernel, two.container)._groups()

    assert found == [two.second.task.group, child.group]


def test_a_pid_namespace_of_both_is_refused() -> None:
    with World() as world:
        two = Two(world, "pid")
        with pytest.raises(EOPNOTSUPP, match="a PID namespace that is another container's, too"):
            Saving(world.kernel, two.container)._groups()


def test_a_process_in_a_namespace_of_another_container_is_refused(two: Two) -> None:
    two.second.task.ns = two.second.task.ns.but(uts=two.world.kernel.first.uts)
    saver = two.saver()

    with pytest.raises(EOPNOTSUPP, match="a namespace of another container"):
        saver.namespaces.where(two.second.task.ns)


def test_a_mount_namespace_of_another_container_is_refused(two: Two) -> None:
    two.second.task.ns = two.second.task.ns.but(mounts=two.world.kernel.first.mounts)
    saver = two.saver()

    with pytest.raises(EOPNOTSUPP, match="namespace"):
        saver.namespaces.where(two.second.task.ns)
