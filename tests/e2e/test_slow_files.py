"""Files of the host that keep whoever reads them waiting: only that program waits."""

from __future__ import annotations

import ctypes
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, Bundle
from tests.e2e.client import Client, wait_for_end
from tests.e2e.processes import cgroups
from tests.e2e.talker import Talker

needs_fuse = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="needs root and /dev/fuse"
)
MNT_DETACH = 2
ECHO = "while read -r word; do echo $word back; done; wait $!; echo status $?"
"""A second task that must go on meanwhile, and the fate of the first."""


@contextmanager
def slow_folder(path: Path) -> Iterator[Talker]:
    path.mkdir()
    server = Talker([sys.executable, "-m", "tests.e2e.slowfs", str(path)])
    try:
        assert server.hear() == "mounted"
        yield server
    finally:
        server.process.kill()
        server.process.communicate()
        ctypes.CDLL(None).umount2(os.fsencode(path), MNT_DETACH)


def _mounted(bundle: Bundle, folder: Path, script: str) -> Bundle:
    mount = {"destination": "/slow", "type": "bind", "source": str(folder), "options": ["bind"]}
    bundle.document["mounts"].append(mount)
    return bundle.args("sh", "-c", script)


def _with(bundle: Bundle, folder: Path, script: str) -> Talker:
    return Talker(_mounted(bundle, folder, script).command())


@needs_fuse
@pytest.mark.parametrize(
    ("operation", "command"), [("read", "cat /slow/file"), ("write", "echo x > /slow/file")]
)
def test_slow_file_keeps_only_its_user_waiting(
    bundle: Bundle, tmp_path: Path, operation: str, command: str
) -> None:
    with slow_folder(tmp_path / "slow") as server:
        program = _with(bundle, tmp_path / "slow", f"exec 3<&0; {command} & exec <&3; {ECHO}")

        assert server.hear() == operation
        program.say("first")
        assert program.hear() == "first back"
        program.say("second")
        assert program.hear() == "second back"
        server.say("go on")

        said = program.end()
        assert said == (["late"] if operation == "read" else []) + ["status 0"]
        assert program.process.returncode == 0


@needs_fuse
def test_process_that_waits_for_a_slow_file_can_be_killed(bundle: Bundle, tmp_path: Path) -> None:
    script = "cat /slow/file & read word; kill -9 $!; wait $!; echo status $?"
    with slow_folder(tmp_path / "slow") as server:
        program = _with(bundle, tmp_path / "slow", script)
        assert server.hear() == "read"

        program.say("kill it")

        assert program.hear() == f"status {128 + signal.SIGKILL}"
        server.say("go on")
        assert program.end() == []


HUNG = [("lookup", "ls /slow/nowhere"), ("read", "cat /slow/file")]
"""Where the Gofer, or a thread of the Sentry, is in the kernel, and no signal ends it."""


@pytest.fixture
def hung(
    bundle: Bundle, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Client]:
    """A container `c` that waits for a file system which never answers, to the end of the test."""
    operation, command = request.param
    folder = tmp_path / "slow"
    bundle.document["linux"]["cgroupsPath"] = f"/runsc-test-{os.getpid()}-{tmp_path.name}"
    client = Client(bundle)
    with slow_folder(folder) as server:
        _mounted(bundle, folder, command)
        client.create("c")
        client.ok("start", "c")
        assert server.hear() == operation
        yield client


@needs_fuse
@pytest.mark.parametrize("hung", HUNG, indirect=True, ids=["gofer", "sentry"])
def test_kill_ends_a_container_that_waits_for_a_dead_file_system(hung: Client) -> None:
    pidfd = os.pidfd_open(hung.state("c")["pid"])

    hung.ok("kill", "c", "KILL")

    wait_for_end(pidfd)
    assert hung.state("c")["status"] == "stopped"
    hung.ok("delete", "c")
    assert hung.remains() == []


@needs_fuse
@pytest.mark.parametrize("hung", HUNG, indirect=True, ids=["gofer", "sentry"])
def test_delete_ends_a_container_that_waits_for_a_dead_file_system(hung: Client) -> None:
    name = hung.bundle.document["linux"]["cgroupsPath"].strip("/")

    hung.ok("delete", "--force", "c")

    assert "ends when a file system of the host answers" in hung.log.read_text()
    assert hung.remains() == []
    assert cgroups(name) == []


@needs_fuse
@pytest.mark.parametrize(("operation", "command"), HUNG, ids=["gofer", "sentry"])
def test_run_ends_although_the_program_waits_for_a_dead_file_system(
    bundle: Bundle, tmp_path: Path, operation: str, command: str
) -> None:
    client = Client(bundle)
    with slow_folder(tmp_path / "slow") as server:
        path = _mounted(bundle, tmp_path / "slow", command).write()
        running = subprocess.Popen(
            client.command("run", f"--bundle={path}", "c"), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=REPOSITORY,
        )  # fmt: skip
        assert server.hear() == operation

        client.ok("kill", "c", "KILL")

        assert running.wait(timeout=60) in (1, 128 + signal.SIGKILL)
        assert client.remains() == []


@needs_fuse
@pytest.mark.parametrize("how", [("kill", "c", "KILL"), ("delete", "--force", "c")], ids=" ".join)
def test_exec_of_a_program_in_a_dead_file_system_ends_with_its_container(
    bundle: Bundle, tmp_path: Path, how: tuple[str, ...]
) -> None:
    client = Client(bundle)
    with slow_folder(tmp_path / "slow") as server:
        _mounted(bundle, tmp_path / "slow", "sleep 1000")
        client.create("c")
        client.ok("start", "c")
        waiting = client.begin("exec", "c", "/slow/nowhere")
        assert server.hear() == "lookup"

        client.ok(*how)

        waiting.communicate(timeout=60)
        assert waiting.returncode == 255
        client.ok("delete", "--force", "c")
        assert client.remains() == []


def test_terminal_that_nobody_reads_keeps_only_its_writer_waiting(bundle: Bundle) -> None:
    """Donated standard output of a terminal whose other side does not read."""
    master, slave = pty.openpty()
    script = (
        "(while :; do echo a line that fills the terminal; done) & exec >&2; read word; echo ok"
    )
    process = subprocess.Popen(
        bundle.args("sh", "-c", f"exec 3<&0; {script}").command(),
        stdin=subprocess.PIPE, stdout=slave, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    os.close(slave)
    try:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stderr.readline() == "ok\n"
    finally:
        os.close(master)
        process.communicate(timeout=60)
