"""Containers go on while dockerd is away, if it is told `live-restore`."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.full.docker import NO_BRIDGE, Docker, needs_docker
from tests.full.engine import TIMEOUT_S
from tests.full.runtimes import is_there

pytestmark = [pytest.mark.full, pytest.mark.root, needs_docker, is_there]


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Docker]:
    settings = {**NO_BRIDGE, "live-restore": True}
    made = Docker(tmp_path_factory.mktemp("restored"), busybox, (), settings)
    yield made
    made.stop()
    subprocess.run(["umount", made.folder / "data"], check=False)  # of a dockerd that was killed


@pytest.mark.row("`live-restore`: dockerd restarted, or killed (-9)")
@pytest.mark.parametrize("how", ["TERM", "KILL"])
def test_containers_go_on_while_dockerd_is_restarted(restored: Docker, how: str) -> None:
    stays = restored.detached("stays")
    pid = restored.ok("inspect", "-f", "{{.State.Pid}}", stays)
    try:
        restored.daemon.send_signal(signal.Signals[f"SIG{how}"])
        restored.daemon.wait(TIMEOUT_S)
        assert Path(f"/proc/{pid}").exists()
        restored.start()

        assert restored.ok("inspect", "-f", "{{.State.Pid}}", stays) == pid
        assert restored.ok("exec", stays, "echo", "there") == "there"
        restored.ok("stop", stays)
        assert restored.status(stays).startswith("Exited (9)")
    finally:
        restored.ok("rm", "--force", stays)
