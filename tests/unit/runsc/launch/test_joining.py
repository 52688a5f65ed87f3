"""Whose sandbox a container belongs to, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runsc.containers.container import Store
from runsc.containers.processes import start_time
from runsc.containers.state import State
from runsc.errors import RuntimeFailure
from runsc.launch import joining
from runsc.oci import convert
from sentry.config import ProcessConfig, RootConfig

CRI_KIND, CRI_ID = joining.CRI
CRI_O_KIND, CRI_O_ID = joining.CRI_O


def container(**paths: str) -> convert.Container:
    """One whose config.json names these namespaces by path."""
    return convert.Container(
        ProcessConfig((b"x",)), RootConfig(), (), (), "", "", (), (), (), (),
        namespaces=tuple(paths.items()),
    )  # fmt: skip


class World:
    """A state root, and who is in which namespace: any path to one is "KIND of NAME"."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = Store(str(folder))
        self.inodes: dict[str, tuple[int, int]] = {}
        self._pid = os.getpid()
        monkeypatch.setattr(joining, "_inode", self._inode)
        monkeypatch.setattr(joining, "status", lambda state: state.phase)

    def add(self, name: str, sandbox: str = "", phase: str = "running") -> State:
        """A container with a stand-in in namespaces of its own."""
        self._pid += 1
        state = State(
            "1.2.0", name, "/b", pid=self._pid, pid_start=start_time(os.getpid()), sandbox=sandbox
        )
        self.store.create(state)
        state.phase = phase
        self.store.save(state)
        for kind in joining.KINDS.values():
            inode = self.inodes[f"{kind} of {name}"] = (4, len(self.inodes))
            self.inodes[f"/proc/{state.pid}/ns/{kind}"] = inode
        return state

    def _inode(self, path: str) -> tuple[int, int] | None:
        return self.inodes.get(path)

    def find(
        self, annotations: dict[str, str] | None = None, **paths: str
    ) -> tuple[str, dict[str, str]] | None:
        joint = joining.find(self.store, "new", annotations or {}, container(**paths))
        return None if joint is None else (joint.sandbox.id, dict(joint.shares))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path / "root", monkeypatch)


@pytest.mark.parametrize(
    "annotations",
    [
        {CRI_KIND: "container", CRI_ID: "a"},
        {CRI_O_KIND: "container", CRI_O_ID: "a"},
        {CRI_O_ID: "a"},
    ],
)
def test_annotation_names_a_sandbox_and_shares_nothing(
    world: World, annotations: dict[str, str]
) -> None:
    world.add("a")

    assert world.find(annotations) == ("a", {})


def test_annotation_that_makes_a_sandbox_or_names_a_pod_without_one(world: World) -> None:
    world.add("a")

    assert world.find({CRI_KIND: "sandbox", CRI_ID: "new"}) is None
    assert world.find({CRI_KIND: "sandbox", CRI_ID: "a"}) is None
    assert world.find({CRI_O_ID: "a-pod-of-podman"}) is None
    with pytest.raises(RuntimeFailure, match='there is no sandbox "b"'):
        world.find({CRI_KIND: "container", CRI_ID: "b"})


def test_paths_name_a_container_and_what_is_shared(world: World) -> None:
    world.add("a")
    world.add("b", sandbox="a")

    assert world.find(network="net of a") == ("a", {"network": "a"})
    assert world.find(pid="pid of b", ipc="ipc of a") == ("a", {"pid": "b", "ipc": "a"})
    assert world.find(network="net of nobody") is None
    assert world.find({CRI_KIND: "container", CRI_ID: "b"}, uts="uts of b") == ("a", {"uts": "b"})


def test_network_of_its_own_is_no_reason_to_refuse(world: World) -> None:
    world.add("a")

    assert world.find(pid="pid of a", network="net of nobody") == ("a", {"pid": "a"})


def test_what_joins_two_sandboxes_is_refused_by_name(world: World) -> None:
    world.add("a")
    world.add("b")

    with pytest.raises(RuntimeFailure, match='different sandboxes: "a", "b"'):
        world.find(network="net of a", ipc="ipc of b")
    with pytest.raises(RuntimeFailure, match='different sandboxes: "a", "b"'):
        world.find({CRI_KIND: "container", CRI_ID: "a"}, network="net of b")


def test_namespace_of_somebody_else_beside_one_of_the_sandbox_is_refused(world: World) -> None:
    world.add("a")
    world.inodes["ipc of nobody"] = 4, 1000

    with pytest.raises(RuntimeFailure, match="the ipc namespace ipc of nobody is none of"):
        world.find(network="net of a", ipc="ipc of nobody")


def test_namespace_of_the_host_joins_nothing_by_itself(world: World) -> None:
    state = world.add("a")
    host = world.inodes["net of a"] = 4, 2000
    world.inodes["/proc/self/ns/net"] = world.inodes[f"/proc/{state.pid}/ns/net"] = host

    assert world.find(network="net of a") is None
    named = {CRI_KIND: "container", CRI_ID: "a"}
    assert world.find(named, network="net of a") == ("a", {"network": "a"})


def test_sandbox_that_has_stopped_or_is_anothers_is_refused(world: World) -> None:
    world.add("a", phase="stopped")
    theirs = world.add("b")
    theirs.owner = os.geteuid() + 1
    world.store.save(theirs)

    with pytest.raises(RuntimeFailure, match='the sandbox "a" has stopped'):
        world.find({CRI_KIND: "container", CRI_ID: "a"})
    with pytest.raises(RuntimeFailure, match='"b" belongs to another user'):
        world.find(pid="pid of b")


def test_container_of_an_ended_sandbox_is_nobody(world: World) -> None:
    world.add("a", phase="stopped")
    world.add("b", sandbox="a", phase="stopped")

    assert world.find(pid="pid of b") is None
