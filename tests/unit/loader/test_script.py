"""sentry.loader.script: the first line, as fs/binfmt_script.c reads it."""

from __future__ import annotations

import pytest

from sentry.errors import ENOEXEC
from sentry.loader.script import parse_shebang


@pytest.mark.parametrize(
    ("line", "interpreter", "argument"),
    [
        (b"#!/bin/sh\n", b"/bin/sh", None),
        (b"#!/bin/sh", b"/bin/sh", None),
        (b"#! \t/bin/sh \t\n", b"/bin/sh", None),
        (b"#!/usr/bin/env python3 -u  \nprint()", b"/usr/bin/env", b"python3 -u"),
        (b"#!/bin/sh\t-e\n", b"/bin/sh", b"-e"),
        (b"#!/bin/sh\r\n", b"/bin/sh\r", None),
        (b"#!a\0b c\n", b"a", None),
        (b"#!a b\0c\n", b"a", b"b"),
        (b"#!", b"", None),
    ],
)
def test_line_is_split_into_interpreter_and_one_argument(
    line: bytes, interpreter: bytes, argument: bytes | None
) -> None:
    assert parse_shebang(line) == (interpreter, argument)


@pytest.mark.parametrize("line", [b"#!\n", b"#!  \t\n", b"#!" + b" " * 300])
def test_line_without_interpreter_is_enoexec(line: bytes) -> None:
    with pytest.raises(ENOEXEC):
        parse_shebang(line)


def test_interpreter_that_may_go_on_beyond_the_head_is_enoexec() -> None:
    with pytest.raises(ENOEXEC):
        parse_shebang(b"#!/" + b"x" * 253)
    assert parse_shebang(b"#!/" + b"x" * 252 + b"\n").interpreter == b"/" + b"x" * 252


def test_argument_that_goes_on_is_cut() -> None:
    found = parse_shebang(b"#!/bin/x " + b"y" * 400 + b"\n")
    assert found == (b"/bin/x", b"y" * (255 - 9))
