"""What `runsc` is as a package, and what it costs to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import runsc

REPOSITORY = Path(__file__).resolve().parents[3]
PRINTS = "import sys; before = set(sys.modules); {}; print(*sorted(set(sys.modules) - before))"


def imported(statement: str) -> set[str]:
    """By a program that does nothing else."""
    command = [sys.executable, "-c", PRINTS.format(statement)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    return set(done.stdout.split()) - {"__future__"}


def test_the_package_alone_imports_nothing() -> None:
    assert imported("import runsc") == {"runsc"}
    assert "runsc.api" not in imported("from runsc import words")


def test_without_asyncio_none_is_imported() -> None:
    found = imported("from runsc import Sandbox")
    assert "runsc.api.blocking.sandbox" in found
    assert not {"asyncio", "click", "runsc.api.aio", "sentry.kernel"} & found


@pytest.mark.parametrize("name", " ".join(runsc.PUBLIC.values()).split())
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(runsc, name).__name__ == name
    assert name in dir(runsc)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Sandboxes'"):
        _ = runsc.Sandboxes  # type: ignore[attr-defined]
