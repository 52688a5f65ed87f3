"""sentry.log: what a reader of the log gets, and that nobody waits for one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sentry.log import KernelLog, LogSink
from sentry.log_rate import BURST, Rate


class Loop:
    """Calls back when told to."""

    def __init__(self) -> None:
        self.callback: Callable[[int], None] | None = None

    def watch(self, fd: int, events: int, callback: Callable[[int], None] | None = None) -> None:
        self.callback = callback if events else None


def test_file_is_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        LogSink(file.fileno()).write("one\n")
        assert path.read_text() == "one\n"


def test_disk_that_was_full_has_how_many_are_lost(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    full, file = os.open(path, os.O_RDONLY), os.open(path, os.O_WRONLY)
    sink = LogSink(full)
    sink.write("lost\n")
    sink.write("lost\n")
    os.dup2(file, full)
    sink.write("one\n")
    sink.write("two\n")
    assert path.read_text() == "[2 messages lost]\none\ntwo\n" and sink.dropped == 2
    os.close(full)
    os.close(file)


def test_line_of_which_a_full_disk_took_a_part_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "log", os.write
    with path.open("wb") as file:
        sink = LogSink(file.fileno())
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda fd, data: write(fd, data[:2]))
            sink.write("torn\n")
        sink.write("one\n")
        assert path.read_text() == "to\n[1 messages lost]\none\n"


def test_pipe_is_written_when_it_is_ready() -> None:
    reader, writer = os.pipe()
    loop = Loop()
    sink = LogSink(writer, loop)
    sink.write("one\n")
    sink.write("two\n")
    assert loop.callback is not None
    loop.callback(4)
    assert loop.callback is None
    assert os.read(reader, 100) == b"one\ntwo\n"
    os.close(reader)
    os.close(writer)


def test_full_buffer_drops_and_says_how_many() -> None:
    reader, writer = os.pipe()
    loop = Loop()
    sink = LogSink(writer, loop, limit=10)
    sink.write("12345678\n")
    sink.write("lost\n")
    sink.write("lost\n")
    assert loop.callback is not None
    loop.callback(4)
    sink.write("x\n")
    assert loop.callback is not None
    loop.callback(4)
    assert sink.dropped == 2
    assert os.read(reader, 100) == b"12345678\n[2 messages lost]\nx\n"
    os.close(reader)
    os.close(writer)


def test_reader_that_is_gone_does_no_harm() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    loop = Loop()
    sink = LogSink(writer, loop)
    sink.write("one\n")
    assert loop.callback is not None
    loop.callback(8)
    assert sink.dropped == 1
    assert loop.callback is None
    os.close(writer)


def test_flush_stops_when_nobody_reads() -> None:
    reader, writer = os.pipe()
    sink = LogSink(writer, Loop())
    for _ in range(100):
        sink.write("x" * 4095 + "\n")
    sink.flush()
    os.close(reader)
    os.close(writer)


class Clock:
    """A time that only a test moves."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


def test_kernel_log_takes_so_much_and_counts_the_rest(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "log"
    with path.open("wb") as file:
        log = KernelLog(file.fileno(), rate=Rate(clock))
        for _ in range(1000):
            log.write("x" * 1023 + "\n")
            log.bug("a call", ValueError("never meant"))
        size = path.stat().st_size
        assert BURST <= size < BURST + 4096
        written = sum(line.startswith(("x", "BUG")) for line in path.read_text().splitlines())
        assert log.bugs == 1000 and log.left_out == 2000 - written
        clock.ns += 10**9
        log.write("later\n")
        told = log.left_out
        for _ in range(10):
            log.write("x" * BURST)
        log.tell("the report\n")
        log.finish()
    text = path.read_text()[size:]
    assert text.startswith(f"[{told} messages left out: too many]\nlater\nxxx")
    assert text.endswith(
        "xthe report\n[9 messages left out: too many]\n"
        "BUG: 1000 exceptions of the Sentry itself\n"
    )
