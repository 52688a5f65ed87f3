"""User namespaces: maps of ids, where capabilities count, ceilings."""

from __future__ import annotations

import pytest

from sentry.abi.capability import CAP_CHOWN, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN
from sentry.auth.credentials import Credentials
from sentry.auth.permissions import MAY_READ, may_access
from sentry.auth.userns import (
    NO_ID,
    OVERFLOW_ID,
    Extent,
    IdMap,
    NamespaceCounts,
    UserNamespace,
    is_inside,
    parse_map,
)
from sentry.errors import EINVAL, ENOSPC, EPERM

ALICE = Credentials.user(1000, 1000)


@pytest.fixture
def namespace() -> UserNamespace:
    """Alice's, where she is root, and 1 to 9 are 5001 to 5009."""
    made = UserNamespace(None, 1000, 1000)
    made.uid_map = made.gid_map = IdMap([Extent(0, 1000, 1), Extent(1, 5001, 9)])
    return made


@pytest.fixture
def inside(namespace: UserNamespace) -> Credentials:
    """Alice in it."""
    return ALICE.in_new_namespace(namespace)


@pytest.mark.parametrize(
    "text",
    [b"", b"\n", b"0 0", b"0 0 0", b"0 0 1 1", b"x 0 1", b"-1 0 1", b"4294967295 0 1",
     b"0 4294967290 6", b"0 0 5\n3 100 1", b"0 100 5\n50 104 1"],
)  # fmt: skip
def test_map_that_makes_no_sense_is_einval(text: bytes) -> None:
    with pytest.raises(EINVAL):
        parse_map(text, None, "uid")


def test_map_of_a_nested_namespace_is_told_in_its_parents_ids(namespace: UserNamespace) -> None:
    found = parse_map(b"0 2 3\n10 100 1\n", namespace, "uid")

    assert found == [Extent(0, 5002, 3), Extent(10, NO_ID, 1)]


def test_ids_are_translated_both_ways(inside: Credentials) -> None:
    assert (inside.shown_uid(1000), inside.shown_uid(5003), inside.shown_uid(0)) == (
        0, 3, OVERFLOW_ID,
    )  # fmt: skip
    assert (inside.kuid(0), inside.kgid(9), inside.kuid(NO_ID)) == (1000, 5009, NO_ID)
    with pytest.raises(EINVAL):
        inside.kuid(10)


def test_capabilities_count_in_the_own_namespace_and_below(
    namespace: UserNamespace, inside: Credentials
) -> None:
    child = UserNamespace(namespace, 5001, 5001)

    assert not inside.has(CAP_SYS_ADMIN)
    assert not inside.has_in(None, CAP_SYS_ADMIN)
    assert inside.has_in(namespace, CAP_SYS_ADMIN)
    assert inside.has_in(child, CAP_SYS_ADMIN)
    assert Credentials.root().has_in(child, CAP_SYS_ADMIN)
    assert ALICE.has_in(namespace, CAP_SYS_ADMIN)
    assert not Credentials.user(7, 7).has_in(namespace, CAP_SYS_ADMIN)
    assert is_inside(child, namespace)
    assert not is_inside(namespace, child)


def test_files_of_unknown_owners_are_out_of_reach(inside: Credentials) -> None:
    assert may_access(inside, 0o100600, 5002, 5002, MAY_READ)
    assert not may_access(inside, 0o100600, 0, 0, MAY_READ)
    assert not may_access(inside, 0o100600, 5002, 0, MAY_READ)
    assert inside.over(CAP_CHOWN, 1000, 1000)


def test_who_is_no_longer_root_there_loses_its_capabilities(inside: Credentials) -> None:
    other = inside.set_uid(inside.kuid(5))

    assert other.uid == 5005
    assert not other.permitted
    assert not other.own(CAP_SETUID)


def test_groups_are_fixed_until_they_are_mapped_and_where_they_are_denied(
    namespace: UserNamespace,
) -> None:
    unmapped = ALICE.in_new_namespace(UserNamespace(None, 1000, 1000))
    with pytest.raises(EPERM):
        unmapped.set_groups(())
    assert ALICE.in_new_namespace(namespace).own(CAP_SETGID)
    namespace.setgroups_allowed = False
    with pytest.raises(EPERM):
        ALICE.in_new_namespace(namespace).set_groups(())


def test_namespaces_count_in_all_namespaces_above(namespace: UserNamespace) -> None:
    counts = NamespaceCounts()
    counts.limits["uts"] = 2
    held = [counts.take(namespace, 5001, "uts"), counts.take(None, 1000, "uts")]

    with pytest.raises(ENOSPC):
        counts.take(namespace, 5002, "uts")
    held.pop()
    held.append(counts.take(namespace, 5002, "uts"))
    namespace.limits["uts"] = 0
    held.clear()
    with pytest.raises(ENOSPC):
        counts.take(namespace, 5001, "uts")
