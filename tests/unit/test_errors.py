"""Errors: a class for each number, made when somebody wants it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from sentry import errors
from sentry.errors import EAGAIN, EDEADLK, EIO, ENOENT, Errno, by_number, from_host, from_number


@pytest.mark.parametrize(("name", "number"), errors.numbers().items())
def test_each_error_is_a_class_of_its_own(name: str, number: int) -> None:
    made = getattr(errors, name)

    assert issubclass(made, Errno)
    assert (made.__name__, made.number) == (name, number)
    assert made is by_number(number) is type(from_number(number)) is getattr(errors, name)
    assert getattr(errno, name, number) == number
    assert made().text() == os.strerror(number).lower()
    assert made("so").why() == "so"


def test_all_errors_that_python_knows_are_there() -> None:
    ours = {name: getattr(errors, name).number for name in errors.numbers()}
    assert set(ours.values()) >= set(errno.errorcode) - {0}


def test_second_names_are_the_same_class() -> None:
    assert errors.EWOULDBLOCK is EAGAIN
    assert errors.EDEADLOCK is EDEADLK


@pytest.mark.parametrize("name", ["ENOTHING", "No", "Level", "2", "", "__path__"])
def test_what_is_no_error_is_no_attribute(name: str) -> None:
    with pytest.raises(AttributeError, match="no attribute"):
        getattr(errors, name)


@pytest.mark.parametrize("number", [-2, 0, 41, 58, 4096])
def test_an_unknown_number_is_eio(number: int) -> None:
    assert by_number(number) is None
    assert type(from_number(number, "x")) is EIO


def test_an_error_of_the_host_is_that_of_its_number() -> None:
    assert type(from_host(OSError(errno.ENOENT, "x"))) is ENOENT
    assert type(from_host(OSError("no number"))) is EIO


def test_a_class_that_nobody_has_asked_for_is_not_there() -> None:
    program = (
        "from sentry import errors; from sentry.errors import ENOENT;"
        "print([each.__name__ for each in errors.Errno.__subclasses__()])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"['ENOENT']\n"
