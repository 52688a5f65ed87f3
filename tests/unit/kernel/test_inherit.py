from __future__ import annotations

from typing import ClassVar

import pytest

from sentry.kernel.inherit import CLONE, COPIED, FRESH, SHARED, inherit
from sentry.kernel.task import Task
from sentry.kernel.thread_group import ThreadGroup


class Copy:
    """What makes another one for a child."""

    def for_child(self) -> str:
        return "another"


class Thing:
    """A field of each kind."""

    fields: ClassVar = {
        "copied": COPIED, "fresh": FRESH, "given": CLONE, "none": COPIED, "shared": SHARED
    }  # fmt: skip
    __slots__ = tuple(fields)

    def __init__(self, shared: object) -> None:
        self.shared = shared
        self.copied: object = Copy()
        self.none = None
        self.fresh = self.given = shared


def test_child_gets_what_is_said_beside_the_field() -> None:
    parent, child = Thing("parent"), Thing("child")

    inherit(child, parent, type(parent))

    assert (child.shared, child.copied, child.none) == ("parent", "another", None)
    assert child.fresh == child.given == "child"


@pytest.mark.parametrize("kind", [Task, ThreadGroup])
def test_every_field_says_how_it_is_inherited(kind: type[Task | ThreadGroup]) -> None:
    assert set(kind.fields.values()) <= {CLONE, COPIED, FRESH, SHARED}
