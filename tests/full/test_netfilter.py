"""nft and iptables of Debian, and traffic through their rules: scripts say the same as on Linux."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import rootfs_of
from tests.e2e.bundle import kvm_is_usable
from tests.e2e.installed import Installed

SCRIPTS = Path(__file__).parent / "netfilter"
CAPABILITIES = ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_RAW"]

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
    pytest.mark.timeout(300),
]


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.sh")))
def test_rules_are_the_same_as_on_linux(script: str, tmp_path: Path) -> None:
    Installed(tmp_path, rootfs_of("netfilter"), SCRIPTS, CAPABILITIES).compare(script)
