"""Identifiers, keys and rights of System V objects."""

from __future__ import annotations

import pytest

from sentry.abi.capability import CAP_IPC_OWNER
from sentry.abi.sysvipc import IPC_CREAT, IPC_EXCL, IPC_PRIVATE
from sentry.auth.credentials import Credentials
from sentry.errors import EACCES, EEXIST, EINVAL, ENOENT, ENOSPC, EPERM
from sentry.kernel.sysv_ids import (
    IPCMNI,
    READ,
    WRITE,
    IdTable,
    IpcObject,
    check_owner,
    check_permission,
    get,
)

ROOT = Credentials.root()
ALICE, BOB, CAROL = (Credentials.user(n, n) for n in (1, 2, 3))


def made(table: IdTable[IpcObject], key: int = IPC_PRIVATE) -> IpcObject:
    new = IpcObject(ROOT, key, 0o600)
    table.add(new, 100)
    return new


def test_an_identifier_is_not_found_again_after_its_object_went() -> None:
    table: IdTable[IpcObject] = IdTable("shm")
    numbers = set()
    for _ in range(300):
        found = made(table)
        assert found.id not in numbers
        numbers.add(found.id)
        table.remove(found)
        with pytest.raises(EINVAL):
            table.find(found.id)
    assert max(numbers) >= IPCMNI


def test_a_sequence_number_does_not_pass_for_another() -> None:
    table: IdTable[IpcObject] = IdTable("shm")
    found = made(table)
    with pytest.raises(EINVAL):
        table.find(found.id + IPCMNI)
    assert table.at(found.id % IPCMNI) is found


def test_the_limit_is_kept() -> None:
    table: IdTable[IpcObject] = IdTable("shm")
    for _ in range(100):
        made(table)
    with pytest.raises(ENOSPC):
        made(table)
    assert table.highest == 99


def test_get_by_key_makes_finds_and_refuses() -> None:
    table: IdTable[IpcObject] = IdTable("shm")

    def ask(key: int, flags: int, creds: Credentials = ROOT) -> int:
        return get(table, creds, key, flags, lambda: made(table, key).id, lambda _: None)

    with pytest.raises(ENOENT):
        ask(5, 0)
    number = ask(5, IPC_CREAT)
    assert ask(5, 0) == number
    with pytest.raises(EEXIST):
        ask(5, IPC_CREAT | IPC_EXCL)
    with pytest.raises(EACCES):
        ask(5, 0o600, ALICE)
    assert ask(IPC_PRIVATE, 0) != ask(IPC_PRIVATE, 0)


def test_rights_go_by_owner_creator_group_and_the_rest() -> None:
    found = IpcObject(ALICE, 1, 0o640)
    found.set_owner(ROOT, 2, 3, 0o640)
    for creds in (ALICE, BOB):
        check_permission(creds, found, READ | WRITE)
        check_owner(creds, found)
    check_permission(CAROL, found, READ)
    with pytest.raises(EACCES):
        check_permission(CAROL, found, WRITE)
    with pytest.raises(EACCES):
        check_permission(Credentials.user(9, 9), found, READ)
    with pytest.raises(EPERM):
        check_owner(CAROL, found)
    owner = Credentials(uid=9, euid=9, effective=1 << CAP_IPC_OWNER)
    check_permission(owner, found, READ | WRITE)


def test_minus_one_is_no_owner() -> None:
    with pytest.raises(EINVAL):
        IpcObject(ROOT, 1, 0).set_owner(ROOT, 0xFFFFFFFF, 0, 0)
