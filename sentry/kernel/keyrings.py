"""The keyrings of a task, and what an id of keyctl(2) means to it: security/keys/process_keys.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.errors import EACCES, EINVAL, ENOKEY, EPERM
from sentry.kernel.keys import (
    EVERYTHING,
    LINK,
    POSSESSOR,
    READ,
    SEARCH,
    USER,
    VIEW,
    Key,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.kernel.task import Task

THREAD, PROCESS, SESSION, USER_RING, USER_SESSION = -1, -2, -3, -4, -5
AUTHORISATION, REQUESTOR = -7, -8
OWN_PERM: Final = EVERYTHING << POSSESSOR | VIEW << USER
SESSION_PERM: Final = EVERYTHING << POSSESSOR | (VIEW | READ) << USER
NAMED_PERM: Final = SESSION_PERM | LINK << USER


class TaskKeys:
    """The keyrings that belong to a thread alone or to its session."""

    __slots__ = ("default", "session", "thread")

    def __init__(self, session: Key | None = None, default: int = 0) -> None:
        self.session = session
        self.thread: Key | None = None
        self.default = default
        """KEYCTL_SET_REQKEY_KEYRING."""

    def for_child(self) -> TaskKeys:
        """What clone(2) and execve(2) leave: the session."""
        return TaskKeys(self.session, self.default)


def of(task: Task) -> TaskKeys:
    """The keyrings of a task."""
    found: TaskKeys | None = task.keys
    if found is None:
        found = task.keys = TaskKeys()
    return found


def owner(task: Task) -> tuple[int, int]:
    """Who a new key belongs to."""
    return task.creds.fsuid, task.creds.fsgid


def session_of(task: Task) -> Key:
    """The session keyring, or the user's in place of one."""
    return of(task).session or table(task.kernel).of_user(task.creds.uid)[1]


def join_session(task: Task, name: bytes | None) -> Key:
    """KEYCTL_JOIN_SESSION_KEYRING: a new keyring, or one of this name that is open to the task."""
    keys = table(task.kernel)
    if name is None:
        ring = keys.keyring(b"_ses", owner(task), SESSION_PERM)
    else:
        found = [
            key
            for key in keys.all()
            if key.is_keyring and key.description == name and key.is_valid
            and key.uid == task.creds.fsuid and key.allows(task.creds, False, SEARCH)
        ]  # fmt: skip
        ring = found[0] if found else keys.keyring(name, owner(task), NAMED_PERM)
    of(task).session = ring
    return ring


def _own(task: Task, number: int, create: bool) -> Key:
    """The keyring of a special id. Raises: ENOKEY, EINVAL."""
    keys, mine = table(task.kernel), of(task)
    if number == THREAD:
        if mine.thread is None and create:
            mine.thread = keys.keyring(b"_tid", owner(task), OWN_PERM)
        found = mine.thread
    elif number == PROCESS:
        found = keys.processes.get(task.group)
        if found is None and create:
            found = keys.processes[task.group] = keys.keyring(b"_pid", owner(task), OWN_PERM)
    elif number == SESSION:
        user_session = keys.of_user(task.creds.uid)[1]
        if create and mine.session in (None, user_session):
            join_session(task, None)
        elif mine.session is None:
            mine.session = user_session
        found = mine.session
    elif number in (USER_RING, USER_SESSION):
        found = keys.of_user(task.creds.uid)[USER_RING - number]
    elif number in (AUTHORISATION, REQUESTOR):
        found = None
    else:
        raise EINVAL(f"keyring {number}")
    if found is None:
        raise ENOKEY(f"keyring {number}")
    return found


def reachable(task: Task) -> Iterator[Key]:
    """All keys that a search of the task's keyrings comes to, these first."""
    roots = [of(task).thread, table(task.kernel).processes.get(task.group), session_of(task)]
    for root in roots:
        if root is not None and root.is_valid:
            yield root
            yield from root.below(task.creds, True)


def is_possessed(task: Task, key: Key) -> bool:
    """The task can reach the key through its keyrings."""
    return any(found is key for found in reachable(task))


def lookup(
    task: Task, number: int, needed: int, *, create: bool = False, valid: bool = True
) -> Key:
    """lookup_user_key(): the key of an id, which allows what is needed (0: no matter).

    Raises: EINVAL, ENOKEY, EKEYREVOKED, EKEYEXPIRED, EACCES.
    """
    if number > 0:
        key = table(task.kernel).find(number)
        possessed = is_possessed(task, key)
    else:
        key = _own(task, number, create)
        possessed = True
    if valid:
        key.check_valid()
    if needed:
        key.check(task.creds, possessed, needed)
    return key


def readable(task: Task, number: int) -> Key:
    """KEYCTL_READ: a key with the right to read it, or any that the task possesses."""
    key = lookup(task, number, 0)
    if not key.allows(task.creds, False, READ) and not is_possessed(task, key):
        raise EACCES(f"key {number}")
    return key


def give_to_parent(task: Task) -> None:
    """KEYCTL_SESSION_TO_PARENT. Raises: EPERM."""
    parent = task.group.parent
    if parent is None or len(parent.tasks) != 1:
        raise EPERM("no parent that could take it")
    other = parent.tasks[0]
    ids = {other.creds.uid, other.creds.euid, other.creds.suid}
    if ids != {task.creds.euid} or parent is task.kernel.init:
        raise EPERM("another user's parent")
    of(other).session = session_of(task)
