"""Record locks and flock."""

from __future__ import annotations

import errno
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentry.abi.fcntl import (
    F_GETLK,
    F_OFD_SETLK,
    F_OFD_SETLKW,
    F_RDLCK,
    F_SETLK,
    F_SETLKW,
    F_UNLCK,
    F_WRLCK,
    FLOCK,
    LOCK_EX,
    LOCK_NB,
    LOCK_SH,
    LOCK_UN,
    O_CREAT,
    O_RDWR,
)
from sentry.errors import EAGAIN, ENOLCK
from sentry.vfs.budget import Budget
from sentry.vfs.locks import MAX_COMPARED, FileLocks, Request, Waiter


def lock(task: Any, fd: int, kind: int, start: int, length: int, command: int = F_SETLK) -> int:
    where = task.place(FLOCK.pack(kind, 0, start, length, 0))
    return int(task.call("fcntl", fd, command, where))


def blocker(task: Any, fd: int, start: int, length: int) -> tuple[int, int, int]:
    where = task.place(FLOCK.pack(F_WRLCK, 0, start, length, 0))
    task.ok("fcntl", fd, F_GETLK, where)
    found = FLOCK.unpack(task.read(where, FLOCK.size))
    return found.l_type, found.l_start, found.l_len


def two(task: Any) -> tuple[Any, int, Any, int]:
    other = task.sibling()
    return (
        task,
        task.ok("open", b"/f", O_CREAT | O_RDWR, 0o644),
        other,
        other.ok("open", b"/f", O_RDWR, 0),
    )


def test_range_over_many_locks_looks_at_its_ends_alone() -> None:
    locks, owner = FileLocks(Budget(), 0, 0), object()
    for start in range(0, 4000, 4):
        locks.set(Request(owner, 1, start % 8 == 0, start, start + 1))
    looks = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal looks
        looks += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        locks.set(Request(owner, 1, None, 1, 3996))
    finally:
        sys.setprofile(None)
    assert looks < 100
    assert [(lock.start, lock.end) for lock in locks.records[owner]] == [(0, 0), (3997, 3997)]
    assert locks._budget.locks == 2


def test_ranges_split_and_join(task: Any) -> None:
    a, fd, b, other = two(task)
    assert lock(a, fd, F_WRLCK, 0, 100) == 0
    assert lock(a, fd, F_UNLCK, 40, 20) == 0
    assert blocker(b, other, 0, 0) == (F_WRLCK, 0, 40)
    assert blocker(b, other, 40, 20)[0] == F_UNLCK
    assert blocker(b, other, 50, 0) == (F_WRLCK, 60, 40)
    assert lock(a, fd, F_WRLCK, 40, 20) == 0
    assert blocker(b, other, 50, 0) == (F_WRLCK, 0, 100)
    assert lock(a, fd, F_RDLCK, 90, 0) == 0
    assert lock(b, other, F_RDLCK, 95, 5) == 0
    assert lock(b, other, F_RDLCK, 89, 2) == -errno.EAGAIN


def test_any_close_of_the_file_drops_the_locks_of_the_process(task: Any) -> None:
    a, fd, b, other = two(task)
    lock(a, fd, F_WRLCK, 0, 0)
    assert lock(b, other, F_WRLCK, 0, 1) == -errno.EAGAIN
    a.ok("close", a.ok("dup", fd))
    assert lock(b, other, F_WRLCK, 0, 1) == 0


def test_waiter_gets_the_lock_when_it_is_free(task: Any) -> None:
    a, fd, b, other = two(task)
    lock(a, fd, F_WRLCK, 0, 0)
    where = b.place(FLOCK.pack(F_WRLCK, 0, 5, 1, 0))
    waiter = b.begin("fcntl", other, F_SETLKW, where)
    assert not waiter.done
    lock(a, fd, F_UNLCK, 0, 0)
    assert waiter.wait() == 0


@pytest.mark.parametrize("reused", [False, True])
def test_lock_that_comes_after_its_descriptor_was_closed_is_given_back(
    task: Any, reused: bool
) -> None:
    a, fd, b, other = two(task)
    lock(a, fd, F_WRLCK, 0, 0)
    where = b.place(FLOCK.pack(F_WRLCK, 0, 5, 1, 0))
    waiter = b.thread().begin("fcntl", other, F_SETLKW, where)
    assert not waiter.done
    if reused:
        b.ok("dup2", b.ok("open", b"/f", O_RDWR, 0), other)
    else:
        b.ok("close", other)
    lock(a, fd, F_UNLCK, 0, 0)
    assert waiter.wait() == -errno.EBADF
    assert blocker(a, fd, 0, 0)[0] == F_UNLCK
    assert task.world.vfs.budget.locks == 0


