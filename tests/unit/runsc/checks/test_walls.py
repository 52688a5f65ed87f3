from __future__ import annotations

from collections.abc import Callable

import pytest

from runsc.checks import walls
from runsc.checks.tried import Failed


def test_walls_can_be_made_here() -> None:
    assert [found.level for found in walls.namespaces()] == ["good", "good"]
    assert walls.seccomp().level == "good"


def test_landlock_is_a_note_where_it_is_missing_or_old() -> None:
    assert [walls.landlock_wall(v).level for v in (0, 1, 2, 7)] == ["note", "note", "good", "good"]


def _fail(body: Callable[[], str], namespaces: int = 0) -> str:
    raise Failed("cannot make namespaces for the sandbox: a limit is reached")


def test_what_cannot_be_made_is_bad_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walls, "tried", _fail)

    (found,) = walls.namespaces()
    assert (found.level, found.advice) == ("bad", "a limit is reached")
    assert walls.seccomp().level == "bad"


def test_mounts_that_cannot_be_cloned_are_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_second(body: Callable[[], str], namespaces: int = 0) -> str:
        if body is walls._clone:
            raise Failed("open_tree")
        return ""

    monkeypatch.setattr(walls, "tried", fail_second)

    assert [found.level for found in walls.namespaces()] == ["good", "bad"]
