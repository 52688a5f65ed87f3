"""Long texts: others run between two pieces, and what they close meanwhile is not shown."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from sentry.abi.fcntl import F_SETLK, F_WRLCK
from sentry.abi.keyctl import KEY_SPEC_SESSION_KEYRING
from sentry.abi.poll import EPOLLERR
from sentry.abi.socket import AF_INET, AF_UNIX, SOCK_DGRAM, SOCK_STREAM
from tests.world import Program, World

MANY = 60
ROOM = 1 << 16
IPC_PRIVATE, IPC_RMID = 0, 0


class Long(NamedTuple):
    """A text with a line for each of MANY things."""

    path: bytes
    name: bytes
    """What the line of the last thing shows, and no other."""
    remove: Callable[[Program], object] | None = None
    """End the last thing."""


def address(port: int) -> bytes:
    return struct.pack("<H", AF_INET) + struct.pack(">HI8x", port, 0x7F000001)


def datagrams(program: Program) -> Long:
    for n in range(MANY):
        fd = program.ok("socket", AF_INET, SOCK_DGRAM, 0)
        program.ok("bind", fd, address(4000 + n), 16)
    name = b"0100007F:%04X" % (3999 + MANY)
    return Long(b"/proc/net/udp", name, lambda other: other.ok("close", fd))


def listeners(program: Program) -> Long:
    for n in range(MANY):
        fd = program.ok("socket", AF_INET, SOCK_STREAM, 0)
        program.ok("bind", fd, address(4000 + n), 16)
        program.ok("listen", fd, 1)
    name = b"0100007F:%04X" % (3999 + MANY)
    return Long(b"/proc/net/tcp", name, lambda other: other.ok("close", fd))


def unix_names(program: Program) -> Long:
    for n in range(MANY):
        fd = program.ok("socket", AF_UNIX, SOCK_DGRAM, 0)
        program.ok("bind", fd, struct.pack("<H", AF_UNIX) + b"\0\xff%02d" % n, 6)
    name = b" @\xff%02d\n" % (MANY - 1)
    return Long(b"/proc/net/unix", name, lambda other: other.ok("close", fd))


def epoll_items(program: Program) -> Long:
    epoll, event = program.ok("epoll_create1", 0), program.place(struct.pack("<IQ", 1, 0))
    for _ in range(MANY):
        fd = program.ok("eventfd2", 0, 0)
        program.ok("epoll_ctl", epoll, 1, fd, event)
    name = b"tfd: %8d " % fd
    return Long(b"/proc/self/fdinfo/%d" % epoll, name, lambda other: other.ok("close", fd))


def watches(program: Program) -> Long:
    fd = program.ok("inotify_init")
    for n in range(MANY):
        program.ok("mkdir", b"/watched%d" % n, 0o700)
        wd = program.ok("inotify_add_watch", fd, b"/watched%d" % n, 2)
    path, name = b"/proc/self/fdinfo/%d" % fd, b" wd:%x " % wd
    return Long(path, name, lambda other: other.ok("inotify_rm_watch", fd, wd))


def segments(program: Program) -> Long:
    for n in range(MANY):
        number = program.ok("shmget", IPC_PRIVATE, 10_000 + n, 0o600)
    name = b" %d " % (9_999 + MANY)
    return Long(b"/proc/sysvipc/shm", name, lambda other: other.ok("shmctl", number, IPC_RMID, 0))


def sets(program: Program) -> Long:
    for n in range(MANY):
        number = program.ok("semget", IPC_PRIVATE, 100 + n, 0o600)
    name = b" %d " % (99 + MANY)
    return Long(b"/proc/sysvipc/sem", name, lambda other: other.ok("semctl", number, 0, IPC_RMID))


def queues(program: Program) -> Long:
    for n in range(MANY):
        number = program.ok("msgget", 100_000 + n, 0o1600)
    name = b" %d " % (99_999 + MANY)
    return Long(b"/proc/sysvipc/msg", name, lambda other: other.ok("msgctl", number, IPC_RMID, 0))


def keys(program: Program) -> Long:
    for n in range(MANY):
        name = b"\xffkey%02d" % n
        program.ok("add_key", b"user", name, b"v", 1, KEY_SPEC_SESSION_KEYRING)
    return Long(b"/proc/keys", name)


def users_of_keys(program: Program) -> Long:
    keys(program)
    return Long(b"/proc/key-users", b"    0: ")


def locks(program: Program) -> Long:
    fd = program.ok("open", b"/locked", 0o102, 0o600)
    for n in range(MANY):
        lock = struct.pack("<hhxxxxqqixxxx", F_WRLCK, 0, 100 + 2 * n, 1, 0)
        program.ok("fcntl", fd, F_SETLK, program.place(lock))
    return Long(b"/proc/locks", b" %d %d\n" % (98 + 2 * MANY, 98 + 2 * MANY))


def timers(program: Program) -> Long:
    room = program.buffer(4)
    for _ in range(MANY):
        program.ok("timer_create", 1, 0, room)
    number = struct.unpack("<i", program.read(room, 4))[0]
    return Long(b"/proc/self/timers", b"ID: %d\n" % number)


def mounts(program: Program) -> Long:
    for n in range(MANY):
        program.ok("mkdir", b"/m%d" % n, 0o700)
        program.ok("mount", b"none", b"/m%d" % n, b"tmpfs", 0, 0)
    return Long(b"/proc/self/mountstats", b" on /m%d with" % (MANY - 1))


def mappings(program: Program) -> Long:
    for n in range(MANY):
        program.ok("mmap", 0x10000000 + 0x2000 * n, 4096, 3, 0x32, -1, 0)
    return Long(b"/proc/self/statm", b" ")


def processes(program: Program) -> Long:
    for _ in range(MANY):
        program.fork()
    return Long(b"/proc/stat", b"processes ")


def members(program: Program) -> Long:
    program.world.mount("cgroup2", b"/sys/fs/cgroup")
    for _ in range(MANY):
        child = program.fork()
    return Long(b"/sys/fs/cgroup/cgroup.procs", b"\n%d\n" % child.task.tid)


ALL = (datagrams, listeners, unix_names, epoll_items, watches, segments, sets, queues, keys,
       users_of_keys, locks, timers, mounts, mappings, processes, members)  # fmt: skip
CHANGING = (datagrams, listeners, unix_names, epoll_items, watches, segments, sets, queues)


@pytest.fixture()
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """One in a world where each piece takes longer than a step."""
    with World() as world:
        world.mount("proc", b"/proc")
        yield world.program()
        monkeypatch.undo()


def read(program: Program, long: Long, meanwhile: Callable[[], object]) -> tuple[int, bytes]:
    """In how many steps, and what. `meanwhile` is done after the fifth."""
    fd, room = program.ok("open", long.path, 0), program.buffer(ROOM)
    reading = program.begin("read", fd, room, ROOM)
    steps = 1
    while not reading.done:
        steps += 1
        if steps == 5:
            meanwhile()
        program.world.loop.turn()
    return steps, program.read(room, reading.result)


@pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
def test_long_text_is_made_in_steps(
    program: Program, make: Callable[[Program], Long], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = make(program)
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)
    steps, text = read(program, long, lambda: None)
    assert steps > MANY
    assert text.count(long.name) >= 1
    assert text.endswith(b"\n")


@pytest.mark.parametrize("make", CHANGING, ids=lambda make: make.__name__)
def test_what_ends_meanwhile_is_not_shown(
    program: Program, make: Callable[[Program], Long], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = program.thread()
    long = make(program)
    remove = long.remove
    assert remove is not None
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", 0)
    _, text = read(program, long, lambda: remove(other))
    assert long.name not in text
    assert len(text.splitlines()) >= MANY - 1


def test_short_text_is_made_at_once(program: Program) -> None:
    assert read(program, Long(b"/proc/version", b""), lambda: None)[0] == 1


def test_a_poll_tells_of_a_change_that_was_there_before_the_file_was_opened_again(
    program: Program,
) -> None:
    """As in a snapshot."""
    file = program.task.files.get(program.ok("open", b"/proc/self/mounts", 0, 0))
    assert not file.poll() & EPOLLERR
    program.ok("mkdir", b"/there", 0o755)
    program.ok("mount", b"it", b"/there", b"tmpfs", 0, 0)
    assert file.has_changed
    file.seen_but(False)
    assert not file.has_changed and not file.poll() & EPOLLERR
    file.seen_but(True)
    assert file.poll() & EPOLLERR and not file.poll() & EPOLLERR


def test_texts_of_many_open_files_have_a_ceiling_and_are_read_on_beyond_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with World() as world:
        program = world.program()
        world.mount("proc", b"/proc")
        budget, room = world.vfs.budget, program.buffer(ROOM)
        fds = [program.ok("open", b"/proc/self/maps", 0) for _ in range(MANY)]
        size = program.ok("pread64", fds[0], room, ROOM, 0)
        whole = program.read(room, size)
        monkeypatch.setattr("sentry.vfs.budget.MAX_TEXT_BYTES", 3 * size)
        for fd in fds:
            assert program.ok("read", fd, room, 10) == 10
            assert budget.text_bytes == size * len(budget.texts) <= 3 * size
        for fd in fds:
            assert program.ok("read", fd, room, ROOM) == size - 10
            assert program.read(room, size - 10) == whole[10:]
            program.ok("close", fd)
        assert (budget.text_bytes, budget.texts) == (0, {})
