"""What is read beside arguments: bounded, and never a failure."""

from __future__ import annotations

import socket
import struct

import pytest

from sentry.abi.limits import PATH_MAX
from sentry.watch import reading
from sentry.watch.encoder import encoder
from sentry.watch.messages import ContextData, ExecveInfo
from tests.unit.watch.conftest import Watched


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (struct.pack("<H", socket.AF_INET) + b"\0\x50" + bytes([192, 0, 2, 1]) + bytes(8),
         "192.0.2.1:80"),
        (struct.pack("<H", socket.AF_INET6) + b"\x01\xbb" + bytes(4) + bytes(15) + b"\1" + bytes(4),
         "[::1]:443"),
        (struct.pack("<H", socket.AF_UNIX) + b"/run/s\0rest", "unix:/run/s"),
        (struct.pack("<H", socket.AF_UNIX) + b"\0name", "unix:@name"),
        (struct.pack("<H", socket.AF_UNIX), ""),
        (struct.pack("<H", socket.AF_INET) + b"\0", ""),
        (b"\x10", ""),
        (b"", ""),
    ],
)  # fmt: skip
def test_an_address_in_words(data: bytes, text: str) -> None:
    assert reading.peer(data) == text


def test_words_end_where_there_is_no_more_room() -> None:
    assert len(reading.words([b"x"] * 1000)) == reading.MAX_WORDS
    assert len(reading.words([b"x" * 4096] * 1000)) == reading.MAX_WORDS_SIZE // 4096
    assert reading.words([b"a\xff"]) == ["a\\xff"]


def test_what_is_not_there_is_empty(world: Watched) -> None:
    task = world.program().task
    assert reading.vector(task, 8) == []
    assert reading.total(task, 8, 3) == 0
    assert reading.total(task, 8, 1 << 40) == 0
    assert reading.address(task, 8, 16) == b""
    assert reading.number(task, 8, 4) == 0
    assert reading.rlimit(task, 8) is None
    assert reading.itimerspec(task, 8) is None
    assert reading.fd_path(task, 999) == reading.NO_FILE
    assert reading.fd_path(task, -100) == ""


def test_a_vector_without_an_end_is_cut(world: Watched) -> None:
    program = world.program()
    word = program.buffer(8)
    program.write(word, b"abc\0")
    at = program.buffer(8 * 500)
    program.write(at, struct.pack("<500Q", *[word] * 500))
    assert reading.vector(program.task, at) == ["abc"] * reading.MAX_WORDS


def test_a_length_beyond_any_address_is_not_read(world: Watched) -> None:
    program = world.program()
    at = program.buffer(64)
    assert reading.address(program.task, at, 1 << 31) == b""
    assert reading.address(program.task, at, 16) == bytes(16)


def test_a_file_without_a_name_has_its_label(world: Watched) -> None:
    program = world.program()
    pair = program.buffer(8)
    program.ok("pipe2", pair, 0)
    fd = int.from_bytes(program.read(pair, 4), "little")
    assert reading.fd_path(program.task, fd).startswith("pipe:[")


def test_what_lies_deep_has_no_path(world: Watched) -> None:
    program = world.program()
    for _ in range(PATH_MAX // 200):
        program.ok("mkdir", b"d" * 199, 0o755)
        program.ok("chdir", b"d" * 199)
    assert reading.cwd(program.task) == reading.place(program.task, program.task.fs.cwd)
    assert reading.cwd(program.task).endswith("/" + "d" * 199)
    program.ok("mkdir", b"d" * 199, 0o755)
    program.ok("chdir", b"d" * 199)
    assert reading.cwd(program.task) == reading.TOO_LONG


def test_a_program_cannot_hide_behind_long_arguments() -> None:
    assert reading.words([b"a" * 40_000, b"-c"]) == ["a" * reading.MAX_TEXT, "-c"]
    for word in (b"\xff" * 4096, "é€".encode() * 800):
        told = "".join(reading.words([word] * 20))
        assert 0 < len(told.encode()) <= reading.MAX_WORDS_SIZE


def test_the_largest_record_fits_into_a_message() -> None:
    worst = reading.text(b"\xff" * 5000)
    full = reading.words([b"\xff" * 128] * 256)
    who = ContextData(cwd=worst, process_name=worst, container_id="x" * 1024)
    record = ExecveInfo(who, worst, full, full, binary_sha256=bytes(32))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 212_992 // 2)  # the host doubles it
        assert ours.send(encoder(ExecveInfo)(record), socket.MSG_DONTWAIT)


def test_lengths_that_come_to_more_than_64_bits_are_a_number_of_a_record(world: Watched) -> None:
    program = world.program()
    at = program.buffer(32)
    program.write(at, struct.pack("<QQQQ", 0, (1 << 64) - 1, 0, 3))
    assert reading.total(program.task, at, 2) == 2
