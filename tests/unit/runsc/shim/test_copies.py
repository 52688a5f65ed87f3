"""What the shim copies, and what it keeps open meanwhile."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from runsc.shim.copies import Copies
from runsc.shim.loop import READ, Loop
from runsc.shim.streams import CONSOLE, IN, OUT, OUTPUT, TYPED, keep


@pytest.fixture
def loop() -> Loop:
    return Loop(lambda pid, status: None)


def turn(loop: Loop) -> None:
    for _ in range(4):
        loop.after(0, loop.stop)
        loop._stopped = False
        loop.run()


def heard(loop: Loop, fd: int) -> bytes:
    """What comes next: the kernel carries terminals' bytes in its own time."""
    loop.watch(fd, READ, lambda _: loop.stop())
    loop._stopped = False
    loop.run()
    loop.forget(fd)
    return os.read(fd, 99)


def fifo(path: Path) -> tuple[int, int]:
    """Its reader, and what the shim keeps."""
    os.mkfifo(path)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK), keep(str(path))


def test_output_goes_on_to_its_end_and_then_ends(loop: Loop, tmp_path: Path) -> None:
    reader, kept = fifo(tmp_path / "out")
    source, program = os.pipe()
    copies = Copies(loop, {OUT: source, OUTPUT: kept})
    os.write(program, b"text")
    turn(loop)
    assert os.read(reader, 9) == b"text"

    os.close(program)
    turn(loop)

    assert os.read(reader, 9) == b""
    assert copies.ended.settled
    os.close(reader)


def test_a_reader_that_is_slow_gets_all(loop: Loop, tmp_path: Path) -> None:
    reader, kept = fifo(tmp_path / "out")
    source, program = os.pipe()
    os.set_blocking(program, False)
    Copies(loop, {OUT: source, OUTPUT: kept})
    sent = got = 0
    size = 1 << 20
    while got < size:
        with suppress(BlockingIOError):
            sent += os.write(program, bytes(size - sent))
        turn(loop)
        with suppress(BlockingIOError):
            got += len(os.read(reader, 1 << 14))

    os.close(program)
    turn(loop)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_what_others_hold_open_ends_when_nobody_waits(loop: Loop, tmp_path: Path) -> None:
    reader, kept = fifo(tmp_path / "out")
    source, program = os.pipe()
    copies = Copies(loop, {OUT: source, OUTPUT: kept})
    os.write(program, b"last")

    copies.process_ended()
    copies.finish()

    assert os.read(reader, 9) == b"last"
    assert os.read(reader, 9) == b""
    assert copies.ended.settled
    os.close(program)
    os.close(reader)


def test_who_writes_on_and_on_keeps_nobody_waiting(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, program = os.pipe()
    copies = Copies(loop, {OUT: source, OUTPUT: os.open(os.devnull, os.O_WRONLY)})
    some = iter([b"text"] * 1000)
    monkeypatch.setattr(os, "read", lambda fd, size: next(some))

    copies.finish()

    assert copies.ended.settled
    os.close(program)


def test_named_pipes_that_the_program_has_are_kept_to_its_end(loop: Loop, tmp_path: Path) -> None:
    reader, kept = fifo(tmp_path / "out")
    copies = Copies(loop, {OUTPUT: kept})
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)

    copies.process_ended()

    assert os.read(reader, 1) == b""
    os.close(reader)


def test_input_ends_when_it_is_closed(loop: Loop, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in")
    program, sink = os.pipe()
    copies = Copies(loop, {IN: sink})
    copies.open_input(str(tmp_path / "in"))
    writer = os.open(tmp_path / "in", os.O_WRONLY)
    os.write(writer, b"typed")
    os.close(writer)
    assert heard(loop, program) == b"typed"

    copies.close_input()
    copies.close_input()

    assert heard(loop, program) == b""
    os.close(program)


def test_a_terminal_goes_both_ways_and_has_a_size(loop: Loop, tmp_path: Path) -> None:
    reader, kept = fifo(tmp_path / "out")
    os.mkfifo(tmp_path / "in")
    master, slave = os.openpty()
    copies = Copies(loop, {CONSOLE: master, OUTPUT: kept})
    copies.open_input(str(tmp_path / "in"))

    writer = os.open(tmp_path / "in", os.O_WRONLY)
    os.write(writer, b"ls\n")
    os.write(slave, b"shown\n")
    copies.resize(100, 40)

    assert heard(loop, slave) == b"ls\n"
    shown = b""
    while b"shown" not in shown:
        shown += heard(loop, reader)
    size = fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8))
    assert struct.unpack("4H", size)[:2] == (40, 100)
    copies.process_ended()
    os.close(slave)
    while heard(loop, reader):  # what the terminal has echoed
        continue
    assert copies.ended.settled
    os.close(writer)
    os.close(reader)


def test_a_terminal_at_which_nobody_types(loop: Loop, tmp_path: Path) -> None:
    reader, kept = fifo(tmp_path / "out")
    master, slave = os.openpty()
    null = os.open(os.devnull, os.O_RDWR)
    copies = Copies(loop, {CONSOLE: master, TYPED: null, OUTPUT: kept})
    copies.open_input("")

    os.close(slave)
    assert heard(loop, reader) == b""

    copies.process_ended()
    assert copies.ended.settled
    os.close(reader)
