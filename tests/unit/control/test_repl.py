"""Statements on the kernel's objects: what they say, and that their time is bounded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sentry.control import repl as module
from sentry.control.repl import Repl
from tests.world import World


@pytest.fixture
def repl() -> Iterator[Repl]:
    world = World()
    yield Repl(world.kernel)
    world.close()


@pytest.fixture
def short(repl: Repl) -> Repl:
    return Repl(repl.names["kernel"], longest_s=0.05)


def _said(repl: Repl, source: str) -> str:
    return repl.run(source).output


def test_a_value_is_shown_and_names_stay(repl: Repl) -> None:
    assert _said(repl, "a = 6 * 7") == ""
    assert _said(repl, "a") == "42\n"
    assert _said(repl, "_ + 1") == "43\n"
    assert _said(repl, "for n in range(2): print(n)\n") == "0\n1\n"
    assert "Kernel" in _said(repl, "kernel")
    assert _said(repl, "def f():\n    return a\n") == ""
    assert _said(repl, "f()") == "42\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [("1 / 0", "ZeroDivisionError"), ("a b", "SyntaxError"), ("exit()", "SystemExit"),
     ("raise BaseException('x')", "BaseException: x"), ("\0", "null bytes"),
     ("import sys; print('e', file=sys.stderr)", "e\n"),
     ("class E(Exception): __str__ = None\n", ""), ("'\\ud800'", "\\ud800")],
)  # fmt: skip
def test_what_goes_wrong_is_told(repl: Repl, source: str, said: str) -> None:
    assert said in _said(repl, source)
    assert module.__file__ not in _said(repl, source)


def test_an_error_that_cannot_be_shown_is_named(repl: Repl) -> None:
    _said(repl, "class E(Exception):\n    def __str__(self): raise ValueError\n")
    assert "E" in _said(repl, "raise E")


def test_a_loop_ends_and_the_interpreter_is_as_it_was(short: Repl) -> None:
    before: tuple[Any, ...] = (sys.gettrace(), sys.displayhook, sys.stdout, sys.stderr)
    done = short.run("while True: pass\n")
    assert "Overdue" in done.output
    assert done.held_ns > 50_000_000
    assert (sys.gettrace(), sys.displayhook, sys.stdout, sys.stderr) == before
    assert _said(short, "1") == "1\n"


def test_a_loop_that_takes_what_is_raised_ends_all_the_same(short: Repl) -> None:
    source = "while True:\n    try: pass\n    except Exception: pass\n"
    assert "Overdue" in _said(short, source)


def test_output_has_an_end(repl: Repl) -> None:
    done = repl.run("for n in range(9): print('x' * 100_000)\n")
    assert done.is_cut
    assert len(done.output) == module.MAX_OUTPUT
    assert len(_said(repl, "'x' * 10**6")) < module.SHOWN + 10
