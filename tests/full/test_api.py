"""The Python API at length: many commands, much data, many sandboxes, and its process killed.

RUNSC_TEST_MOMENTS_SEED: the first seed of the moments (1).
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from runsc import Limits, Sandbox, TimeLimitExceeded
from tests.e2e.bundle import REPOSITORY, TIMEOUT_S, kvm_is_usable
from tests.e2e.sandboxes import FLAGS, made, noted, wait_until_gone, wait_until_idle
from tests.full.aftermath import adopting, children, reap_all, title

pytestmark = [
    pytest.mark.full,
    pytest.mark.kvm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
FIRST = int(os.environ.get("RUNSC_TEST_MOMENTS_SEED", "1"))
MOMENTS = 50
LONGEST_S = 1.5
"""About what the program below takes to its end."""
COMMANDS = 1000
STREAM = 1 << 30
PIECE = 1 << 20
MEMORY = 64 << 20
"""What a stream may take of this process's."""
AT_ONCE = 50
PROGRAM = """
import os, sys
from runsc import Sandbox
root, state, detach, flag = sys.argv[1:]
os.write(1, b".")
sandbox = Sandbox.create(root=root, state=state, detach=detach == "yes", timeout=600, flags=[flag])
handle = sandbox.commands.run("cat > /copy", background=True)
for number in range(10):
    handle.send_stdin(bytes(100_000))
    sandbox.files.write(f"/d/{number}", b"x" * 100_000)
    assert sandbox.commands.run("sleep 1000 & echo $!").exit_code == 0
    sandbox.files.list("/etc", depth=3)
handle.close_stdin()
handle.wait()
with sandbox.files.watch_dir("/d") as watch:
    sandbox.files.remove("/d")
    list(watch)
if detach != "yes":
    sandbox.kill()
"""


@pytest.fixture
def sandbox(tmp_path: Path, busybox: Path) -> Iterator[Sandbox]:
    with made(tmp_path, busybox) as found:
        yield found


def largest() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_thousand_commands_run_in_one_sandbox(sandbox: Sandbox) -> None:
    sandbox.commands.run("true")
    wait_until_idle(sandbox)
    fds = len(os.listdir("/proc/self/fd"))
    for number in range(COMMANDS):
        result = sandbox.commands.run(f"echo {number}; exit {number % 200}")
        assert (result.stdout, result.exit_code) == (f"{number}\n", number % 200)
        if number % 100 == 0:
            with pytest.raises(TimeLimitExceeded):
                sandbox.commands.run("sleep 100 & sleep 100", timeout=0.05)

    wait_until_idle(sandbox)
    assert len(os.listdir("/proc/self/fd")) == fds


def test_a_stream_of_any_size_takes_no_memory(sandbox: Sandbox) -> None:
    sent, got = hashlib.sha256(), hashlib.sha256()
    handle = sandbox.commands.run(["cat"], background=True)
    stream = iter(handle.stdout)
    before = largest()

    def send() -> None:
        source = random.Random(1)
        for _ in range(STREAM // PIECE):
            piece = source.randbytes(PIECE)
            sent.update(piece)
            handle.send_stdin(piece)
        handle.close_stdin()

    begun = time.monotonic()
    sender = threading.Thread(target=send)
    sender.start()
    size = 0
    for data in stream:
        got.update(data)
        size += len(data)
    sender.join()
    rate = size / (time.monotonic() - begun)

    assert handle.wait().exit_code == 0
    assert (size, got.digest()) == (STREAM, sent.digest())
    assert largest() - before < MEMORY
    print(f"{rate / 1e6:.0f} MB/s through stdin and back")


def test_a_large_file_goes_in_and_out_by_pieces(sandbox: Sandbox) -> None:
    before = largest()
    sandbox.files.write("/large", (bytes([n % 251]) * PIECE for n in range(200)))
    assert sandbox.files.stat("/large").size == 200 * PIECE
    at = 0
    for piece in sandbox.files.stream("/large"):
        assert piece[0] == at // PIECE % 251
        at += len(piece)
    assert at == 200 * PIECE
    assert largest() - before < MEMORY


def test_fifty_sandboxes_at_once(tmp_path: Path, busybox: Path) -> None:
    found: list[str] = []
    ready = threading.Barrier(AT_ONCE)

    def one(number: int) -> None:
        with made(tmp_path, busybox, memory=64 << 20) as sandbox:
            ready.wait(TIMEOUT_S * 5)
            limits = Limits(cpu=60, memory=32 << 20)
            found.append(sandbox.commands.run(f"echo {number}", limits=limits).stdout.strip())

    threads = [threading.Thread(target=one, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(int, found)) == list(range(AT_ONCE))
    assert noted(tmp_path) == []


@pytest.mark.parametrize("detach", ["no", "yes"])
def test_its_process_killed_at_random_moments_leaves_nothing(
    tmp_path: Path, busybox: Path, detach: str
) -> None:
    """Or, where that was asked for, what can be found again and ended."""
    state = tmp_path / "state"
    shared = set(os.listdir("/dev/shm"))
    with adopting():
        for seed in range(FIRST, FIRST + MOMENTS):
            words = [sys.executable, "-c", PROGRAM, str(busybox), str(state), detach, FLAGS[0]]
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=REPOSITORY
            )
            assert process.stdout is not None
            with process.stdout:
                assert process.stdout.read(1) == b"."
                time.sleep(random.Random(seed).uniform(0, LONGEST_S))
                process.send_signal(signal.SIGKILL)
                process.wait()
            _end_what_goes_on(state)
            for name in noted(tmp_path):
                wait_until_gone(tmp_path, name)
            reap_all()
            left = {name for name in os.listdir("/dev/shm") if "runsc" in name} - shared
            assert not left, seed


def _end_what_goes_on(state: Path) -> None:
    """What was being made, and is detached, goes on to be; it runs commands, until it is ended."""
    deadline = time.monotonic() + TIMEOUT_S
    while any("runsc.api.keeper" in title(pid) for pid in children()):
        for pid in children():
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)
        assert time.monotonic() < deadline
    for info in Sandbox.list(state=state):
        if info.detached:
            sandbox = Sandbox.connect(info.sandbox_id, state=state)
            assert sandbox.commands.run("echo here").stdout == "here\n"
            assert sandbox.kill()
