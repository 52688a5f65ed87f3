"""The keyrings of a task, and what an id of keyctl(2) means to it: security/keys/process_keys.c."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from sentry.abi.keyctl import (
    KEY_SPEC_PROCESS_KEYRING,
    KEY_SPEC_REQKEY_AUTH_KEY,
    KEY_SPEC_REQUESTOR_KEYRING,
    KEY_SPEC_SESSION_KEYRING,
    KEY_SPEC_THREAD_KEYRING,
    KEY_SPEC_USER_KEYRING,
    KEY_SPEC_USER_SESSION_KEYRING,
)
from sentry.errors import EACCES, EINVAL, ENOKEY, EPERM, Errno
from sentry.kernel.key_table import KeyTable, TaskKeys
from sentry.kernel.keys import (
    EVERYTHING,
    LINK,
    POSSESSOR,
    READ,
    SEARCH,
    USER,
    VIEW,
    Key,
)
from sentry.wait.again import begun
from sentry.wait.steps import Steps, driven

if TYPE_CHECKING:
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.task import Task

OWN_PERM: Final = EVERYTHING << POSSESSOR | VIEW << USER
SESSION_PERM: Final = EVERYTHING << POSSESSOR | (VIEW | READ) << USER
NAMED_PERM: Final = SESSION_PERM | LINK << USER
UNITS: Final = ((604800, "w"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def table(kernel: Kernel) -> KeyTable:
    """The keys of this sandbox, made when first asked for."""
    services = kernel.services
    if services.keys is None:
        services.keys = KeyTable(kernel)
    return services.keys


def of(task: Task) -> TaskKeys:
    """The keyrings of a task."""
    found: TaskKeys | None = task.keys
    ids = owner(task)
    if found is None:
        task.kernel.services.keys_text = show
        found = task.keys = TaskKeys(table(task.kernel).session, ids=ids)
    elif ids != found.ids:  # key_fsuid_changed()
        if found.thread is not None:
            uid, gid = found.thread.uid, found.thread.gid
            found.thread.uid = ids[0] if ids[0] != found.ids[0] else uid
            found.thread.gid = ids[1] if ids[1] != found.ids[1] else gid
        found.ids = ids
    return found


def owner(task: Task) -> tuple[int, int]:
    """Who a new key belongs to."""
    return task.creds.fsuid, task.creds.fsgid


def session_of(task: Task) -> Key:
    """The session keyring, or the user's in place of one."""
    return of(task).session or table(task.kernel).of_user(task.creds.uid)[1]


def roots_of(task: Task) -> list[Key]:
    """Where a search starts. Beside the container's session, in which nobody has logged in, the
    user's: a login would link it there (pam_keyinit)."""
    keys, mine = table(task.kernel), of(task)
    found = [mine.thread, task.group.process_keyring, session_of(task)]
    if mine.session is keys.session:
        found.append(keys.of_user(task.creds.uid)[1])
    return [root for root in found if root is not None]


def join_session(task: Task, name: bytes | None) -> Key:
    """KEYCTL_JOIN_SESSION_KEYRING: a new keyring, or one of this name that is open to the task."""
    keys = table(task.kernel)
    if name is None:
        ring = keys.keyring(b"_ses", owner(task), SESSION_PERM)
    else:
        found = (
            key
            for key in keys.named(task.creds.fsuid, name)
            if key.is_valid and key.allows(task.creds, False, SEARCH)
        )
        ring = next(found, None) or keys.keyring(name, owner(task), NAMED_PERM)
    of(task).join(ring)
    return ring


def _own(task: Task, number: int, create: bool) -> Key:
    """The keyring of a special id. Raises: ENOKEY, EINVAL."""
    keys, mine = table(task.kernel), of(task)
    if number == KEY_SPEC_THREAD_KEYRING:
        if mine.thread is None and create:
            mine.thread = keys.keyring(b"_tid", owner(task), OWN_PERM).hold()
        found = mine.thread
    elif number == KEY_SPEC_PROCESS_KEYRING:
        group = task.group
        if group.process_keyring is None and create:
            group.process_keyring = keys.keyring(b"_pid", owner(task), OWN_PERM).hold()
        found = group.process_keyring
    elif number == KEY_SPEC_SESSION_KEYRING:
        user_session = keys.of_user(task.creds.uid)[1]
        if create and mine.session in (None, user_session):
            join_session(task, None)
        elif mine.session is None:
            mine.join(user_session)
        found = mine.session
    elif number in (KEY_SPEC_USER_KEYRING, KEY_SPEC_USER_SESSION_KEYRING):
        rings = keys.of_user(task.creds.uid)
        found = rings[KEY_SPEC_USER_KEYRING - number] if not any(r.revoked for r in rings) else None
    elif number in (KEY_SPEC_REQKEY_AUTH_KEY, KEY_SPEC_REQUESTOR_KEYRING):
        found = None
    else:
        raise EINVAL(f"keyring {number}")
    if found is None:
        raise ENOKEY(f"keyring {number}")
    return found


