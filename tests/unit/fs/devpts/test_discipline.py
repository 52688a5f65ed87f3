"""The line discipline, byte by byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from sentry.abi.ioctl import ECHO, ICANON, ICRNL, ISIG, IUTF8, IXON, OPOST
from sentry.abi.signal import SIGINT, SIGTSTP
from sentry.errors import EAGAIN
from sentry.fs.devpts import discipline
from sentry.fs.devpts.discipline import BUFFER, LineDiscipline


def raw(line: LineDiscipline) -> None:
    t = line.termios
    line.set(
        t._replace(
            c_iflag=t.c_iflag & ~(ICRNL | IXON),
            c_oflag=t.c_oflag & ~OPOST,
            c_lflag=t.c_lflag & ~(ICANON | ECHO | ISIG),
        )
    )


def test_a_line_can_be_read_when_it_is_complete() -> None:
    line = LineDiscipline()
    assert line.input(b"ab") == (b"ab", [])
    with pytest.raises(EAGAIN):
        line.read(10)
    assert line.input(b"\r") == (b"\r\n", [])
    assert line.read(2) == b"ab"
    assert line.read(10) == b"\n"


def test_editing() -> None:
    line = LineDiscipline()
    assert line.input(b"ax\x7f")[0] == b"ax\b \b"
    line.input(b"b cd\x17\n")
    assert line.read(10) == b"ab \n"
    line.input(b"one.two_3 \x17\n")
    assert line.read(10) == b"one.\n"
    assert line.input(b"gone\x15")[0] == b"gone" + b"\b \b" * 4


@pytest.mark.parametrize(
    ("flag", "typed", "left", "wiped"),
    [
        (IUTF8, b"a\xc3\xa9\x7f", b"a", 1),
        (0, b"a\xc3\xa9\x7f", b"a\xc3", 1),
        (IUTF8, b"\x80\x7f", b"\x80", 0),
        (0, b"\x80\x7f", b"", 1),
    ],
)
def test_a_character_is_several_bytes_with_iutf8(
    flag: int, typed: bytes, left: bytes, wiped: int
) -> None:
    line = LineDiscipline()
    line.set(line.termios._replace(c_iflag=line.termios.c_iflag | flag))
    assert line.input(typed)[0] == typed[:-1] + b"\b \b" * wiped
    line.input(b"\n")
    assert line.read(10) == left + b"\n"


def test_a_tab_is_wiped_to_where_it_began() -> None:
    line = LineDiscipline()
    line.input(b"abc\t")
    assert line.input(b"\x7f")[0] == b"\b" * 5
    line.input(b"\t\t")
    assert line.input(b"\x7f\x7f")[0] == b"\b" * 13


def test_end_of_file_ends_a_read_without_a_byte() -> None:
    line = LineDiscipline()
    line.input(b"x\x04")
    assert line.read(10) == b"x"
    line.input(b"\x04")
    assert line.readable
    assert line.read(10) == b""
    assert not line.readable


def test_keys_that_are_signals_drop_what_was_typed() -> None:
    line = LineDiscipline()
    line.input(b"half\nline")
    assert line.input(b"\x03") == (b"^C", [SIGINT])
    assert not line.readable
    assert line.input(b"\x1a")[1] == [SIGTSTP]


def test_flow_control_is_eaten() -> None:
    line = LineDiscipline()
    assert line.input(b"\x13") == (b"", [])
    assert line.stopped
    line.input(b"\x11")
    assert not line.stopped


def test_raw_mode_passes_everything() -> None:
    line = LineDiscipline()
    raw(line)
    assert line.input(b"\x03\r\x13") == (b"", [])
    assert line.read(2) == b"\x03\r"
    assert line.output(b"a\n") == b"a\n"


def test_an_unfinished_line_is_readable_after_a_switch_to_raw() -> None:
    line = LineDiscipline()
    line.input(b"half")
    raw(line)
    assert line.read(10) == b"half"


def test_input_is_bounded() -> None:
    line = LineDiscipline()
    line.input(b"x" * 10_000)
    line.input(b"\n")
    assert len(line.read(20_000)) <= BUFFER
    raw(line)
    line.input(b"y" * 10_000)
    assert line.available == BUFFER
    assert line.room == 0


@pytest.mark.parametrize("typed", [b"\n", b"\x04", b"a\n", b"a\x04"])
def test_lines_that_nobody_reads_stay_bounded(typed: bytes) -> None:
    line = LineDiscipline()
    line.input(typed * 3 * BUFFER)
    reads = 0
    while line.readable:
        assert len(line.read(BUFFER)) <= BUFFER
        reads += 1
    assert reads <= BUFFER


def test_newlines_on_the_screen() -> None:
    line = LineDiscipline()
    assert line.output(b"a\nb") == b"a\r\nb"
    line.set(line.termios._replace(c_oflag=OPOST))
    assert line.output(b"a\nb") == b"a\nb"


@pytest.mark.parametrize(
    ("line", "keys", "flags"),
    [
        (b"a" * 4000, b"\x12", 0),
        (b"a" * 4095, b"\x12", 0),
        (b"a" * 4000, b"\t\x7f", 0),
        (b"\x80" * 4000, b"\x7f", IUTF8),
    ],
)
def test_keys_that_look_at_the_line_do_not_each_look_at_all_of_it(
    line: bytes, keys: bytes, flags: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: Counter[str] = Counter()

    def counted(name: str) -> Callable[[int], bool]:
        look: Callable[[int], bool] = getattr(discipline, name)

        def count(byte: int) -> bool:
            looks[name] += 1
            return look(byte)

        return count

    for name in ("_is_control", "_continues"):
        monkeypatch.setattr(discipline, name, counted(name))
    line_discipline = LineDiscipline()
    settings = line_discipline.termios
    line_discipline.set(settings._replace(c_iflag=settings.c_iflag | flags))
    line_discipline.input(line)
    looks.clear()
    line_discipline.input(keys * (8000 // len(keys)))
    assert looks.total() < 6 * 8000


def test_line_that_is_shown_again_shows_control_characters_as_at_first() -> None:
    line = LineDiscipline()
    assert line.input(b"ab\x01\t")[0] == b"ab^A\t"
    assert line.input(b"\x12")[0] == b"^R\r\nab^A\t"
