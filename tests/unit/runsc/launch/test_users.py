"""runsc.launch.users: maps of a namespace, and who is root there. The rest: tests/e2e."""

from __future__ import annotations

import os

from runsc.launch import users
from runsc.oci.exports import Users


def test_maps_of_a_namespace_that_is_there_are_read() -> None:
    found = users.settle(os.getpid(), Users(path="/proc/self/ns/user"))

    assert found == (users.read(os.getpid(), "uid_map"), users.read(os.getpid(), "gid_map"))
    assert all(len(extent) == 3 for extents in found for extent in extents)


def test_root_is_root_or_who_comes_first() -> None:
    assert users.root_of(((5, 9, 3), (0, 1, 1))) == 0
    assert users.root_of(((5, 9, 3), (2, 1, 1))) == 2
