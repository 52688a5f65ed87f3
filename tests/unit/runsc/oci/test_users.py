"""runsc.oci.users: maps of ids that a bundle may and may not have."""

from __future__ import annotations

import os
from typing import Any

import pytest

from runsc.errors import SpecError
from runsc.oci import spec, users
from runsc.oci.exports import Users


def _linux(uids: list[Any], gids: list[Any] | None = None, path: str = "") -> spec.Linux:
    return spec.Linux(
        namespaces=[spec.Namespace("user", path)],
        uid_mappings=[spec.IdMapping(*each) for each in uids],
        gid_mappings=[spec.IdMapping(*each) for each in uids if gids is None]
        + [spec.IdMapping(*each) for each in gids or []],
    )


@pytest.fixture(autouse=True)
def _as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_maps_become_extents() -> None:
    made = users.of(_linux([(0, 1000, 1), (1, 100_000, 10)], [(0, 5, 2)]))

    assert made == Users(((0, 1000, 1), (1, 100_000, 10)), ((0, 5, 2),))


def test_maps_of_a_namespace_that_is_joined_are_its_own() -> None:
    assert users.of(_linux([(0, 1, 1)], path="/proc/1/ns/user")) == Users(path="/proc/1/ns/user")


@pytest.mark.parametrize(
    ("uids", "gids", "message"),
    [
        ([(0, 1, 0)], None, "ids out of range"),
        ([(0, 1 << 31, 1 << 31)], None, "ids out of range"),
        ([(0, 1, 5), (4, 100, 1)], None, "overlap"),
        ([(0, 1, 5), (10, 5, 1)], None, "overlap"),
        ([(0, 1, 1)], [], "no mapping found"),
        ([(i, i, 1) for i in range(341)], None, "more than 340"),
    ],
)
def test_maps_that_linux_refuses(uids: list[Any], gids: list[Any] | None, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        users.of(_linux(uids, gids))


def test_maps_without_a_namespace() -> None:
    linux = spec.Linux(uid_mappings=[spec.IdMapping(0, 1, 1)])

    with pytest.raises(SpecError, match="USER namespace isn't enabled"):
        users.of(linux)


def test_ordinary_user_maps_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 100)

    assert users.of(_linux([(0, 1000, 1)], [(0, 100, 1)])).uids == ((0, 1000, 1),)
    with pytest.raises(SpecError, match="can map 0 to 1000"):
        users.of(_linux([(0, 100_000, 65536)]))
