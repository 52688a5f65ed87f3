"""What a core dump looks at, besides what tests/abi/core_dump.c sees of the file."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator

import pytest

from sentry.abi.elf import EHDR, PHDR, PT_LOAD
from sentry.abi.fcntl import O_WRONLY
from sentry.abi.mman import MAP_ANONYMOUS, MAP_NORESERVE, MAP_PRIVATE
from sentry.abi.prctl import PR_GET_DUMPABLE
from sentry.abi.resource import RLIMIT_CORE
from sentry.abi.sched import CLONE_NEWPID
from sentry.abi.signal import SIGABRT, SIGCHLD, SIGKILL
from sentry.abi.stat import STAT
from sentry.kernel.core_dump import CHUNK, file_name
from sentry.kernel.own_memory import OwnMemory
from sentry.kernel.signals import SigInfo
from sentry.kernel.work import WORK_EXIT
from sentry.mm.vma_list import RUN_MAX
from sentry.platform.memory import AddressSpace
from tests.world import AREA, Program, World

PAGE = 4096
TIB = 1 << 40


def test_memory_that_was_never_touched_costs_no_look_at_each_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []
    resident = AddressSpace.resident

    def noted(self: AddressSpace, addr: int, pages: int) -> bytes:
        looks.append(pages)
        return resident(self, addr, pages)

    monkeypatch.setattr(AddressSpace, "resident", noted)
    with World() as world:
        program = world.program()
        task = program.task
        task.group.limits.set(RLIMIT_CORE, 1 << 50, 1 << 50)
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        large = program.ok("mmap", 0, TIB, 3, flags, 0xFFFFFFFF, 0)
        there = large + TIB // 2 + 5 * PAGE
        task.mm.write(there, b"there")
        program.begin("kill", task.group.tgid, SIGABRT)
        world.settle()
        assert task.group.exit_status == SIGABRT | 0x80

        reader = world.program()
        fd, room = reader.ok("open", b"/core", 0), reader.buffer(PAGE)
        reader.ok("pread64", fd, room, PAGE, 0)
        head = reader.read(room, PAGE)
        count = struct.unpack_from("<H", head, 56)[0]
        places = range(EHDR.size, EHDR.size + count * PHDR.size, PHDR.size)
        rows = [PHDR.unpack(head[at : at + PHDR.size]) for at in places]
        (found,) = [row for row in rows if row.p_type == PT_LOAD and row.p_vaddr == large]
        assert found.p_filesz == TIB
        reader.ok("pread64", fd, room, 5, found.p_offset + there - large)
        assert reader.read(room, 5) == b"there"
    assert max(looks) <= CHUNK // PAGE
    assert len(looks) < 100


@pytest.mark.parametrize(
    ("host", "comm", "name"),
    [
        (b"a", b"b", b"/cores/a/b.6"), (b"..", b".", b"/cores/!./!.6"), (b"", b"", b"/cores/!/!.6"),
        (b"../../etc", b"/x", b"/cores/..!..!etc/!x.6"),
    ],
)  # fmt: skip
def test_names_that_a_program_chooses_lead_to_no_other_directory(
    host: bytes, comm: bytes, name: bytes
) -> None:
    with World() as world:
        task = world.program().task
        task.ns.uts.set_name("nodename", host)
        task.comm = comm
        assert file_name(task, SigInfo.kernel(SIGABRT), b"/cores/%h/%e.%s") == name


def put(program: Program, path: bytes, value: bytes) -> int:
    """Write a value below /proc/sys."""
    fd = program.ok("open", b"/proc/sys/" + path, O_WRONLY)
    done = program.call("write", fd, program.place(value), len(value))
    program.ok("close", fd)
    return done


def dies_with_other_ids(world: World, setting: bytes, pattern: bytes, root: bytes) -> int:
    """The status of who had root's rights."""
    program = world.program()
    assert put(program, b"fs/suid_dumpable", setting) == len(setting)
    put(program, b"kernel/core_pattern", pattern)
    program.task.group.limits.set(RLIMIT_CORE, 1 << 30, 1 << 30)
    program.ok("chroot", root)
    program.ok("chdir", b"/")
    program.ok("setresuid", 1000, 1000, 1000)
    assert program.ok("prctl", PR_GET_DUMPABLE) == int(setting)
    program.begin("kill", program.task.group.tgid, SIGABRT)
    world.settle()
    return program.task.group.exit_status


