"""Keys live as long as somebody holds them, and no longer."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from sentry.abi.keyctl import KEY_SPEC_PROCESS_KEYRING, KEY_SPEC_THREAD_KEYRING
from sentry.auth.credentials import Credentials
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


def test_keyrings_that_lie_in_many_others_are_looked_into_once(table: KeyTable) -> None:
    levels = [
        [table.keyring(b"%d %d" % (level, at), (0, 0), keys.ALL_PERMS).hold() for at in range(12)]
        for level in range(6)
    ]
    for outer, inner in itertools.pairwise(levels):
        for ring in outer:
            for one in inner:
                ring.link(one)
    table.add_to(levels[-1][-1], key := new_key())

    found = list(levels[0][0].below(Credentials.root(), True))

    assert key in found
    assert len(found) == 12 + 12 * 12 * 4 + 1  # and not 12 ** 5


def test_keyring_is_looked_into_again_where_it_lies_higher(table: KeyTable) -> None:
    rings = [table.keyring(b"%d" % at, (0, 0), keys.ALL_PERMS).hold() for at in range(8)]
    top, *chain = rings
    table.add_to(chain[-1], key := new_key())
    for outer, inner in zip(rings, chain, strict=False):
        outer.link(inner)

    assert key not in list(top.below(Credentials.root(), True))  # too deep
    top.link(chain[3])

    assert key in list(top.below(Credentials.root(), True))
