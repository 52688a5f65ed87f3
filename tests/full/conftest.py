"""What the tests of engines share: rows of docs/clients.md, and an engine for each module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.full.containerd import Containerd
from tests.full.docker import APART, BRIDGE, NO_BRIDGE, Docker
from tests.full.podman import Podman, apart
from tests.full.pods import Pods, networked
from tests.full.runtimes import RUNTIME


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A row's title goes into the report."""
    for item in items:
        if mark := item.get_closest_marker("row"):
            item.user_properties.append(("row", mark.args[0]))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """What is said of this runtime must be so. Its engine has started: that is no part of it."""
    mark = item.get_closest_marker("row")
    if mark and (words := mark.kwargs.get(RUNTIME.name)):
        item.add_marker(pytest.mark.xfail(reason=words, strict=RUNTIME.is_ours))


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Podman]:
    made = Podman(tmp_path_factory.mktemp("podman"), busybox)
    yield made
    made.end()


@pytest.fixture(scope="module")
def keeping_podman(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Podman]:
    """What is written to root file systems stays there."""
    made = Podman(tmp_path_factory.mktemp("keeping"), busybox, flags=RUNTIME.keeping)
    yield made
    made.end()


@pytest.fixture(scope="module")
def bridged_podman(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Podman]:
    with apart(tmp_path_factory.mktemp("bridged"), busybox) as made:
        yield made


@pytest.fixture
def running(podman: Podman) -> Iterator[str]:
    """A detached container that says "up"."""
    yield podman.detached("detached")
    podman.remove("detached")


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Docker]:
    made = Docker(tmp_path_factory.mktemp("docker"), busybox, (), NO_BRIDGE)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def bridged_docker(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Docker]:
    """One with the bridge that it has by default."""
    made = Docker(tmp_path_factory.mktemp("bridged"), busybox, APART, BRIDGE)
    yield made
    made.stop()


@pytest.fixture(scope="module", params=["installed", "next"])
def containerd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, busybox: Path
) -> Iterator[Containerd]:
    with networked(tmp_path_factory.mktemp("cri"), busybox, request.param) as made:
        yield made


@pytest.fixture
def pods(containerd: Containerd, tmp_path: Path) -> Iterator[Pods]:
    made = Pods(containerd, tmp_path / "logs")
    yield made
    made.end()