def test_what_suid_dumpable_says_of_who_had_other_rights() -> None:
    with World() as world:
        world.mount("proc", b"/proc")
        program = world.program()
        assert put(program, b"fs/suid_dumpable", b"3") == -errno.EINVAL
        program.ok("mkdir", b"/jail", 0o777)
        program.ok("chmod", b"/jail", 0o777)
        assert dies_with_other_ids(world, b"0", b"/no", b"/jail") == SIGABRT
        assert dies_with_other_ids(world, b"2", b"no", b"/jail") == SIGABRT
        assert dies_with_other_ids(world, b"2", b"/by-root", b"/jail") == SIGABRT | 0x80
        assert dies_with_other_ids(world, b"1", b"/own", b"/jail") == SIGABRT | 0x80
        room = program.buffer(STAT.size)
        for path, uid in (b"/by-root", 0), (b"/jail/own", 1000):
            program.ok("stat", path, room)
            found = STAT.unpack(program.read(room, STAT.size))
            assert (found.st_uid, found.st_mode) == (uid, 0o100600)
        assert program.call("stat", b"/no", room) == -errno.ENOENT


def test_headers_of_many_mappings_are_made_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    with World() as world:
        program = world.program()
        task = program.task
        for at in range(AREA, AREA + 2 * RUN_MAX * PAGE, 2 * PAGE):
            program.ok("mprotect", at, PAGE, 1)
        task.group.limits.set(RLIMIT_CORE, PAGE, PAGE)
        monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
        program.begin("kill", task.group.tgid, SIGABRT)
        turns = 0
        while not task.dead:
            world.loop.turn()
            turns += 1
        assert turns >= 2 * 2 * RUN_MAX


def test_the_other_threads_are_told_to_end_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    with World() as world:
        program = world.program()
        threads = [program.thread().task for _ in range(20)]
        task = program.task
        task.group.limits.set(RLIMIT_CORE, 1 << 30, 1 << 30)
        monkeypatch.setattr("sentry.loop.PIECE", 1)
        monkeypatch.setattr("sentry.loop.PIECE_NS", -1)
        program.begin("kill", task.group.tgid, SIGABRT)
        assert sum(bool(each.dead or each.work & WORK_EXIT) for each in threads) <= 1
        world.settle()
        assert all(each.dead for each in threads)
        assert task.group.exit_status == SIGABRT | 0x80


@pytest.fixture
def statm() -> Iterator[int]:
    fd = os.open("/proc/self/statm", os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("how", ["kill", "end of its namespace", "cgroup.kill", "own memory"])
def test_sigkill_ends_a_core_dump(how: str, statm: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with World() as world:
        program = world.program()
        first = program._made(program.ok("clone", CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0))
        first.ok("fork")
        dying = first._made(max(world.kernel.pids.tasks))
        group = dying.task.group
        group.limits.set(RLIMIT_CORE, 1 << 50, 1 << 50)
        for at in range(AREA, AREA + 200 * PAGE, 2 * PAGE):
            dying.write(at, b"there")
        monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
        dying.begin("kill", 2, SIGABRT)
        room = program.buffer(144)
        while program.call("stat", b"/core", room) or not program.read(room + 48, 8).strip(b"\0"):
            world.loop.turn()
        assert group.tasks
        if how == "kill":
            program.ok("kill", group.tgid, SIGKILL)
        elif how == "cgroup.kill":
            world.mount("cgroup2", b"/cgroup")
            program.ok("mkdir", b"/cgroup/one", 0o755)
            for name, text in (b"procs", b"%d" % group.tgid), (b"kill", b"1"):
                fd = program.ok("open", b"/cgroup/one/cgroup." + name, O_WRONLY)
                program.ok("write", fd, program.place(text), len(text))
        elif how == "own memory":
            memory = OwnMemory(world.kernel, statm)
            memory._killed, memory._last = True, 1 << 50
            memory._bound()
            assert not program.task.group.exiting
        else:
            first.begin("exit_group", 0)
        world.settle()
        assert group.exit_status == SIGABRT
        assert not group.tasks
