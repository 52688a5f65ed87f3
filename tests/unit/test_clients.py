"""docs/clients.md from reports of pytest: `tests/full/clients.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.full import clients

TITLE = "`cp` of a file"
YES = ""
DIFFERS = '<skipped type="pytest.xfail" message="not found"/>'
SKIPPED = '<skipped type="pytest.skip" message="needs a thing"/>'
FAILED = '<failure message="AssertionError: a | b&#10;more"/>'


def _report(folder: Path, runtime: str, *outcomes: str, number: int = 1) -> None:
    """One of pytest's, of tests that belong to one row."""
    cases = "".join(
        f'<testcase classname="tests.full.test_podman_files" name="test_{index}" file="f" line="7">'
        f'<properties><property name="row" value="{TITLE}"/></properties>{outcome}</testcase>'
        for index, outcome in enumerate(outcomes)
    )
    path = folder / f"{runtime}-{number}.xml"
    path.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    os.utime(path, (number, number))


def _cells(folder: Path) -> list[str]:
    """Of that row: runc, this runtime, gVisor."""
    lines = clients.tables(folder).splitlines()
    [row] = [line for line in lines if line.startswith(f"| {TITLE} |")]
    return [cell.strip() for cell in row.split(" | ")[1:]]


@pytest.mark.parametrize(
    ("outcomes", "cell"),
    [
        ((YES, YES), "yes"),
        ((YES, DIFFERS), "not found"),
        ((DIFFERS, DIFFERS), "not found"),
        ((YES, SKIPPED), "yes"),
        ((SKIPPED,), "skipped: needs a thing"),
        ((YES, FAILED), r"no: AssertionError: a \| b"),
    ],
)
def test_cell_says_what_differs(tmp_path: Path, outcomes: tuple[str, ...], cell: str) -> None:
    _report(tmp_path, "ours", *outcomes)

    assert _cells(tmp_path)[1] == cell


def test_runtime_that_was_not_run_is_not_claimed(tmp_path: Path) -> None:
    _report(tmp_path, "runc", YES)

    assert _cells(tmp_path) == ["yes", "not run", "not run |"]


def test_newest_report_of_a_test_tells(tmp_path: Path) -> None:
    _report(tmp_path, "runc", FAILED, number=2)
    _report(tmp_path, "runc", YES, number=3)

    assert _cells(tmp_path)[0] == "yes"
