"""Machines of three kinds, in a directory of the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.runsc.cgroups import machines
from tests.unit.runsc.cgroups.machines import Machine


@pytest.fixture
def v1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Only version 1."""
    return _emulated(machines.v1(tmp_path / "cg"), monkeypatch)


@pytest.fixture
def v2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Only version 2."""
    return _emulated(machines.v2(tmp_path / "cg"), monkeypatch)


@pytest.fixture
def hybrid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Version 1, and an empty version 2."""
    return _emulated(machines.hybrid(tmp_path / "cg"), monkeypatch)


def _emulated(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine.emulate(monkeypatch)
    return machine
