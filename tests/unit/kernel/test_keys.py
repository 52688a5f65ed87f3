"""Keys live as long as somebody holds them, and no longer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from sentry.abi.keyctl import (
    KEY_SPEC_PROCESS_KEYRING,
    KEY_SPEC_THREAD_KEYRING,
    KEYCTL_CLEAR,
    KEYCTL_LINK,
    KEYCTL_READ,
    KEYCTL_SEARCH,
)
from sentry.auth.credentials import Credentials
from sentry.errors import EDEADLK, EDQUOT, ENOKEY, EPERM
from sentry.kernel import keyrings, keys
from sentry.kernel.key_table import KeyTable
from sentry.kernel.keys import KEYRING, Key
from sentry.kernel.task import Task
from sentry.loader.execve import leave_keyrings
from sentry.wait.again import again
from sentry.wait.steps import at_once
from tests.world import World as Real


@pytest.fixture
def table(task: Task) -> KeyTable:
    return keyrings.table(task.kernel)


@pytest.fixture
def real() -> Iterator[Real]:
    """A kernel whose programs make calls."""
    with Real() as made:
        yield made


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

    assert list(table.in_order()) == []


def test_key_of_the_same_name_gives_way(table: KeyTable) -> None:
    ring, old, new = held_ring(table), new_key(), new_key()
    table.add_to(ring, old)

    table.add_to(ring, new)

    assert set(table.in_order()) == {ring, new}


def test_key_that_cannot_be_linked_does_not_stay(table: KeyTable) -> None:
    ring = held_ring(table)
    ring.restricted = True

    with pytest.raises(EPERM):
        table.add_to(ring, new_key())

    assert list(table.in_order()) == [ring]


def test_invalidated_key_is_gone_though_it_is_held(table: KeyTable) -> None:
    ring, key = held_ring(table), new_key()
    table.add_to(ring, key)
    key.hold()

    table.invalidate(key)
    key.drop()

    assert list(table.in_order()) == [ring]


def test_what_an_invalidated_keyring_alone_holds_is_gone(table: KeyTable) -> None:
    outer, inner = held_ring(table), table.keyring(b"inner", (0, 0), keys.ALL_PERMS)
    outer.link(inner)
    table.add_to(inner, new_key())

    table.invalidate(inner)

    assert list(table.in_order()) == [outer]
    assert table.used(0) == (1, outer.size)


def test_payloads_and_links_count_in_the_quota(table: KeyTable) -> None:
    owner = 5, 5
    ring = table.keyring(b"ring", owner, keys.ALL_PERMS).hold()
    empty = table.used(5)
    key = Key(b"user", b"name", owner, keys.ALL_PERMS, b"payload")
    table.add_to(ring, key)
    assert table.used(5) == (2, empty[1] + key.size + keys.LINK_SIZE)
    room = table.quota(5)[1] - table.used(5)[1]

    with pytest.raises(EDQUOT):
        key.update(bytes(len(key.payload) + room + 1))
    assert key.payload == b"payload"
    key.update(bytes(len(key.payload) + room))
    with pytest.raises(EDQUOT):
        table.add_to(ring, new_key(b"root's"))
    table.add_to(ring, new_key())  # in the place of the other

    assert table.used(5) == (1, empty[1] + keys.LINK_SIZE)
    ring.empty()
    assert table.used(5) == empty


def test_keyrings_of_a_task_go_with_it(task: Task, table: KeyTable) -> None:
    session = keyrings.join_session(task, None)
    child: Any = keyrings.of(task).for_child()
    own = keyrings.lookup(task, KEY_SPEC_THREAD_KEYRING, 0, create=True)
    of_process = keyrings.lookup(task, KEY_SPEC_PROCESS_KEYRING, 0, create=True)
    assert {own, of_process, session} <= set(table.in_order())

    leave_keyrings(task)
    assert own not in table.in_order() and of_process not in table.in_order()
    keyrings.of(task).release()
    assert session in table.in_order()
    child.release()

    assert session not in table.in_order()
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

    found = list(levels[0][0].searched(Credentials.root(), True))

    assert levels[-1][-1] in found
    assert len(found) == 1 + 12 * 5  # and not 12 ** 5
    assert at_once(levels[0][0].found(Credentials.root(), True, key.name)) is key


def test_keyring_is_looked_into_again_where_it_lies_higher(table: KeyTable) -> None:
    rings = [table.keyring(b"%d" % at, (0, 0), keys.ALL_PERMS).hold() for at in range(8)]
    top, *chain = rings
    table.add_to(chain[-1], key := new_key())
    for outer, inner in zip(rings, chain, strict=False):
        outer.link(inner)

    assert at_once(top.found(Credentials.root(), True, key.name)) is None  # too deep
    top.link(chain[3])

    assert at_once(top.found(Credentials.root(), True, key.name)) is key


def test_what_a_user_has_is_counted_as_it_changes(table: KeyTable) -> None:
    ring, key = held_ring(table), new_key()
    table.add_to(ring, key)
    of_ring = len("ring") + 1 + keys.LINK_SIZE
    assert table.used(0) == (2, of_ring + len("name") + 1 + len("payload"))
    key.update(b"pay")
    ring.uid = 7
    assert table.used(0) == (1, len("name") + 1 + len("pay"))
    assert table.used(7) == (1, of_ring)
    assert list(table.named(7, b"ring")) == [ring]
    ring.empty()
    assert table.used(0) == (0, 0)


def test_many_keys_go_in_their_turn_and_clear_waits(real: Real) -> None:
    program = real.program()
    ring = -3 & 0xFFFFFFFF
    made = [program.ok("add_key", b"user", b"k%d" % n, b"v", 1, ring) for n in range(40)]
    table = keyrings.table(real.kernel)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sentry.wait.steps.STEP_NS", -1)
        call = program.begin("keyctl", KEYCTL_CLEAR, ring)
        assert not call.done
        assert program.sibling().call("keyctl", KEYCTL_READ, ring, 0, 0) == 0
        assert call.wait() == 0
    assert not {key.serial for key in table.in_order()} & set(made)


def test_search_in_many_keyrings_goes_on_in_pieces(
    real: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, other = real.program(), real.program()
    at = -3 & 0xFFFFFFFF
    for number in range(20):
        at = -3 & 0xFFFFFFFF if number % 5 == 0 else at
        at = program.ok("add_key", b"keyring", b"r%d" % number, 0, 0, at)
    key = program.ok("add_key", b"user", b"k", b"v", 1, at)
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
    call = program.begin("request_key", b"user", b"k", 0, 0)
    assert not call.done
    assert other.ok("getpid")
    assert call.wait() == key
    assert program.begin("keyctl", KEYCTL_SEARCH, -3 & 0xFFFFFFFF, b"user", b"k", 0).wait() == key
    assert program.begin("keyctl", KEYCTL_LINK, key, -3 & 0xFFFFFFFF).wait() == 0


def test_keyrings_that_are_put_into_each_other_at_once_make_no_circle(
    real: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = keyrings.table(real.kernel)
    outer, middle, inner = (held_ring(table) for _ in range(3))
    middle.link(inner)
    ended: list[BaseException | None] = []
    monkeypatch.setattr("sentry.wait.steps.STEP_NS", -1)
    for ring, key in ((outer, middle), (inner, outer)):
        linking = again(ring.link, key)
        real.loop.spawn(linking, "link", lambda _, error: ended.append(error))
    real.settle()
    assert [type(error) for error in ended] == [type(None), EDEADLK]
    assert not inner.links
