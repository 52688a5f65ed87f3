"""What a person sees of something that takes long, and that nobody else sees any of it."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from runsc import progress

MIB = 1 << 20


class Screen(io.StringIO):
    """A terminal, or what looks like none."""

    def __init__(self, *, is_terminal: bool = True) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    @property
    def lines(self) -> list[str]:
        """What stands on each line when all is written."""
        text = re.sub(r"\x1b\[\?25[hl]", "", self.getvalue())
        return [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    made = Screen()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=made))
    monkeypatch.setenv("TERM", "xterm")
    return made


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time go by."""
    now = [100.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def test_what_a_process_has_read_is_told_until_it_is_over(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    (tmp_path / "data").write_bytes(bytes(1 << 16))
    look = progress.of_reads(os.getpid(), "reading", 1 << 40, lambda *told: heard.append(told))
    look(False)
    (tmp_path / "data").read_bytes()
    look(False)
    look(True)

    (what, before, total), (_, after, _), last = heard
    assert (what, total, last) == ("reading", 1 << 40, ("reading", 1 << 40, 1 << 40))
    assert after - before >= 1 << 16

    small = progress.of_reads(os.getpid(), "reading", 10, lambda *told: heard.append(told))
    small(False)
    assert heard.pop() == ("reading", 9, 10)
    progress.of_reads(0, "reading", 10, lambda *told: heard.append(told))(True)
    assert heard.pop() == last


def test_what_is_over_within_a_second_is_not_shown(
    screen: Screen, later: Callable[[float], None]
) -> None:
    with progress.shown() as tell:
        tell("unpacking", MIB, 2 * MIB)
        later(0.9)
        tell("unpacking", 2 * MIB, 2 * MIB)
    assert screen.getvalue() == ""


def test_what_takes_longer_has_a_line_with_all_that_is_done(
    screen: Screen, later: Callable[[float], None]
) -> None:
    with progress.shown() as tell:
        tell("unpacking", MIB, 4 * MIB)
        later(1)
        tell("unpacking", 3 * MIB, 4 * MIB)
        assert screen.lines[-1].startswith("unpacking  [")
        assert "75%" in screen.lines[-1] and screen.lines[-1].endswith("3 of 4 MiB")
        tell("unpacking", 4 * MIB, 4 * MIB)
        tell("unpacking", 4 * MIB, 4 * MIB)
        tell("compressing", MIB, 4 * MIB)
    first, second, last = screen.lines
    assert re.fullmatch(r"unpacking  \[#+\]  100%  4 of 4 MiB", first)
    assert re.fullmatch(r"compressing  \[#+-+\]   25%  1 of 4 MiB", second)
    assert last == ""
    assert all(len(line) < 80 for line in screen.lines)


def test_what_has_no_known_end_tells_how_much_there_is(
    screen: Screen, later: Callable[[float], None]
) -> None:
    with progress.shown() as tell:
        tell("writing memory", 0, 0)
        later(2)
        tell("writing memory", 5 * MIB, 0)
        assert screen.lines[-1].endswith("5 MiB") and "%" not in screen.lines[-1]
    assert screen.lines[-1] == ""


def test_cursor_is_there_again_after_an_error(
    screen: Screen, later: Callable[[float], None]
) -> None:
    with pytest.raises(KeyboardInterrupt), progress.shown() as tell:
        tell("unpacking", 0, MIB)
        later(2)
        tell("unpacking", 1, MIB)
        raise KeyboardInterrupt
    assert screen.getvalue().endswith("\x1b[?25h\n")


@pytest.mark.parametrize("why", ["pipe", "dumb", "unknown"])
def test_nothing_is_written_where_no_line_can_be_drawn(
    why: str, screen: Screen, later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "pipe":
        screen = Screen(is_terminal=False)
        monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=screen))
    elif why == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    else:
        monkeypatch.delenv("TERM")
    with progress.shown() as tell:
        assert tell is progress.silent
        later(2)
        tell("unpacking", 1, MIB)
    assert screen.getvalue() == ""
