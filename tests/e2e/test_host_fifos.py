"""FIFOs of the host that config.json mounts: data goes both ways, and opens wait as fifo(7) says.

Each program runs on the host, too, where it must print the same.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle

Outside = Callable[[Path, Path], None]
"""The other side: it gets the two FIFOs."""


def nobody(_to: Path, _out: Path) -> None:
    """No other side."""


class Runner:
    """Runs a program with the FIFOs /to (to it) and /from (from it)."""

    def __init__(self, folder: Path, rootfs: Path, platform: str) -> None:
        self._folder = folder
        self._rootfs = rootfs
        self._platform = platform

    def both(self, program: str, outside: Outside = nobody, flags: Sequence[str] = ()) -> str:
        """What it prints on the host and inside, if that is the same."""
        native = self._beside(outside, "native", lambda to, out: _native(program, to, out))
        inside = self.inside(program, outside, flags)
        assert native == inside
        return inside

    def inside(
        self, program: str, outside: Outside = nobody, flags: Sequence[str] = (),
        options: Sequence[str] = ("bind",),
    ) -> str:  # fmt: skip
        """What it prints inside."""
        bundle = Bundle(self._folder / "bundle", self._rootfs)

        def run(to: Path, out: Path) -> str:
            bundle.document["mounts"] += [
                {"destination": place, "source": str(source), "options": list(options)}
                for place, source in (("/to", to), ("/from", out))
            ]
            result = bundle.args("python3", "-c", program).run(self._platform, flags=flags)
            assert result.returncode == 0, result.stderr
            return result.stdout

        return self._beside(outside, "inside", run)

    def _beside(self, outside: Outside, name: str, run: Callable[[Path, Path], str]) -> str:
        to, out = self._folder / f"{name}-to", self._folder / f"{name}-from"
        for fifo in (to, out):
            os.mkfifo(fifo)
            fifo.chmod(0o666)
        thread = threading.Thread(target=outside, args=(to, out), daemon=True)
        thread.start()
        shown = run(to, out)
        thread.join(60)
        assert not thread.is_alive()
        return shown


def _native(program: str, to: Path, out: Path) -> str:
    """The same program, whose names are those of the host."""
    text = program.replace('"/to"', repr(str(to))).replace('"/from"', repr(str(out)))
    command = [sys.executable, "-c", text]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def runner(tmp_path: Path, debian: Path, platform: str) -> Iterator[Runner]:
    yield Runner(tmp_path, debian, platform)


BOTH_WAYS = """
import os
with open("/to", "rb") as file:
    data = file.read()
print(len(data), set(data))
with open("/from", "wb") as file:
    file.write(data[::-1])
"""


def test_data_goes_both_ways_and_ends(runner: Runner) -> None:
    came: list[bytes] = []

    def outside(to: Path, out: Path) -> None:
        to.write_bytes(b"ab" * 300_000)
        came.append(out.read_bytes())

    assert runner.both(BOTH_WAYS, outside) == "600000 {97, 98}\n"
    assert came == [b"ba" * 300_000] * 2


OPENED = """
import os
to = os.open("/to", os.O_RDONLY)
out = os.open("/from", os.O_WRONLY)
os.write(out, b"opened")
print(os.read(to, 100), os.read(to, 100))
"""


def test_reader_is_open_once_a_writer_is_though_nothing_was_written(runner: Runner) -> None:
    def outside(to: Path, out: Path) -> None:
        writer = os.open(to, os.O_WRONLY)
        reader = os.open(out, os.O_RDONLY)
        if os.read(reader, 100) == b"opened":
            os.write(writer, b"data")
        os.close(writer)
        os.close(reader)

    assert runner.both(OPENED, outside) == "b'data' b''\n"


LONG_WAIT = """
import os, signal, time
class Late(Exception): pass
def late(*_): raise Late
signal.signal(signal.SIGALRM, late)
before = len(os.listdir("/proc/self/fd"))
for name, flags in (("/to", os.O_RDONLY), ("/from", os.O_WRONLY)):
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        print(os.open(name, flags))
    except Late:
        print("late", len(os.listdir("/proc/self/fd")) - before)
"""


def test_open_without_another_side_waits_until_a_signal(runner: Runner) -> None:
    lines = runner.both(LONG_WAIT).splitlines()

    assert lines == ["late 0", "late 0"]


ALONE = """
import errno, os, select
def fails(call, *arguments):
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
def ready(fd):
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLOUT)
    return poll.poll(0)[0][1] if poll.poll(0) else 0
