"""What a machine with KVM leaves to the full tests; what several modules share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc import host
from sentry.abi.prctl import PR_SET_CHILD_SUBREAPER
from tests.e2e.bundle import kvm_is_usable
from tests.e2e.pod import Pod

HOST_SIDE = frozenset({
    "test_api", "test_bad_bundles", "test_both_ways", "test_cgroups", "test_crashes",
    "test_exit_codes", "test_full_disks", "test_hooks", "test_host_changes", "test_host_fifos",
    "test_host_sockets", "test_host_sockets_made", "test_mount_propagation", "test_mounts",
    "test_pods", "test_pods_ends", "test_pods_folders", "test_pods_limits", "test_pods_networks",
    "test_pods_streams", "test_policies", "test_port_forward", "test_real_processes",
    "test_report", "test_shared_files", "test_snapshot_attacks", "test_stand_in",
    "test_start_hooks", "test_streams", "test_top", "test_trace", "test_users", "test_view",
    "test_wait", "test_write_back",
})  # fmt: skip
"""About processes, files and sockets of the host: what runs the programs makes no difference."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The emulator's turn of those; without KVM it carries all of them."""
    if not kvm_is_usable():
        return
    for item in items:
        is_ours = item.path.parent == Path(__file__).parent and item.path.stem in HOST_SIDE
        given = getattr(item, "callspec", None)
        if is_ours and given is not None and given.params.get("platform") == "unicorn":
            item.add_marker(pytest.mark.full)
            item.add_marker(pytest.mark.alike)


@pytest.fixture
def reaper() -> Iterator[None]:
    """What is left of commands is this process's, as it would be conmon's."""
    host.prctl(PR_SET_CHILD_SUBREAPER, 1)
    yield
    host.prctl(PR_SET_CHILD_SUBREAPER, 0)


@pytest.fixture
def pod(tmp_path: Path, busybox: Path, platform: str) -> Iterator[Pod]:
    made = Pod(tmp_path, busybox, platform)
    yield made
    made.end()
