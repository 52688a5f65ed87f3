"""Tracebacks as text: the same as CPython's where no source can be read."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest

from sentry.errors import EINVAL
from sentry.tracebacks import MOST_ALIKE, text_from, text_of

SOURCE = """
def deep(n):
    return deep(n - 1) if n else 1 / 0

def plain():
    deep(9)

def caused():
    try:
        plain()
    except ZeroDivisionError as error:
        raise KeyError("k") from error

def hidden():
    try:
        plain()
    except ZeroDivisionError:
        raise KeyError("k") from None

def during():
    try:
        caused()
    except KeyError:
        [].pop()

def noted():
    error = ValueError()
    error.add_note("a note")
    raise error

def ours():
    raise EINVAL("what")

class Mute(Exception):
    def __str__(self):
        raise ValueError

def mute():
    raise Mute
"""
NAMES = ("plain", "caused", "hidden", "during", "noted", "ours", "mute")


@pytest.fixture(scope="module")
def raising() -> dict[str, Callable[[], object]]:
    """Functions of no file."""
    names: dict[str, Callable[[], object]] = {"EINVAL": EINVAL, "__name__": "somewhere"}
    exec(compile(SOURCE, "/nowhere.py", "exec"), names)
    return names


def _of(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except Exception as error:
        assert error.__traceback__ is not None
        return error.with_traceback(error.__traceback__.tb_next)  # the first has its source here
    raise AssertionError


@pytest.mark.parametrize("name", NAMES)
def test_text_is_that_of_cpython(raising: dict[str, Callable[[], object]], name: str) -> None:
    error = _of(raising[name])

    assert text_of(error) == "".join(traceback.format_exception(error))


def test_frames_are_told_from_where_it_is_said(raising: dict[str, Callable[[], object]]) -> None:
    error = _of(raising["plain"])
    assert error.__traceback__ is not None

    assert text_from(error, None) == "ZeroDivisionError: division by zero\n"
    assert "in plain" not in text_from(error, error.__traceback__.tb_next)


def test_frames_alike_are_counted(raising: dict[str, Callable[[], object]]) -> None:
    text = text_of(_of(raising["plain"]))

    assert text.count("in deep") == MOST_ALIKE


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__cause__ = second, first

    assert text_of(first).count("ValueError") == 2
