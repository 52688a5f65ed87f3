"""Where a shim listens, and for whom."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
from pathlib import Path

import pytest

from runsc.shim import starting


def test_the_socket_is_named_as_containerd_names_it() -> None:
    # filepath.Join of address, namespace and id
    name = hashlib.sha256(b"/run/containerd/containerd.sock/k8s.io/abc").hexdigest()

    path = starting.socket_path("/run/containerd/containerd.sock", "k8s.io", "abc")

    assert path == f"/run/containerd/s/{name}"


@pytest.mark.parametrize(
    ("document", "group"),
    [
        ({}, ""),
        ({"annotations": None}, ""),
        ({"annotations": {"other": "x"}}, ""),
        ({"annotations": {"io.kubernetes.cri.sandbox-id": "pod"}}, "pod"),
        ({"annotations": {"io.containerd.runc.v2.group": "g"}}, "g"),
        (None, ""),
    ],
)
def test_containers_of_a_group_have_its_shim(
    tmp_path: Path, document: object, group: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(document))

    assert starting.group_of(str(tmp_path)) == group


def test_without_a_config_it_has_its_own(tmp_path: Path) -> None:
    assert starting.group_of(str(tmp_path)) == ""


def test_version_3_is_for_a_containerd_that_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = str(tmp_path / "io.containerd.runtime.v2.task" / "ns" / "id")
    monkeypatch.setenv("MAX_SHIM_VERSION", "2")
    assert starting.protocol(bundle) == 2

    (tmp_path / starting.SANDBOXES).mkdir()
    assert starting.protocol(bundle) == 3


def test_version_3_is_for_one_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAX_SHIM_VERSION", raising=False)
    assert starting.protocol(str(tmp_path)) == 2

    monkeypatch.setenv("MAX_SHIM_VERSION", "3")
    assert starting.protocol(str(tmp_path)) == 3


def test_nobody_takes_a_socket_for_a_left_one_that_does_not_listen_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    locked = []

    def chmod(_: str, mode: int) -> None:
        folder = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(folder)
        locked.append(mode)

    monkeypatch.setattr(os, "chmod", chmod)
    listener = starting._listen(path)
    assert listener is not None and locked == [0o600]
    with listener:
        assert starting._listen(path) is None


def test_one_with_much_to_do_listens(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(path)
        busy.listen(0)
        first.connect(path)
        assert starting.answers(path)
    assert not starting.answers(path)
