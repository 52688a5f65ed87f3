"""runsc.containers.names: where state lies."""

from __future__ import annotations

import os

import pytest

from runsc.containers import names


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
