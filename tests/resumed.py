"""A run of tests that was cut off goes on: what has passed is noted, and not run again.

`RUNSC_TEST_PASSED` names the file of notes, a line for each test. Its run takes that away, so the
pytest that a test starts notes nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NAME = "resumed"
VARIABLE = "RUNSC_TEST_PASSED"


def configure(config: pytest.Config) -> None:
    """Go on, where that is asked for."""
    if VARIABLE in getattr(config, "workerinput", os.environ):
        config.pluginmanager.register(Resumed(config), NAME)


class Resumed:
    """A plugin of pytest: in the process that is started, and in the workers of pytest-xdist."""

    def __init__(self, config: pytest.Config) -> None:
        given: dict[str, list[str]] = getattr(config, "workerinput", {})
        self._notes = None if given else Path(os.environ.pop(VARIABLE))
        """Where they are noted, by the one process that hears of all."""
        self._passed = given[VARIABLE] if given else self._noted()
        self._failed: set[str] = set()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: object) -> None:
        """A worker is to be started: it leaves out the same as all others."""
        node.workerinput[VARIABLE] = self._passed

    def parted(self, items: list[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
        """What is left to run, and what has passed."""
        passed = set(self._passed)
        left = [item for item in items if item.nodeid not in passed]
        return left, [item for item in items if item.nodeid in passed]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that has ended without a failure: it passed, or is skipped."""
        if report.failed:
            self._failed.add(report.nodeid)
        if self._notes and report.when == "teardown" and report.nodeid not in self._failed:
            with self._notes.open("a", encoding="utf-8") as file:
                file.write(f"{report.nodeid}\n")

    def _noted(self) -> list[str]:
        assert self._notes
        return self._notes.read_text(encoding="utf-8").splitlines() if self._notes.exists() else []
