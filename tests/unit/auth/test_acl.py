"""Access control lists as numbers."""

from __future__ import annotations

import struct

import pytest

from sentry.abi.acl import (
    ACL_GROUP,
    ACL_GROUP_OBJ,
    ACL_MASK,
    ACL_OTHER,
    ACL_USER,
    ACL_USER_OBJ,
)
from sentry.auth.acl import (
    MAX_ENTRIES,
    Entry,
    acl_allows,
    check_valid,
    from_program,
    inherited,
    is_mode,
    mode_of,
    read_acl,
    to_program,
    with_mode,
)
from sentry.auth.credentials import Credentials
from sentry.auth.userns import NO_ID, Extent, IdMap, UserNamespace
from sentry.errors import EINVAL, ENOSPC, EOPNOTSUPP

ROOT = Credentials.root()
R, W, X = 4, 2, 1
FEW: list[Entry] = [(ACL_USER_OBJ, 7, NO_ID), (ACL_GROUP_OBJ, 5, NO_ID), (ACL_OTHER, 0, NO_ID)]
NAMED: list[Entry] = [
    (ACL_USER_OBJ, 7, NO_ID), (ACL_USER, 6, 1000), (ACL_USER, 0, 1001), (ACL_GROUP_OBJ, 4, NO_ID),
    (ACL_GROUP, 6, 50), (ACL_GROUP, 3, 51), (ACL_MASK, 5, NO_ID), (ACL_OTHER, 1, NO_ID),
]  # fmt: skip


def packed(entries: list[Entry], version: int = 2) -> bytes:
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *each) for each in entries)


def allowed(creds: Credentials, gid: int = 7) -> int:
    """All rights that it gives."""
    acl = read_acl(packed(NAMED))
    return sum(right for right in (R, W, X) if acl_allows(acl, creds, gid, right))


def test_named_users_and_groups_have_what_the_mask_leaves_them() -> None:
    assert allowed(Credentials.user(1000, 1000)) == R
    assert allowed(Credentials.user(1001, 50, (50,))) == 0
    assert allowed(Credentials.user(5, 7)) == R
    assert allowed(Credentials.user(5, 50)) == R
    assert allowed(Credentials.user(5, 5, (51,))) == X
    assert allowed(Credentials.user(5, 5, (50, 51))) == R | X
    assert allowed(Credentials.user(5, 5)) == X


def test_one_group_has_to_give_all_that_is_wanted() -> None:
    both = Credentials.user(5, 7, (51,))
    acl = read_acl(packed(NAMED))
    assert acl_allows(acl, both, 7, R)
    assert acl_allows(acl, both, 7, X)
    assert not acl_allows(acl, both, 7, R | X)


def test_who_is_in_many_groups_is_in_each_of_them() -> None:
    many = tuple(range(100, 400))
    assert allowed(Credentials.user(5, 5, (*many, 50))) == R
    assert allowed(Credentials.user(5, 50, many)) == R
    assert allowed(Credentials.user(5, 5, many)) == X


def test_list_without_a_mask_is_a_mode() -> None:
    assert is_mode(packed(FEW))
    assert mode_of(packed(FEW)) == 0o750
    acl = read_acl(packed(FEW))
    assert acl_allows(acl, Credentials.user(5, 7), 7, R | X)
    assert not acl_allows(acl, Credentials.user(5, 7), 7, W)


def test_bits_of_the_group_are_the_mask() -> None:
    assert not is_mode(packed(NAMED))
    assert mode_of(packed(NAMED)) == 0o751
    changed = with_mode(packed(NAMED), 0o640)
    assert mode_of(changed) == 0o640
    acl = read_acl(changed)
    assert (acl.owner, acl.group, acl.mask, acl.other, acl.users[1000]) == (6, 4, 4, 0, 6)
    assert mode_of(with_mode(packed(FEW), 0o604)) == 0o604


