"""sentry.fs.proc.sysctl_memory: values below /proc/sys/vm that mean something."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sentry.errors import EINVAL
from sentry.fs.proc.sysctl import get_sysctl, set_sysctl
from sentry.platform.commitment import Commitment


@pytest.fixture
def kernel() -> Any:
    ram = SimpleNamespace(commitment=Commitment())
    return SimpleNamespace(platform=SimpleNamespace(ram=ram))


def test_nobody_gets_huge_pages(kernel: Any) -> None:
    set_sysctl(kernel, "vm.nr_hugepages", "8")
    assert get_sysctl(kernel, "vm/nr_hugepages") == "0"
    with pytest.raises(EINVAL):
        set_sysctl(kernel, "vm.nr_hugepages", "-1")


def test_what_may_be_promised(kernel: Any) -> None:
    found = kernel.platform.ram.commitment
    assert found.limit(1 << 20) == 128 and found.allows(256, 1 << 20)
    set_sysctl(kernel, "vm.overcommit_memory", "2")
    assert not found.allows(129, 1 << 20) and found.allows(128, 1 << 20)
    set_sysctl(kernel, "vm.overcommit_kbytes", "400")
    assert get_sysctl(kernel, "vm/overcommit_ratio") == "0" and found.limit(1 << 20) == 100
    set_sysctl(kernel, "vm.overcommit_memory", "1")
    assert found.allows(1 << 30, 1 << 20)
    with pytest.raises(EINVAL):
        set_sysctl(kernel, "vm.overcommit_memory", "3")
