"""Files that a program serves to its sandboxes, mapped: programs, libraries, stores."""

from __future__ import annotations

import errno
import hashlib
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc import Sandbox
from runsc.fs import MemoryFileSystem
from tests.abi.test_abi import compile_program
from tests.e2e.bundle import kvm_is_usable
from tests.e2e.sandboxes import made

PLATFORMS = [
    pytest.param("kvm", marks=[
        pytest.mark.kvm, pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used"),
    ]),
    pytest.param("unicorn", marks=pytest.mark.full),
]  # fmt: skip


@pytest.mark.parametrize("platform", PLATFORMS)
def test_mappings_and_programs_are_as_on_linux(
    platform: str, tmp_path: Path, busybox: Path
) -> None:
    """What tests/abi shows of Linux's file systems; and what was stored comes to the server."""
    served = MemoryFileSystem()
    served.put("/memory_file", compile_program("memory_file", tmp_path).read_bytes(), 0o755)
    with made(tmp_path, busybox, platform, mounts={"/data": served}) as sandbox:
        result = sandbox.commands.run("./memory_file", cwd="/data")
        assert (result.exit_code, result.stderr) == (0, "")
        assert served.get("/ended")[4096:].startswith(b"stored last\0")


def test_hash_says_nothing_of_a_program_that_its_server_may_change_behind_it(
    tmp_path: Path, busybox: Path
) -> None:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    program = (busybox / "bin/busybox").read_bytes()
    policy = f"""
from runsc.policy import *

@on.execve(hash={hashlib.sha256(program).hexdigest()!r})
def known(event):
    return ALLOW

@on.execve
def others(event):
    return DENY("EACCES")
"""
    served = MemoryFileSystem()
    served.put("/busybox", program, 0o755)
    with made(tmp_path, busybox, mounts={"/data": served}, policy=policy) as sandbox:
        assert sandbox.commands.run("/bin/busybox echo run").stdout == "run\n"
        result = sandbox.commands.run("/data/busybox echo run")
        assert (result.exit_code, result.stdout) == (126, "")


@pytest.mark.full
def test_debians_programs_and_libraries_run_from_there(tmp_path: Path, debian: Path) -> None:
    """All of them are read by 9P: the loader, libraries, the program, and what it loads later."""
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    served = MemoryFileSystem()
    for folder in ("usr/bin", "usr/lib/python3.13", "usr/lib/x86_64-linux-gnu", "usr/lib64"):
        for path in (debian / folder).rglob("*"):
            where = f"/{path.relative_to(debian)}"
            if path.is_symlink() and not path.is_dir():
                path = path.resolve()  # noqa: PLW2901
            if path.is_file() and path.is_relative_to(debian) and path.stat().st_size < 16 << 20:
                served.put(where, path.read_bytes(), path.stat().st_mode & 0o777)
    code = "import ctypes, hashlib, json, sqlite3; print(hashlib.sha256(b'x').hexdigest()[:6])"
    loader = "/data/usr/lib64/ld-linux-x86-64.so.2"
    libraries = "/data/usr/lib/x86_64-linux-gnu"
    with made(tmp_path, debian, mounts={"/data": served}) as sandbox:
        command = [loader, "--library-path", libraries, "/data/usr/bin/python3.13", "-c", code]
        result = sandbox.commands.run(command, env={"PYTHONHOME": "/data/usr"})
        assert (result.stdout, result.stderr) == ("2d7116\n", "")
        result = sandbox.commands.run("cp /data/usr/bin/perl /data/p && /data/p -e 'print 6 * 7'")
        assert result.stdout == "42"


class Stuck(MemoryFileSystem):
    """One of its methods does not return before it may; it raises if it shall."""

    def __init__(self, method: str, files: dict[str, bytes], error: OSError | None = None) -> None:
        super().__init__(files)
        self.asked, self.may = threading.Event(), threading.Event()
        then = getattr(self, method)

        def stuck(*values: object) -> object:
            self.asked.set()
            self.may.wait()
            if error is not None:
                raise error
            return then(*values)

        setattr(self, method, stuck)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program."""
    program = tmp_path_factory.mktemp("program") / "mapped"
    source = Path(__file__).parent / "mapped.c"
    subprocess.run(["gcc", "-O1", "-static", "-o", program, source], check=True)
    return program


@pytest.fixture
def sandbox(tmp_path: Path, busybox: Path, mapped: Path) -> Iterator[Sandbox]:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    with made(tmp_path, busybox) as found:
        found.files.upload(mapped, "/tmp/mapped")
        yield found


PAGES = bytes(4096) + b"abcdefgh" * 512


SAID = {"end": "", "munmap": "0\n", "msync": "done\n"}


def test_what_was_stored_is_with_the_server_when_the_program_goes_on(sandbox: Sandbox) -> None:
    for when, said in SAID.items():
        served = MemoryFileSystem({"/f": PAGES})
        sandbox.mount("/data", served)
        result = sandbox.commands.run(["/tmp/mapped", "store", "/data/f", when])
        assert (result.exit_code, result.stdout) == (0, said)
        assert served.get("/f") == PAGES[:4096] + b"stored\0h" + PAGES[4104:]
        sandbox.unmount("/data")


def test_who_waits_until_a_server_has_what_was_stored_can_be_killed(sandbox: Sandbox) -> None:
    for when, said in SAID.items():
        served = Stuck("write", {"/f": PAGES}, OSError(errno.ENOSPC, "full"))
        sandbox.mount("/data", served, timeout=1000)
        command = ["/tmp/mapped", "store", "/data/f", when]
        with sandbox.commands.run(command, background=True) as stuck:
            assert served.asked.wait(60)
            stuck.kill()
            assert stuck.wait().exit_code == 128 + signal.SIGKILL
        served.may.set()
        assert sandbox.commands.run(command).stdout == said.replace("done", "ENOSPC")
        sandbox.unmount("/data")


def test_page_that_does_not_come_is_sigbus_or_waited_for_until_a_kill(sandbox: Sandbox) -> None:
    def read() -> tuple[int, str]:
        result = sandbox.commands.run(["/tmp/mapped", "read", "/data/f"])
        return result.exit_code, result.stdout

    class Short(MemoryFileSystem):
        end = 4096 + 8

        def read(self, path: str, offset: int, size: int) -> bytes:
            return super().read(path, offset, min(size, max(0, self.end - offset)))

    served = Short({"/f": PAGES})
    sandbox.mount("/data", served)
    assert read() == (0, "h\n")
    served.end = 4096
    assert read() == (128 + signal.SIGBUS, "")
    sandbox.unmount("/data")

    hangs = Stuck("read", {"/f": PAGES}, OSError(errno.EIO, "no answer"))
    sandbox.mount("/data", hangs, timeout=1000)
    with sandbox.commands.run(["/tmp/mapped", "read", "/data/f"], background=True) as stuck:
        assert hangs.asked.wait(60)
        stuck.kill()
        assert stuck.wait().exit_code == 128 + signal.SIGKILL
    hangs.may.set()
    assert read() == (128 + signal.SIGBUS, "")
    sandbox.unmount("/data")

    gone = Stuck("read", {"/f": PAGES})
    sandbox.mount("/data", gone, timeout=0.2)
    assert read() == (128 + signal.SIGBUS, "")
    gone.may.set()
    assert sandbox.commands.run("echo on").stdout == "on\n"
