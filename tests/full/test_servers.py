"""Servers of Debian: started, used under load and stopped by a script, with what Linux says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.bundle import kvm_is_usable
from tests.full.native import PATIENCE_S, Comparison

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.timeout(2 * PATIENCE_S),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
SCRIPTS = Path(__file__).parent / "servers"


@pytest.mark.parametrize(
    "load",
    [
        "sqlite.sh",
        "redis.sh 2000",
        "redis.sh 20000",
        "nginx.sh 200",
        "nginx.sh 2000",
        "postgresql.sh 2 2",
        "postgresql.sh 10 4",
    ],
)
def test_server_does_as_on_linux(tmp_path: Path, languages: Path, load: str) -> None:
    assert Comparison(tmp_path, languages, SCRIPTS).same(f"exec bash /mnt/{load}")


@pytest.mark.parametrize("script", ["sshd.sh", "cron.sh"])
def test_daemon_with_pam_does_as_on_linux(tmp_path: Path, services: Path, script: str) -> None:
    assert Comparison(tmp_path, services, SCRIPTS).same(f"exec bash /mnt/{script}")
