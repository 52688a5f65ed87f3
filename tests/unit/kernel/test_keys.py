"""Keys live as long as somebody holds them, and no longer."""

from __future__ import annotations

from typing import Any

import pytest

from sentry.abi.keyctl import KEY_SPEC_PROCESS_KEYRING, KEY_SPEC_THREAD_KEYRING
from sentry.errors import ENOKEY, EPERM
from sentry.kernel import keyrings, keys
from sentry.kernel.keys import KEYRING, Key, KeyTable
from sentry.kernel.task import Task
from sentry.loader.execve import leave_keyrings


@pytest.fixture
def table(task: Task) -> KeyTable:
    return keyrings.table(task.kernel)


def held_ring(table: KeyTable) -> Key:
    return table.keyring(b"ring", (0, 0), keys.ALL_PERMS).hold()


def new_key(name: bytes = b"name") -> Key:
    return Key(b"user", name, (0, 0), keys.ALL_PERMS, b"payload")


def test_key_goes_with_the_last_keyring_that_holds_it(table: KeyTable) -> None:
    one, other, key = held_ring(table), held_ring(table), new_key()
    table.add_to(one, key)
    other.link(key)

    one.unlink(key.name)
    assert table.find(key.serial) is key
    other.empty()

    with pytest.raises(ENOKEY):
        table.find(key.serial)
    assert table.used(0)[0] == 2


def test_keyring_takes_what_it_alone_holds(table: KeyTable) -> None:
    outer, inner = held_ring(table), table.keyring(b"inner", (0, 0), keys.ALL_PERMS)
    outer.link(inner)
    table.add_to(inner, new_key())

    outer.drop()

    assert table.all() == []


def test_key_of_the_same_name_gives_way(table: KeyTable) -> None:
    ring, old, new = held_ring(table), new_key(), new_key()
    table.add_to(ring, old)

    table.add_to(ring, new)

    assert table.all() == [ring, new]


def test_key_that_cannot_be_linked_does_not_stay(table: KeyTable) -> None:
    ring = held_ring(table)
    ring.restricted = True

    with pytest.raises(EPERM):
        table.add_to(ring, new_key())

    assert table.all() == [ring]


def test_invalidated_key_is_gone_though_it_is_held(table: KeyTable) -> None:
    ring, key = held_ring(table), new_key()
    table.add_to(ring, key)
    key.hold()

    table.invalidate(key)
    key.drop()

    assert table.all() == [ring]


def test_keyrings_of_a_task_go_with_it(task: Task, table: KeyTable) -> None:
    session = keyrings.join_session(task, None)
    child: Any = keyrings.of(task).for_child()
    own = keyrings.lookup(task, KEY_SPEC_THREAD_KEYRING, 0, create=True)
    of_process = keyrings.lookup(task, KEY_SPEC_PROCESS_KEYRING, 0, create=True)
    assert {own, of_process, session} <= set(table.all())

    leave_keyrings(task)
    assert own not in table.all() and of_process not in table.all()
    keyrings.of(task).release()
    assert session in table.all()
    child.release()

    assert session not in table.all()
    assert session.type == KEYRING
