"""runsc.containers.names: where state lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runsc.containers import names
from runsc.errors import RuntimeFailure


@pytest.mark.parametrize(
    ("uid", "runtime", "mapped", "root"),
    [
        (0, "", False, "/run/runsc"),
        (0, "", True, "/run/runsc"),
        (0, "/run/user/0", False, "/run/runsc"),
        (0, "/run/user/1000", True, "/run/user/1000/runsc"),
        (1000, "/run/user/1000", False, "/run/user/1000/runsc"),
        (1000, "", False, "/tmp/runsc-1000"),
    ],
)
def test_root_of_a_user_namespace_has_its_own_place(
    monkeypatch: pytest.MonkeyPatch, uid: int, runtime: str, mapped: bool, root: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    monkeypatch.setattr(names, "is_in_user_namespace", lambda: mapped)

    assert names.default_root() == root


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives something to others")
def test_what_others_can_lead_elsewhere_is_no_place_for_states(tmp_path: Path) -> None:
    folder, link = tmp_path / "own", tmp_path / "link"
    folder.mkdir(mode=0o700)
    link.symlink_to(folder)
    names.check_root(str(link))

    os.lchown(link, 1000, 1000)
    with pytest.raises(RuntimeFailure, match="belongs to another user"):
        names.check_root(str(link))
    names.check_root(str(folder))

    os.chown(folder, 1000, 1000)
    with pytest.raises(RuntimeFailure, match="belongs to another user"):
        names.check_root(str(folder))
