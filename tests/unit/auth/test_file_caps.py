from __future__ import annotations

import struct

import pytest

from sentry.auth.credentials import ALL_CAPS, Credentials
from sentry.auth.file_caps import to_show, to_store
from sentry.auth.userns import Extent, IdMap, UserNamespace
from sentry.errors import EINVAL, EOVERFLOW, EPERM

V2, V3 = 0x2000001, 0x3000001


def caps(magic: int, *root: int) -> bytes:
    return struct.pack("<5I", magic, 1, 2, 3, 4) + b"".join(struct.pack("<I", r) for r in root)


def root_of(first: int) -> Credentials:
    """The root of a namespace whose ids start at `first`."""
    ns = UserNamespace(None, first, first)
    ns.uid_map = ns.gid_map = IdMap([Extent(0, first, 10)])
    return Credentials(
        first, first, first, first, first, first, first, first,
        effective=ALL_CAPS, permitted=ALL_CAPS, user_ns=ns,
    )  # fmt: skip


def test_first_namespace_keeps_what_is_for_everybody() -> None:
    root = Credentials.root()

    assert to_store(root, None, (0, 0), caps(V2)) == caps(V2)
    assert to_show(root, None, caps(V2)) == caps(V2)
    assert to_store(root, None, (0, 0), caps(V3, 5)) == caps(V3, 5)
    assert to_show(root, None, caps(V3, 5)) == caps(V3, 5)
    assert to_show(root, None, caps(V3, 0)) == caps(V2)


def test_namespaces_below_say_whose_root_it_is_for() -> None:
    mine, other = root_of(1000), root_of(2000)
    stored = to_store(mine, None, (1000, 1000), caps(V2))

    assert stored == caps(V3, 1000)
    assert to_show(mine, None, stored) == caps(V2)
    assert to_show(Credentials.root(), None, stored) == stored
    assert to_store(mine, None, (1003, 1000), caps(V3, 3)) == caps(V3, 1003)
    assert to_show(mine, None, caps(V3, 1003)) == caps(V3, 3)
    with pytest.raises(EOVERFLOW):
        to_show(other, None, stored)


def test_file_system_of_a_namespace_has_its_numbers() -> None:
    mine = root_of(1000)

    assert to_store(mine, mine.user_ns, (1000, 1000), caps(V2)) == caps(V2)
    assert to_show(mine, mine.user_ns, caps(V2)) == caps(V2)
    assert to_show(Credentials.root(), mine.user_ns, caps(V2)) == caps(V3, 1000)


@pytest.mark.parametrize("value", [b"", caps(V2)[:-1], caps(V3), caps(V2, 0), caps(0x1000000)])
def test_other_values_are_refused(value: bytes) -> None:
    with pytest.raises(EINVAL):
        to_store(Credentials.root(), None, (0, 0), value)
    with pytest.raises(EINVAL):
        to_show(Credentials.root(), None, value)


def test_owners_and_roots_without_a_number_are_refused() -> None:
    with pytest.raises(EPERM):
        to_store(root_of(1000), None, (0, 0), caps(V2))
    with pytest.raises(EINVAL):
        to_store(root_of(1000), None, (1000, 1000), caps(V3, 77))