def rings_of(task: Task, dead: bool = False) -> Iterator[Key]:
    """The keyrings that a search of the task's looks into."""
    for root in roots_of(task):
        if not (root.revoked or root.invalidated):
            yield from root.searched(task.creds, True, dead)


def found(task: Task, name: tuple[bytes, bytes]) -> Key | None:
    """search_process_keyrings_rcu(): the first of the task's keys of this name. Raises: NotNow."""
    return begun((found, name), lambda: driven(_found(task, name)))


def _found(task: Task, name: tuple[bytes, bytes]) -> Steps[Key | None]:
    for root in roots_of(task):
        if root.name == name and root.is_valid and root.allows(task.creds, True, SEARCH):
            return root
        if root.revoked or root.invalidated:
            continue
        key = yield from root.found(task.creds, True, name)
        if key is not None:
            return key
    return None


def for_requested(task: Task) -> Key:
    """Where request_key(2) puts what it makes: construct_get_dest_keyring()."""
    mine, choice = of(task), -of(task).default
    if not choice:
        return mine.thread or task.group.process_keyring or session_of(task)
    return _own(task, choice, False)


def is_possessed(task: Task, key: Key) -> bool:
    """The task can reach the key through its keyrings, be it valid or not. Raises: NotNow."""
    return begun((is_possessed, key), lambda: driven(_is_possessed(task, key)))


def _is_possessed(task: Task, key: Key) -> Steps[bool]:
    if key in roots_of(task):
        return True
    for ring in rings_of(task, True):
        if ring.links.get(key.name) is key:
            return True
        yield
    return False


def lookup(
    task: Task,
    number: int,
    needed: int,
    *,
    create: bool = False,
    valid: bool = True,
    partial: bool = False,
) -> Key:
    """lookup_user_key(): the key of an id, which allows what is needed (0: no matter).

    `partial`: it may be negative; not `valid`: that, or revoked or expired.

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
        if not partial:
            key.check_made()
    if needed:
        key.check(task.creds, possessed, needed)
    return key


def readable(task: Task, number: int) -> Key:
    """KEYCTL_READ: a key with the right to read it, or any that the task possesses.

    Raises: ENOKEY (also for a number that means nothing), EACCES.
    """
    try:
        key = lookup(task, number, 0, valid=False)
    except Errno as error:
        raise ENOKEY(str(error)) from None
    key.check_made()
    possessed = number <= 0 or is_possessed(task, key)
    if not possessed and not key.allows(task.creds, False, READ):
        raise EACCES(f"key {number}")
    return key


def give_to_parent(task: Task) -> None:
    """KEYCTL_SESSION_TO_PARENT. Raises: EPERM."""
    parent = task.group.parent
    if parent is None or len(parent.tasks) != 1:
        raise EPERM("no parent that could take it")
    other = parent.tasks[0]
    ids = {other.creds.uid, other.creds.euid, other.creds.suid}
    if ids != {task.creds.euid} or parent is parent.pids.init:
        raise EPERM("another user's parent")
    of(other).join(session_of(task))


def show(task: Task) -> Iterator[str]:
    """/proc/keys: what the reader may view, piece by piece. proc_keys_show()."""
    possessed = {root for root in roots_of(task) if root.is_valid}
    for ring in rings_of(task):
        yield ""
        for key in list(ring.links.values()):
            if key.is_valid:
                possessed.add(key)
            yield ""
    for key in table(task.kernel).in_order():
        yield _line(task, key) if key.allows(task.creds, key in possessed, VIEW) else ""


def _line(task: Task, key: Key) -> str:
    flags = f"I{'R' if key.revoked else '-'}-Q-{'N' if key.negative else '-'}-"
    uid, gid = task.creds.shown_uid(key.uid), task.creds.shown_gid(key.gid)
    kind, name = (text.decode("utf-8", "surrogateescape") for text in key.name)
    size = f": {len(key.payload)}"
    if key.is_keyring:
        size = f": {len(key.links) or 'empty'}"
    return (
        f"{key.serial:08x} {flags} {1:5} {_left(key):>4} {key.perm:08x} {uid:5} {gid:5} "
        f"{kind:<9.9} {name}{'' if key.negative else size}\n"
    )


def _left(key: Key) -> str:
    """Until it expires, in the largest unit that fits."""
    if not key.expires_ns:
        return "perm"
    seconds = (key.expires_ns - time.monotonic_ns()) // 10**9
    if seconds < 0:
        return "expd"
    size, unit = next((entry for entry in UNITS if seconds >= entry[0]), UNITS[-1])
    return f"{seconds // size}{unit}"
