from __future__ import annotations

import pytest

from runsc.checks import machine
from runsc.checks.tried import Failed
from runsc.errors import RuntimeFailure


@pytest.mark.parametrize(
    ("release", "level"),
    [("6.1.0-9-amd64", "good"), ("5.12.0", "good"), ("5.4.1", "bad"), ("4.19", "bad"), ("", "bad")],
)
def test_kernel_is_judged_by_its_version(release: str, level: str) -> None:
    assert machine.kernel(release).level == level


def test_processor_is_of_one_kind() -> None:
    assert machine.processor("x86_64").level == "good"
    assert machine.processor("aarch64").level == "bad"


def _refuse() -> int:
    raise RuntimeFailure("/dev/kvm is not there; --platform=unicorn is slow")


@pytest.mark.parametrize(("needed", "level"), [(True, "bad"), (False, "note")])
def test_no_kvm_is_as_bad_as_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, needed: bool, level: str
) -> None:
    monkeypatch.setattr(machine, "open_kvm", _refuse)

    found = machine.kvm(needed=needed)

    assert (found.level, found.text) == (level, "/dev/kvm is not there")
    assert "modprobe" in found.advice
    assert "unicorn" in found.advice


def test_kvm_that_runs_nothing_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(body: object) -> str:
        raise Failed("no such ioctl")

    monkeypatch.setattr(machine, "open_kvm", lambda: -1)
    monkeypatch.setattr("os.close", lambda fd: None)
    monkeypatch.setattr(machine, "tried", fail)

    assert "no such ioctl" in machine.kvm(needed=True).text


def test_emulator_that_is_missing_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert machine.emulator(needed=True).level == "bad"
    assert "runsc[unicorn]" in machine.emulator(needed=False).advice
