"""/proc over a few made-up processes: lookups, rights, what remains of the dead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sentry.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ
from sentry.auth.credentials import Credentials
from sentry.errors import EACCES, EINVAL, ENOENT, ERANGE, ESRCH
from sentry.fs.proc.filesystem import ProcFs
from sentry.fs.proc.mounts import escape
from sentry.fs.proc.process_memory import locked
from sentry.fs.proc.process_misc import LIMITS
from sentry.fs.proc.registry import number
from sentry.kernel.pids import Pids
from sentry.kernel.services import Services
from sentry.mm.mapping import mmap
from sentry.vfs.interface import ABSENT, Inode
from tests.world import World

FLAGS = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS


class Process:
    """A process with one thread."""

    def __init__(self, kernel: Any, pid: int, creds: Credentials) -> None:
        self.kernel = kernel
        self.tgid = pid
        self.dumpable = 1
        self.exec_user_ns = None
        self.pids = kernel.pids
        self.exe = None
        self.leader: Any = SimpleNamespace(tid=pid, group=self, creds=creds, dead=False, comm=b"x")
        self.tasks = [self.leader]
        kernel.pids.groups[pid] = self
        kernel.pids.tasks[pid] = self.leader

    def die(self) -> None:
        self.leader.dead = True
        self.tasks = []
        del self.kernel.pids.tasks[self.tgid]

    def reap(self) -> None:
        del self.kernel.pids.groups[self.tgid]


@pytest.fixture
def kernel() -> Any:
    vfs = SimpleNamespace(new_dev=lambda: 33, now_ns=lambda: 0)
    return SimpleNamespace(vfs=vfs, pids=Pids(100), services=Services())


def lookup(inode: Any, *names: bytes) -> Any:
    for name in names:
        inode = inode.lookup_cached(name)
    return inode


def test_process_is_there_as_long_as_it_is_not_reaped(kernel: Any) -> None:
    root = ProcFs(kernel).root
    process = Process(kernel, 7, Credentials.user(1000, 1000))
    directory = lookup(root, b"7")
    assert isinstance(directory, Inode) and directory.uid == 1000
    assert lookup(root, b"7") is directory
    process.die()
    assert lookup(root, b"7") is directory
    process.reap()
    assert lookup(root, b"7") is ABSENT
    with pytest.raises(ESRCH):
        directory.lookup_cached(b"status")


def test_number_of_another_process_gives_another_directory(kernel: Any) -> None:
    root = ProcFs(kernel).root
    process = Process(kernel, 7, Credentials.root())
    old = lookup(root, b"7")
    process.die()
    process.reap()
    Process(kernel, 7, Credentials.root())
    assert lookup(root, b"7") is not old
    assert lookup(root, b"7").ino == old.ino


@pytest.mark.parametrize("name", [b"07", b"0", b"-1", b"7x", b"99999999999", b""])
def test_what_is_no_pid_is_not_found(kernel: Any, name: bytes) -> None:
    Process(kernel, 7, Credentials.root())
    assert lookup(ProcFs(kernel).root, name) is ABSENT


def test_owner_follows_the_credentials_and_root_owns_the_undumpable(kernel: Any) -> None:
    root = ProcFs(kernel).root
    process = Process(kernel, 7, Credentials.user(1000, 1001))
    environ = lookup(root, b"7", b"environ")
    assert (environ.uid, environ.gid) == (1000, 1001)
    process.dumpable = 0
    assert lookup(root, b"7", b"environ").uid == 0


@pytest.mark.parametrize("name", [b"exe", b"cwd", b"root"])
def test_links_are_only_for_those_who_may_look(kernel: Any, name: bytes) -> None:
    root = ProcFs(kernel).root
    Process(kernel, 7, Credentials.root())
    stranger = Process(kernel, 8, Credentials.user(1000, 1000)).leader
    link = lookup(root, b"7", name)
    with pytest.raises(EACCES):
        link.follow(stranger)


def test_links_of_the_dead_lead_nowhere(kernel: Any) -> None:
    root = ProcFs(kernel).root
    process = Process(kernel, 7, Credentials.root())
    reader = Process(kernel, 8, Credentials.root()).leader
    process.die()
    with pytest.raises(ENOENT):
        lookup(root, b"7", b"exe").follow(reader)


def test_self_names_the_reader(kernel: Any) -> None:
    root = ProcFs(kernel).root
    reader = Process(kernel, 8, Credentials.root()).leader
    assert lookup(root, b"self").readlink_for(reader) == b"8"
    assert lookup(root, b"thread-self").readlink_for(reader) == b"8/task/8"
    with pytest.raises(ENOENT):
        lookup(root, b"self").readlink_for(SimpleNamespace(group=None))


def test_listing_has_the_numbers_of_the_inodes(kernel: Any) -> None:
    root: Any = ProcFs(kernel).root
    Process(kernel, 7, Credentials.root())
    listing = {entry.name: entry.ino for entry in root.entries()}
    for name in (b"7", b"meminfo", b"self", b"sys"):
        assert listing[name] == lookup(root, name).ino


def test_written_numbers() -> None:
    assert number(b" 12\n", 0, 100) == 12
    assert (number(b"-0x1f", -100, 100), number(b"020", 0, 100), number(b"0", 0, 0)) == (-31, 16, 0)
    for text in (b"", b"1_0", b"0b1", b"09", b"0x", b"x", b"1 2", b"9" * 5000):
        with pytest.raises(EINVAL):
            number(text, 0, 100)
    for text in (b"101", b"0x" + b"f" * 5000):
        with pytest.raises(ERANGE):
            number(text, 0, 100)
    assert len(LIMITS) == 16


def test_paths_are_escaped_in_mounts() -> None:
    assert escape(b"/a b\tc\\d\n") == b"/a\\040b\\011c\\134d\\012"


@pytest.mark.parametrize("pieces", [1, 3])
def test_who_reads_of_a_memory_no_further_gives_it_back_when_nobody_else_has_it(
    pieces: int,
) -> None:
    with World() as world:
        mm = world.program().task.mm.fork()
        for number in range(100):
            mmap(mm.map, (number + 1) << 20, 4096, PROT_READ, FLAGS)
        reading: Any = locked(mm, [b"a", b"b"])
        assert next(reading) == b"a"
        mm.release()
        for _ in range(pieces - 1):
            next(reading)
        reading.close()
        assert (mm.users, len(mm.map.vmas), mm.map.lock.holder) == (0, 0, None)
