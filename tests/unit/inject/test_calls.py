"""Before the handlers of system calls: which rule is for a call."""

from __future__ import annotations

from typing import Any, cast

import pytest

from sentry.abi.limits import PATH_MAX
from sentry.faults import InjectRule
from sentry.inject.calls import Faulty
from sentry.inject.choice import Choice
from sentry.vfs.dentry import Dentry
from sentry.vfs.location import Location
from tests.world import World


class Named(Faulty):
    """All its calls are about one file."""

    name = b""

    def _path(self, task: Any, values: tuple[Any, ...]) -> bytes:
        return self.name


@pytest.mark.parametrize(("size", "fits"), [(PATH_MAX - 1, True), (PATH_MAX, False)])
def test_longer_paths_than_a_call_can_give_match_nothing(size: int, fits: bool) -> None:
    """Of a directory far below others: the look takes the square of their length."""
    choice = Choice(InjectRule(("openat",), errno="EIO", paths=("/**x**y",)))
    faulty = Named([choice])
    faulty.name = b"/" + b"x" * (size - 2) + b"y"
    assert (faulty._chosen(cast("Any", None), ()) is choice) == fits


def test_names_below_what_lies_deeper_match_nothing(world: World) -> None:
    task = world.program().task
    root = task.fs.cwd
    bottom = root.dentry
    for _ in range(PATH_MAX):
        bottom = Dentry(bottom, b"d", root.inode)
    faulty = Faulty([])
    faulty._names = ["path"]
    assert faulty._path(task, (b"../x",)) == b"/x"
    task.fs.cwd = Location(root.mount, bottom)
    assert faulty._path(task, (b"../" * PATH_MAX + b"x",)) == b""
    assert faulty._path(task, (b"/a/../x",)) == b"/x"
    task.fs.cwd = root
