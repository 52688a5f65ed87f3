"""Standard streams, opened as containerd names them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runsc.shim import streams
from runsc.shim.streams import ERR, ERRORS, IN, OUT, OUTPUT, TYPED, Opened, Streams, open_streams
from runsc.shim.ttrpc import Code, Refused


def opened(wanted: Streams, *, copied: bool = False) -> Opened:
    return open_streams(wanted, "id", "ns", copied=copied)


def close(made: Opened, *more: int) -> None:
    for fd in {*made.program, *made.kept.values(), *more}:
        os.close(fd)


def pipe(path: Path) -> int:
    os.mkfifo(path)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def test_what_is_not_named_is_nothing() -> None:
    made = opened(Streams())

    assert [os.fstat(fd).st_rdev for fd in made.program] == [os.makedev(1, 3)] * 3
    assert made.kept == {}
    close(made)


def test_named_pipes_go_to_the_program_and_are_kept(tmp_path: Path) -> None:
    reader = pipe(tmp_path / "out")
    os.mkfifo(tmp_path / "in")

    made = opened(Streams(str(tmp_path / "in"), str(tmp_path / "out")))

    os.write(made.program[1], b"x")
    assert os.read(reader, 9) == b"x"
    os.write(made.kept[IN], b"y")
    assert os.read(made.program[0], 9) == b"y"
    assert set(made.kept) == {IN, OUTPUT}
    with pytest.raises(OSError):  # nobody reads it yet
        os.open(tmp_path / "in", os.O_WRONLY | os.O_NONBLOCK)
    close(made, reader)


def test_of_exec_they_are_copied(tmp_path: Path) -> None:
    readers = [pipe(tmp_path / "out"), pipe(tmp_path / "err")]

    wanted = Streams("", str(tmp_path / "out"), str(tmp_path / "err"))
    made = opened(wanted, copied=True)

    os.write(made.program[1], b"x")
    assert os.read(made.kept[OUT], 9) == b"x"
    assert set(made.kept) == {OUT, OUTPUT, ERR, ERRORS}
    close(made, *readers)


def test_of_a_terminal_the_shim_has_them(tmp_path: Path) -> None:
    reader = pipe(tmp_path / "out")

    made = opened(Streams("", str(tmp_path / "out"), "/nonexistent", True), copied=True)

    assert set(made.kept) == {TYPED, OUTPUT}
    close(made, reader)


@pytest.mark.parametrize("kind", ["file://{}/deep/log", "{}/plain"])
def test_outputs_may_be_files(tmp_path: Path, kind: str) -> None:
    (tmp_path / "plain").write_text("before ")
    uri = kind.format(tmp_path)

    made = opened(Streams("", uri, uri))
    os.write(made.program[1], b"a")
    os.write(made.program[2], b"b")

    assert Path(uri.removeprefix("file://")).read_text().endswith("ab")
    close(made)


def test_names_of_files_and_loggers_are_as_urls_have_them(tmp_path: Path) -> None:
    logger = tmp_path / "my logger"
    logger.write_text(f'#!/bin/sh\necho "$1=$2" > "{tmp_path}/said"\nexec 5>&-\ncat <&3\n')
    logger.chmod(0o755)

    made = opened(Streams("", f"file://{tmp_path}/a%20%C3%A9%25/log"))
    close(made)
    made = opened(Streams("", f"binary://{tmp_path}/my%20logger?a%20b=c+d"))
    close(made)

    assert (tmp_path / "a é%" / "log").exists()
    assert (tmp_path / "said").read_text() == "a b=c d\n"


def test_a_scheme_that_there_is_not_is_refused() -> None:
    with pytest.raises(Refused, match="unknown STDIO scheme https") as caught:
        opened(Streams("", "https://x/y"))
    assert caught.value.code == Code.INVALID_ARGUMENT


def test_an_output_without_a_reader_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PATIENCE_S", 1)
    os.mkfifo(tmp_path / "out")

    with pytest.raises(Refused) as caught:
        opened(Streams("", str(tmp_path / "out")))
    assert caught.value.code == Code.DEADLINE_EXCEEDED


def test_a_logger_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        opened(Streams("", "binary:///nonexistent/logger"))
