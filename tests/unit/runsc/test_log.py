"""What is printed of the words of a program inside."""

from __future__ import annotations

import json

import msgspec
import pytest

from runsc.log import printable, printable_json


def test_what_could_move_a_terminal_is_a_question_mark() -> None:
    assert printable("a\tb\x1b[2J\x9b\u202e\n") == "a\tb?[2J??\n"


@pytest.mark.parametrize("text", ["\x9b2J", "\x7f", "\u202eexe", "\U000e0041", "é \n\x1b", '\\u"'])
def test_json_says_the_same_without_what_could_move_a_terminal(text: str) -> None:
    shown = printable_json(msgspec.json.encode({"name": text}))
    assert shown.isprintable()
    assert json.loads(shown) == {"name": text}
