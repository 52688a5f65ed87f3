"""Manifests: of the first version, of others, and of snapshots that build on each other."""

from __future__ import annotations

import json
import os
import sys
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runsc.containers import listener, snapshots
from runsc.containers.container import Store
from runsc.containers.snapshots import Manifest, Parent
from runsc.errors import NotRunning, RuntimeFailure
from sentry.state.pages import check_of
from tests.unit.runsc.containers import states

FIRST = {
    "format": "runsc snapshot", "version": 1, "program": "0.1.0", "container": "a",
    "made_at": "2026-01-01T00:00:00Z", "platform": "kvm", "annotations": {},
    "compression": "none", "objects_size": 2, "objects_check": 1, "pages": 1, "piece": 256,
    "checks": [7], "check": 0,
}  # fmt: skip
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def folder_of(path: Path, manifest: Manifest | dict[str, Any]) -> str:
    """A snapshot with one page at most."""
    path.mkdir()
    if isinstance(manifest, Manifest):
        (path / "manifest.json").write_bytes(snapshots._encoded(manifest))
        pages = manifest.own
    else:
        check = zlib.crc32(json.dumps(manifest, separators=(",", ":")).encode())
        (path / "manifest.json").write_text(json.dumps({**manifest, "check": check}))
        pages = 1
    (path / "objects.json").write_bytes(b"{}")
    (path / "pages").write_bytes(bytes(4096 * pages))
    return str(path)


def manifest(**others: Any) -> Manifest:
    given = {"program": "1", "container": "a", "made_at": "", "platform": "kvm",
             "objects_size": 2, "objects_check": 0, "pages": 1, "own": 1, "origins": ((0, 0, 1),),
             "piece": 256, "checks": (7,), "name": "n"}  # fmt: skip
    return Manifest(**{**given, **others})


def test_a_manifest_of_the_first_version_is_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "image", FIRST)
    assert snapshots.read(folder).version == 1
    found = snapshots.opened(folder, MIB, background=False)
    assert (found.origins, found.snapshot) == (((0, 0, 1),), "")
    assert [(layer.pages, layer.hashed) for layer in found.layers] == [(1, False)]
    changed = tmp_path / "image" / "manifest.json"
    changed.write_text(changed.read_text().replace("kvm", "kvn"))
    with pytest.raises(RuntimeFailure, match="not what was written"):
        snapshots.read(folder)


def test_a_version_that_is_not_known_is_refused_by_its_number(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "image", {**FIRST, "version": 3})
    with pytest.raises(RuntimeFailure, match="version 3 is not known, this runsc reads up to 2"):
        snapshots.read(folder)


def test_snapshots_that_build_on_each_other_are_opened_together(tmp_path: Path) -> None:
    base = folder_of(tmp_path / "base", manifest())
    _, parent = snapshots._parent(snapshots.Wish(str(tmp_path / "next"), parent=base))
    assert parent.path == "../base"
    both = (0, 0, 1), (1, 0, 1)
    folder = folder_of(tmp_path / "next", manifest(parent=parent, pages=2, origins=both))
    found = snapshots.opened(folder, MIB, background=False)
    assert [layer.pages for layer in found.layers] == [1, 1]
    strange = Parent(parent.path, "0" * 64)
    other = folder_of(tmp_path / "other", manifest(parent=strange))
    with pytest.raises(RuntimeFailure, match="which is another snapshot now"):
        snapshots.opened(other, MIB, background=False)


@pytest.fixture
def zstd() -> Any:
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    return pytest.importorskip(name)


def chain_of(tmp_path: Path, zstd: Any, **others: Any) -> tuple[str, bytes]:
    """A snapshot that needs two pages of another one, which has 600, and one of its own."""
    data = b"".join(bytes([page % 251]) * 4096 for page in range(600))
    checks = tuple(check_of(data[at : at + MIB]) for at in range(0, len(data), MIB))
    packed = {"compression": "zstd", "own": 600, "pages": 600, "origins": ((0, 0, 600),)}
    base = folder_of(tmp_path / "base", manifest(checks=checks, **packed))
    (tmp_path / "base" / "pages").write_bytes(zstd.compress(data))
    _, parent = snapshots._parent(snapshots.Wish(str(tmp_path / "next"), parent=base))
    origins = (0, 3, 1), (1, 0, 1), (0, 599, 1)
    made = manifest(parent=parent, **{"pages": 3, "origins": origins, **others})
    return folder_of(tmp_path / "next", made), data


def test_a_chain_takes_no_more_room_than_the_memory_that_it_makes(
    tmp_path: Path, zstd: Any
) -> None:
    folder, data = chain_of(tmp_path, zstd)
    base, _ = snapshots.opened(folder, 4 * MIB, background=False).layers
    assert (base.pages, base.looked_at, os.fstat(base.fd).st_size) == (600, True, len(data))
    for page in (3, 599):
        at = page * 4096
        assert os.pread(base.fd, 4096, at) == data[at : at + 4096]
    assert os.fstat(base.fd).st_blocks * 512 <= 16 * 4096


def test_a_piece_of_a_chain_that_is_damaged_is_told(tmp_path: Path, zstd: Any) -> None:
    folder, data = chain_of(tmp_path, zstd)
    (tmp_path / "base" / "pages").write_bytes(zstd.compress(b"x" + data[1:]))
    with pytest.raises(RuntimeFailure, match="base/pages: damaged"):
        snapshots.opened(folder, 4 * MIB, background=False)


@pytest.mark.parametrize(
    "origins", [((0, 0, 4),), ((2, 0, 1),), ((0, 600, 1),), ((0, 599, 2),), ((1, 0, 2),)]
)
def test_pages_of_a_chain_that_are_nowhere_are_told(
    tmp_path: Path, zstd: Any, origins: Any
) -> None:
    folder, _ = chain_of(tmp_path, zstd, origins=origins)
    with pytest.raises(RuntimeFailure, match="nowhere"):
        snapshots.opened(folder, 4 * MIB, background=False)


def test_what_cannot_fit_is_said_before_it_is_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "image", manifest(pages=1 << 50, compression="zstd"))
    with pytest.raises(RuntimeFailure, match="more than this container may have"):
        snapshots.opened(folder, MIB, background=False)
    other = folder_of(tmp_path / "other", msgspec.structs.replace(manifest(), own=1))
    (tmp_path / "other" / "pages").unlink()
    with pytest.raises(RuntimeFailure, match="it is not there"):
        snapshots.opened(other, MIB, background=False)


def test_a_manifest_with_words_for_the_host_is_sealed(tmp_path: Path) -> None:
    made = snapshots.read(folder_of(tmp_path / "image", manifest(annotations={"a": "b"})))
    assert snapshots.is_ours(made)
    assert not snapshots.is_ours(msgspec.structs.replace(made, annotations={"a": "c"}))
    assert not snapshots.is_ours(snapshots.read(folder_of(tmp_path / "plain", manifest())))


def test_a_snapshot_is_not_of_another_container_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was made when the state had been read, before the socket was connected."""
    store = Store(str(tmp_path / "states"))
    states.running(store, "a")
    connect = listener.connect

    def later(path: str) -> Any:
        with store.held("a") as state:
            state.pid_start += 1
            store.save(state)
        return connect(path)

    monkeypatch.setattr(listener, "connect", later)
    wish = snapshots.Wish(str(tmp_path / "snapshot"))
    with listener.listen(store.path("a", "control.sock")), pytest.raises(NotRunning):
        snapshots.write(store, "a", wish)
    assert not (tmp_path / "snapshot").exists()
