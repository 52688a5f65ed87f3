"""`suppress` does what that of `contextlib` does."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest

from sentry.suppress import suppress

BEFORE_THE_LOCK_IN = """
import sys
import typing  # which needs contextlib in older Pythons
before = "contextlib" in sys.modules
from runsc.launch import finder
finder.install()
from runsc.launch import boot_gofer, early, programs
programs.gofer()
from sentry.boot.sandbox import preload
preload("kvm")
print(before or "contextlib" not in sys.modules)
"""


@pytest.mark.parametrize("raised", [None, KeyError, IndexError, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("kinds", [(), (LookupError,), (KeyError, ValueError), (BaseException,)])
def test_suppress_lets_through_what_that_of_the_library_does(
    kinds: tuple[type[BaseException], ...], raised: type[BaseException] | None
) -> None:
    def outcome(manager: type) -> type[BaseException] | None:
        try:
            with manager(*kinds):
                if raised is not None:
                    raise raised
        except BaseException as error:
            return type(error)
        return None

    assert outcome(suppress) is outcome(contextlib.suppress)


@pytest.mark.kvm
def test_neither_sentry_nor_gofer_imports_that_of_the_library() -> None:
    command = [sys.executable, "-c", BEFORE_THE_LOCK_IN]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
