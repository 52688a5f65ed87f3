"""What is noted of a run, and what another one leaves out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.resumed import VARIABLE, Resumed


def run(notes: Path, monkeypatch: pytest.MonkeyPatch, **outcomes: tuple[str, str]) -> Resumed:
    """Tests and how their call and their clearing away end."""
    monkeypatch.setenv(VARIABLE, str(notes))
    resumed = Resumed(cast(pytest.Config, SimpleNamespace()))
    for name, (call, teardown) in outcomes.items():
        for when, outcome in (("call", call), ("teardown", teardown)):
            report = SimpleNamespace(nodeid=name, when=when, failed=outcome == "failed")
            resumed.pytest_runtest_logreport(cast(pytest.TestReport, report))
    return resumed


def test_run_that_was_cut_off_goes_on_with_what_has_not_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    run(
        notes, monkeypatch,
        good=("passed", "passed"), bad=("failed", "passed"), untidy=("passed", "failed"),
    )  # fmt: skip
    items = [SimpleNamespace(nodeid=name) for name in ("good", "bad", "untidy", "cut off")]

    left, out = run(notes, monkeypatch).parted(cast("list[pytest.Item]", items))

    assert [item.nodeid for item in left] == ["bad", "untidy", "cut off"]
    assert [item.nodeid for item in out] == ["good"]


def test_workers_leave_out_the_same_and_note_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    begun = run(notes, monkeypatch, good=("passed", "passed"))
    node = SimpleNamespace(workerinput={})
    run(notes, monkeypatch).pytest_configure_node(node)

    worker = Resumed(cast(pytest.Config, node))

    items = [SimpleNamespace(nodeid=name) for name in ("good", "other")]
    left, _ = worker.parted(cast("list[pytest.Item]", items))
    assert [item.nodeid for item in left] == ["other"]
    report = SimpleNamespace(nodeid="other", when="teardown", failed=False)
    worker.pytest_runtest_logreport(cast(pytest.TestReport, report))
    assert notes.read_text() == "good\n"
    assert begun
