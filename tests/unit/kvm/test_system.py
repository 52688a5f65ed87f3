"""System: the device and what it supports."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvm.binding import lib
from kvm.errors import Unavailable
from kvm.system import System

NEEDS_KVM = pytest.mark.skipif(
    not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="needs /dev/kvm"
)


def test_system_without_the_device_says_which_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no-such-device"):
        System(str(tmp_path / "no-such-device"))


def test_system_on_something_else_is_refused() -> None:
    with pytest.raises(Unavailable, match="interface"):
        System("/dev/null")


@pytest.mark.kvm
@NEEDS_KVM
def test_capability_of_user_memory_is_there() -> None:
    system = System()
    assert system.capability(lib.KVM_CAP_USER_MEMORY)
    system.close()
    system.close()


@pytest.mark.kvm
@NEEDS_KVM
def test_supported_cpuid_names_a_vendor() -> None:
    system = System()
    first = system.supported_cpuid()[0]
    system.close()
    assert first.function == 0
    assert first.ebx
