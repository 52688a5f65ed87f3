"""What the generators of ci/ make is what the tree has."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
OTHER_HEADERS = 77


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_generated_modules_are_what_would_be_generated() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "ci" / "generate_abi.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    if done.returncode == OTHER_HEADERS:
        pytest.skip(done.stdout.strip())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_cdefs_and_stubs_are_what_the_c_code_declares() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "ci" / "generate_border.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_index_of_system_calls_is_what_the_declarations_say() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "ci" / "generate_index.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_blocking_api_is_what_the_asynchronous_one_says() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "ci" / "generate_sync.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
