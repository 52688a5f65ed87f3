"""What is printed of the words of a program inside."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from runsc.log import Log, is_coloured, printable, printable_json


def test_what_could_move_a_terminal_is_a_question_mark() -> None:
    assert printable("a\tb\x1b[2J\x9b\u202e\n") == "a\tb?[2J??\n"


@pytest.mark.parametrize("text", ["\x9b2J", "\x7f", "\u202eexe", "\U000e0041", "é \n\x1b", '\\u"'])
def test_json_says_the_same_without_what_could_move_a_terminal(text: str) -> None:
    shown = printable_json(msgspec.json.encode({"name": text}))
    assert shown.isprintable()
    assert json.loads(shown) == {"name": text}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "CLICOLOR": "0"}, False),
        ({"TERM": "xterm", "CLICOLOR": "1"}, True),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_colours_are_for_a_terminal_of_who_wants_them(
    environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERM", "NO_COLOR", "CLICOLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    master, slave = os.openpty()
    out, into = os.pipe()
    try:
        assert is_coloured(slave) is expected
        assert not is_coloured(into)
    finally:
        for fd in (master, slave, out, into):
            os.close(fd)


@pytest.mark.parametrize("form", ["text", "json"])
def test_message_that_cannot_be_written_stops_nothing(form: str) -> None:
    log = Log("/dev/full", form, debug=False)
    log.warning("the disk is full")
    os.close(log.fd)


@pytest.mark.parametrize("form", ["text", "json"])
def test_message_behind_lost_ones_says_how_many(form: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log("/dev/full", form, debug=False)
    log.warning("lost")
    log.warning("lost")
    with path.open("wb") as file:
        os.dup2(file.fileno(), log.fd)
    log.warning("one")
    log.warning("two")
    os.close(log.fd)
    lines = path.read_text().splitlines()
    said = zip(["2 messages lost", "one", "two"], lines, strict=True)
    assert all(what in line for what, line in said)