def test_what_is_made_has_no_more_than_it_was_made_with() -> None:
    access, mode = inherited(packed(NAMED), 0o100644)
    assert mode == 0o100640
    assert mode_of(access) == 0o640
    assert read_acl(access).users == {1000: 6, 1001: 0}
    assert inherited(packed(FEW), 0o040777) == (b"", 0o040750)


@pytest.mark.parametrize(
    "entries",
    [
        [], FEW[:2], FEW[1:], [*FEW, FEW[2]], [FEW[1], FEW[0], FEW[2]],
        [FEW[0], (ACL_USER, 4, 5), *FEW[1:]],
        [*FEW[:2], (ACL_GROUP, 4, 5), FEW[2]],
        [FEW[0], FEW[1], (ACL_USER, 4, 5), (ACL_MASK, 7, NO_ID), FEW[2]],
        [*FEW[:2], (ACL_MASK, 8, NO_ID), FEW[2]],
        [*FEW[:2], (ACL_MASK, 7, NO_ID), (ACL_MASK, 7, NO_ID), FEW[2]],
        [FEW[0], (ACL_GROUP, 4, 5), FEW[1], (ACL_MASK, 7, NO_ID), FEW[2]],
    ],
)  # fmt: skip
def test_list_with_entries_missing_or_out_of_order_is_einval(entries: list[Entry]) -> None:
    with pytest.raises(EINVAL):
        check_valid(packed(entries), None)


def test_valid_lists_pass_and_too_long_ones_do_not() -> None:
    check_valid(packed(FEW), None)
    check_valid(packed(NAMED), None)
    check_valid(packed([*FEW[:2], (ACL_MASK, 7, NO_ID), FEW[2]]), None)
    users: list[Entry] = [(ACL_USER, 4, uid) for uid in range(MAX_ENTRIES)]
    rest: list[Entry] = [FEW[1], (ACL_MASK, 7, NO_ID), FEW[2]]
    with pytest.raises(ENOSPC):
        check_valid(packed([FEW[0], *users, *rest]), None)
    check_valid(packed([FEW[0], *users[4:], *rest]), None)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b"\2\0\0", EINVAL), (b"\1\0\0\0", EOPNOTSUPP), (packed(FEW, 3), EOPNOTSUPP),
        (packed(FEW) + b"\0", EINVAL), (packed([(0x40, 7, 0)]), EINVAL),
        (packed([(ACL_USER, 7, NO_ID)]), EINVAL),
    ],
)  # fmt: skip
def test_bytes_that_are_no_list_are_refused(value: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        from_program(ROOT, value)


def test_ids_that_say_nothing_are_forgotten() -> None:
    loud: list[Entry] = [(tag, rights, 3) for tag, rights, _ in FEW]
    assert from_program(ROOT, packed(loud)) == packed(FEW)
    assert from_program(ROOT, packed([])) == b""


def test_ids_are_those_of_the_user_namespace() -> None:
    ns = UserNamespace(None, 0, 0)
    ns.uid_map = IdMap([Extent(0, 1000, 1)])
    ns.gid_map = IdMap([Extent(0, 50, 1)])
    inside = ROOT.in_new_namespace(ns)
    seen = to_program(inside, packed(NAMED))
    assert [number for _, _, number in struct.iter_unpack("<HHI", seen[4:])] == [
        NO_ID, 0, NO_ID, NO_ID, 0, NO_ID, NO_ID, NO_ID,
    ]  # fmt: skip
    mine: list[Entry] = [FEW[0], (ACL_USER, 6, 0), FEW[1], (ACL_MASK, 7, NO_ID), FEW[2]]
    kept = from_program(inside, packed(mine))
    assert read_acl(kept).users == {1000: 6}
    with pytest.raises(EINVAL):
        from_program(inside, packed([FEW[0], (ACL_USER, 6, 1)]))
    with pytest.raises(EINVAL):
        check_valid(packed(NAMED), ns)
    check_valid(kept, ns)
