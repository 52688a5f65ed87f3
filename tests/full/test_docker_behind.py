"""docker: what a container leaves, whose root is written behind, is what runc's leaves."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.full import leavings
from tests.full.docker import NO_BRIDGE, Docker, needs_docker
from tests.full.runtimes import RUNTIME, is_there

pytestmark = [
    pytest.mark.full, pytest.mark.root, needs_docker, is_there,
    pytest.mark.skipif(not RUNTIME.is_ours, reason="compares ours with runc"),
    pytest.mark.skipif(not shutil.which("runc"), reason="needs runc"),
]  # fmt: skip


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Path:
    return leavings.image(tmp_path_factory.mktemp("image"), busybox)


@pytest.fixture(scope="module", params=["runc", "tested"])
def docker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, rootfs: Path
) -> Iterator[Docker]:
    """Its builder has no flag for a runtime."""
    settings = {**NO_BRIDGE, "default-runtime": request.param}
    made = Docker(tmp_path_factory.mktemp(request.param), rootfs, (), settings)
    yield made
    made.stop()


def binary(docker: Docker) -> leavings.Binary:
    def call(*args: str) -> bytes:
        command = ["docker", f"--host=unix://{docker.socket}", *args]
        return subprocess.run(command, capture_output=True, check=True).stdout

    return call


@pytest.fixture(scope="module")
def native() -> dict[str, leavings.Leavings]:
    """What runc's leave, which come first."""
    return {}


def test_container_leaves_what_that_of_runc_leaves(
    docker: Docker, native: dict[str, leavings.Leavings]
) -> None:
    got = leavings.of_container(docker, binary(docker), "left")
    leavings.compare(native.setdefault("container", got), got)


def test_build_leaves_what_that_of_runc_leaves(
    docker: Docker, native: dict[str, leavings.Leavings], tmp_path: Path
) -> None:
    got = leavings.of_build(docker, binary(docker), tmp_path / "context")
    leavings.compare(native.setdefault("build", got), got)
