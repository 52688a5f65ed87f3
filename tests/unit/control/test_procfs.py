"""What /proc says of processes, in pieces."""

from __future__ import annotations

import msgspec

from sentry.abi.fcntl import O_DIRECTORY
from sentry.control import procfs
from sentry.control.answers import ProcfsIds
from sentry.control.protocol import MAX_LINE
from tests.world import World


def test_a_process_is_told_with_its_files_and_users() -> None:
    with World() as world:
        program = world.program()
        program.ok("setresuid", 1, 2, 3)
        program.task.comm = b"sh"
        program.task.group.argv = (b"sh", b"-c")
        found = procfs.after(world.kernel, program.task.group.tgid - 1).processes[0]
    assert (found.status.comm, found.status.pid) == ("sh", program.task.group.tgid)
    assert found.status.uid == ProcfsIds(1, 2, 3)
    assert found.args == ["sh", "-c"]
    assert (found.cwd, found.root) == ("/", "/")
    assert found.clone_ts > 10**18
    assert found.limits["RLIMIT_NOFILE"].cur > 0
    assert found.cgroup[0].path == "/"


def test_an_open_file_is_told_by_its_path() -> None:
    with World() as world:
        program = world.program()
        fd = program.ok("openat", -100, b"/f", 0o102, 0o600)
        found = procfs.after(world.kernel, program.task.group.tgid - 1).processes[0]
    told = next(file for file in found.fdlist if file.number == fd)
    assert (told.path, told.mode & 0o7777) == ("/f", 0o600)


def test_all_are_told_though_they_are_many() -> None:
    with World() as world:
        program = world.program()
        for _ in range(2 * procfs.PIECE):
            program.fork()
        seen: list[int] = []
        more = True
        while more:
            piece = procfs.after(world.kernel, seen[-1] if seen else 0)
            assert 0 < len(piece.processes) <= procfs.PIECE
            seen += [each.status.pid for each in piece.processes]
            more = piece.more
        assert seen == sorted(world.kernel.pids.groups)


def test_a_program_with_long_paths_cannot_make_the_answer_too_long() -> None:
    with World() as world:
        program = world.program()
        fd = program.ok("openat", -100, b"/", O_DIRECTORY, 0)
        for _ in range(16):
            program.ok("mkdirat", fd, b"\xff" * 250, 0o755)
            fd = program.ok("openat", fd, b"\xff" * 250, O_DIRECTORY, 0)
        for _ in range(procfs.MAX_FILES - 20):
            program.ok("dup", fd)
        for _ in range(procfs.PIECE):
            child = program.fork()
            child.task.group.argv = (b"\1" * 4096,) * 8
        seen: list[int] = []
        more = True
        while more:
            piece = procfs.after(world.kernel, seen[-1] if seen else 0)
            assert len(msgspec.json.encode(piece)) < MAX_LINE
            seen += [each.status.pid for each in piece.processes]
            more = piece.more
        assert seen == sorted(world.kernel.pids.groups)