def test_lock_that_comes_to_an_open_file_is_had_by_other_descriptors_too(task: Any) -> None:
    a, fd, b, other = two(task)
    a.ok("fcntl", fd, F_OFD_SETLK, a.place(FLOCK.pack(F_WRLCK, 0, 0, 0, 0)))
    copy = b.ok("dup", other)
    where = b.place(FLOCK.pack(F_WRLCK, 0, 5, 1, 0))
    waiter = b.thread().begin("fcntl", other, F_OFD_SETLKW, where)
    assert not waiter.done
    b.ok("close", other)
    a.ok("close", fd)
    assert waiter.wait() == 0
    fd = a.ok("open", b"/f", O_RDWR, 0)
    assert blocker(a, fd, 0, 0) == (F_WRLCK, 5, 1)
    b.ok("close", copy)


def test_circle_of_waiters_is_refused(task: Any) -> None:
    a, fd, b, other = two(task)
    lock(a, fd, F_WRLCK, 0, 1)
    lock(b, other, F_WRLCK, 1, 1)
    where = b.place(FLOCK.pack(F_WRLCK, 0, 0, 1, 0))
    waiter = b.begin("fcntl", other, F_SETLKW, where)
    assert not waiter.done
    assert lock(a, fd, F_WRLCK, 1, 1, F_SETLKW) == -errno.EDEADLK


def test_flock_belongs_to_the_open_file(task: Any) -> None:
    a, fd, b, other = two(task)
    a.ok("flock", fd, LOCK_EX)
    assert b.call("flock", other, LOCK_SH | LOCK_NB) == -errno.EAGAIN
    copy = a.ok("dup", fd)
    a.ok("close", fd)
    assert b.call("flock", other, LOCK_SH | LOCK_NB) == -errno.EAGAIN
    a.ok("flock", copy, LOCK_UN)
    b.ok("flock", other, LOCK_SH | LOCK_NB)


_RANGES = st.tuples(st.integers(0, 15), st.integers(0, 6))
_KINDS = st.sampled_from([False, True, None])


@given(st.lists(st.tuples(st.integers(0, 2), _KINDS, _RANGES), max_size=30))
def test_any_requests_leave_each_byte_to_whom_it_belongs(
    requests: list[tuple[int, bool | None, tuple[int, int]]],
) -> None:
    """As a table of bytes would have it; the fewest ranges, and none after all ends."""
    owners: list[Any] = [object(), object(), object()]
    budget = Budget()
    locks = FileLocks(budget, 1, 2)
    table: list[dict[int, bool]] = [{}, {}, {}]
    for who, exclusive, (start, length) in requests:
        wanted = range(start, start + length + 1)
        taken = exclusive is not None and any(
            byte in table[other] and (exclusive or table[other][byte])
            for other in range(3) if other != who for byte in wanted
        )  # fmt: skip
        request = Request(owners[who], who, exclusive, start, start + length)
        try:
            locks.set(request)
            assert not taken
        except EAGAIN:
            assert taken
            continue
        for byte in wanted:
            table[who].pop(byte, None)
            if exclusive is not None:
                table[who][byte] = exclusive
        for owner, bytes_of in zip(owners, table, strict=True):
            found = locks.records.get(owner, [])
            assert {b: r.exclusive for r in found for b in range(r.start, r.end + 1)} == bytes_of
            assert [r.start for r in found] == sorted(r.start for r in found)
            joined = sum(bytes_of.get(b - 1) is not bytes_of[b] for b in bytes_of)
            assert len(found) == joined
    for owner in owners:
        locks.release_owner(owner)
    assert budget.locks == 0 and not locks.records


def test_owner_beyond_the_ceiling_gets_no_lock_until_another_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sentry.vfs.locks.MAX_OWNERS", 2)
    locks = FileLocks(Budget(), 1, 2)
    locks.set(Request("first", 1, False, 0, 9))
    locks.set(Request("second", 2, False, 0, 9))
    with pytest.raises(ENOLCK):
        locks.set(Request("third", 3, False, 0, 9))
    locks.set(Request("second", 2, False, 20, 29))
    locks.set(Request("third", 3, None, 0, 9))
    locks.release_owner("first")
    locks.set(Request("third", 3, False, 0, 9))


def test_many_waiters_are_shown_in_small_steps() -> None:
    locks = FileLocks(Budget(), 1, 2)
    locks.set(Request("holder", 1, True, 0, 9))
    for pid in range(2, 1002):
        waiter = Waiter(Request(pid, pid, True, 0, 9), blocker="holder")
        locks.waiting[id(waiter)] = waiter
    shown = [each for each in locks.shown() if each is not None]
    assert [each[2] for each in shown[: MAX_COMPARED + 1]] == [*range(1, MAX_COMPARED + 2)]
    assert {each[2] for each in shown} == {*range(1, 1002)}
    assert max(each[0] for each in shown) == MAX_COMPARED + 1