print(fails(os.open, "/from", os.O_WRONLY | os.O_NONBLOCK))
to = os.open("/to", os.O_RDONLY | os.O_NONBLOCK)
print(os.read(to, 10), ready(to))
writer = os.open("/to", os.O_WRONLY | os.O_NONBLOCK)
print(fails(os.read, to, 10), ready(to), ready(writer))
os.write(writer, b"abc")
print(ready(to), os.read(to, 2), os.read(to, 10))
os.close(writer)
print(ready(to), os.read(to, 10))
writer = os.open("/to", os.O_WRONLY)
os.close(to)
print(ready(writer), fails(os.write, writer, b"x"))
both = os.open("/from", os.O_RDWR)
print(os.write(both, b"xy"), os.read(both, 10), ready(both))
print(fails(os.lseek, both, 0, 0), fails(os.open, "/from", 3))
again = os.open(f"/proc/self/fd/{both}", os.O_WRONLY | os.O_NONBLOCK)
print(os.write(again, b"z"), os.read(both, 10))
full = 0
while not isinstance(done := fails(os.write, again, bytes(4096)), str):
    full += done
print(full, done)
"""


def test_flags_ends_and_events_are_those_of_linux(runner: Runner) -> None:
    shown = runner.both(ALONE).splitlines()

    assert shown[0] == "ENXIO"
    assert shown[-1] == "65536 EAGAIN"


def test_fifo_of_a_read_only_mount_can_be_written(runner: Runner) -> None:
    came: list[bytes] = []

    def outside(to: Path, out: Path) -> None:
        to.write_bytes(b"abc")
        came.append(out.read_bytes())

    assert runner.inside(BOTH_WAYS, outside, options=("bind", "ro")) == "3 {97, 98, 99}\n"
    assert came == [b"cba"]


SIZE = """
import fcntl, os
fd = os.open("/from", os.O_RDWR)
os.read(fd, 1)
print(fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ), fcntl.fcntl(1, fcntl.F_GETPIPE_SZ))
try:
    print(fcntl.fcntl(os.open("/bin", os.O_RDONLY), fcntl.F_GETPIPE_SZ))
except OSError as error:
    print(error.strerror)
"""


def test_capacity_is_the_hosts(runner: Runner) -> None:
    def outside(_to: Path, out: Path) -> None:
        holds.append(os.open(out, os.O_RDWR | os.O_NONBLOCK))
        fcntl.fcntl(holds[-1], fcntl.F_SETPIPE_SZ, 8192)
        os.write(holds[-1], b"x")

    holds: list[int] = []
    shown = runner.inside(SIZE, outside)
    assert shown == "8192 65536\nBad file descriptor\n"
    os.close(holds.pop())


SET_SIZE = """
import fcntl, os
for fd in (os.open("/from", os.O_RDWR), 1):
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 4096)
    except OSError as error:
        print(error.strerror)
"""


def test_capacity_is_not_changed_from_inside(runner: Runner) -> None:
    assert runner.inside(SET_SIZE) == "Operation not permitted\n" * 2


OWN = """
import os
fd = os.open("/from", os.O_RDWR)
print(os.write(fd, b"inside"), os.read(fd, 10))
"""


def test_fifo_is_the_sandbox_s_own_if_the_caller_says_so(runner: Runner, tmp_path: Path) -> None:
    def outside(_to: Path, out: Path) -> None:
        holds.append(os.open(out, os.O_RDWR | os.O_NONBLOCK))
        os.write(holds[0], b"outside")

    holds: list[int] = []
    assert runner.inside(OWN, outside, ["--host-fifo=none"]) == "6 b'inside'\n"
    assert os.read(holds[0], 20) == b"outside"
    os.close(holds[0])


def test_fifo_in_a_folder_is_not_opened(tmp_path: Path, debian: Path, platform: str) -> None:
    """It is not one that config.json itself mounts."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "from")
    fd = os.open(tmp_path / "folder" / "from", os.O_RDWR | os.O_NONBLOCK)
    os.write(fd, b"outside")
    bundle = Bundle(tmp_path / "bundle", debian)
    bundle.document["mounts"].append(
        {"destination": "/folder", "source": str(tmp_path / "folder"), "options": ["bind"]}
    )
    program = OWN.replace("/from", "/folder/from")

    assert bundle.args("python3", "-c", program).run(platform).stdout == "6 b'inside'\n"

    assert os.read(fd, 20) == b"outside"
    os.close(fd)


AGAIN = """
import os
for _ in range(17000):
    os.close(os.open("/to", os.O_RDONLY | os.O_NONBLOCK))
print("opened")
"""


@pytest.mark.full
@pytest.mark.timeout(600)
def test_closed_fifos_count_no_more_among_descriptors_of_the_host(runner: Runner) -> None:
    """There are 16,384 at a time."""
    assert runner.inside(AGAIN) == "opened\n"
