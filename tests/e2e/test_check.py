"""check: what it says of this machine, where tests run sandboxes."""

from __future__ import annotations

import json

import pytest

from tests.e2e.bundle import RUNSC, execute, kvm_is_usable

AREAS = {"kvm", "namespaces", "mounts", "seccomp", "landlock", "cgroups", "memory", "open files"}


def test_check_finds_this_machine_fit(platform: str) -> None:
    done = execute([*RUNSC, f"--platform={platform}", "check", "--format=json"])

    found = {finding["area"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0
    assert found.keys() >= AREAS
    assert not [finding for finding in found.values() if finding["level"] == "bad"]
    assert all("advice" in finding for finding in found.values() if finding["level"] == "note")


def test_check_tells_the_kind_of_kvm() -> None:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")

    shown = execute([*RUNSC, "check"]).stdout

    assert "virtualization by the CPU" in shown
    assert "an exit costs" in shown


def test_check_of_a_machine_that_is_not_fit_ends_with_1() -> None:
    done = execute(["sh", "-c", 'ulimit -v 40000000 && exec "$@"', "sh", *RUNSC, "check"])

    assert done.returncode == 1
    assert "BAD  address space" in done.stdout
    assert "ulimit -Hv unlimited" in done.stdout
