"""All keys of a sandbox, what each user has of them, and the keyrings of a task: keyrings(7).

Names, serials and quotas are kept as keys come, change and go: nothing looks at all of them.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any, Final

from sentry.errors import EDQUOT, ENOKEY
from sentry.fs.proc.sysctl import get_sysctl
from sentry.kernel.keys import (
    EVERYTHING,
    KEYRING,
    NO_GROUP,
    POSSESSOR,
    READ,
    SETATTR,
    USER,
    VIEW,
    Key,
)
from sentry.wait.lock import Lock

if TYPE_CHECKING:
    from sentry.fs.kernel import Kernel

MAX_KEYS_ALL: Final = 1 << 14
"""Of the sandbox, whatever kernel.keys.* says."""


class KeyTable:
    """All keys of a sandbox by serial, and the keyrings of its users."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.linking = Lock()
        self._keys: dict[int, Key] = {}
        self._serials: list[int] = []
        """In order."""
        self._used: dict[int, tuple[int, int]] = {}
        """The keys of a user, and their bytes."""
        self._rings: dict[tuple[int, bytes], dict[Key, None]] = {}
        """Keyrings by their owner and description."""
        self.users: dict[int, tuple[Key, Key]] = {}
        """uid to (user keyring, user session keyring)."""
        self.persistent: dict[int, Key] = {}
        self._session: Key | None = None

    def find(self, serial: int) -> Key:
        """Raises: ENOKEY."""
        key = self._keys.get(serial)
        if key is None:
            raise ENOKEY(f"key {serial}")
        return key

    def named(self, uid: int, description: bytes) -> Iterator[Key]:
        """The keyrings of a user with this description, the oldest first."""
        return iter(self._rings.get((uid, description), ()))

    def in_order(self) -> Iterator[Key]:
        """All by serial, as they are when it is their turn: key_serial_next()."""
        at = 0
        while (place := bisect_right(self._serials, at)) < len(self._serials):
            at = self._serials[place]
            yield self._keys[at]

    def enlist(self, key: Key) -> None:
        """A key that has its serial."""
        self._keys[key.serial] = key
        insort(self._serials, key.serial)
        self.count(key, 1)

    def strike_off(self, key: Key) -> None:
        """It is found no more, and costs nothing."""
        del self._keys[key.serial]
        del self._serials[bisect_left(self._serials, key.serial)]
        self.count(key, -1)

    def count(self, key: Key, sign: int) -> None:
        """It is (1) or is not (-1) that user's, as it is now."""
        keys, size = self.used(key.uid)
        keys += sign
        if keys:
            self._used[key.uid] = keys, size + sign * key.size
        else:
            del self._used[key.uid]
        if key.is_keyring:
            name = key.uid, key.description
            rings = self._rings.setdefault(name, {})
            if sign > 0:
                rings[key] = None
            else:
                del rings[key]
            if not rings:
                del self._rings[name]

    def reserve(self, key: Key, more: int) -> None:
        """It grows by so many bytes, or shrinks: key_payload_reserve(). Raises: EDQUOT."""
        keys, used = self.used(key.uid)
        if more > 0 and used + more > self.quota(key.uid)[1]:
            raise EDQUOT(f"bytes of keys of user {key.uid}")
        self._used[key.uid] = keys, used + more

    def let_go(self, keys: Collection[Key], end: Callable[[Key], object]) -> None:
        """Of those that a keyring held."""
        self._kernel.vfs.leftovers.begin(keys, end)

    def add(self, key: Key) -> Key:
        """Give a new key its serial; it lasts if it is held now. Raises: EDQUOT."""
        keys, used = self.used(key.uid)
        most_keys, most_bytes = self.quota(key.uid)
        if len(self._keys) >= MAX_KEYS_ALL or keys >= most_keys or used + key.size > most_bytes:
            raise EDQUOT(f"keys of user {key.uid}")
        while key.serial < 3 or key.serial in self._keys:
            key.serial = int.from_bytes(os.urandom(4)) >> 1
        key.enter(self)
        return key

    def add_to(self, ring: Key, key: Key) -> None:
        """A new key into a keyring. Raises: EDQUOT, and what `link` does."""
        self.add(key).hold()
        try:
            ring.link(key)
        finally:
            key.drop()

    def used(self, uid: int) -> tuple[int, int]:
        """A user's keys and their bytes."""
        return self._used.get(uid, (0, 0))

    def quota(self, uid: int) -> tuple[int, int]:
        """How many keys and bytes a user may have."""
        prefix = "" if uid else "root_"
        keys, size = (
            int(get_sysctl(self._kernel, f"kernel/keys/{prefix}{name}"))
            for name in ("maxkeys", "maxbytes")
        )
        return keys, size

    def show_users(self, reader: Any) -> Iterator[str]:
        """/proc/key-users, for a task, piece by piece: proc_key_users_show()."""
        counts: Counter[int] = Counter()
        sizes: Counter[int] = Counter()
        for key in self.in_order():
            counts[key.uid] += 1
            sizes[key.uid] += key.size
            yield ""
        for uid, keys in sorted(counts.items()):
            most_keys, most_bytes = self.quota(uid)
            yield (
                f"{reader.creds.shown_uid(uid):5}: {keys:5} {keys}/{keys} "
                f"{keys}/{most_keys} {sizes[uid]}/{most_bytes}\n"
            )

    def keyring(self, description: bytes, owner: tuple[int, int], perm: int) -> Key:
        """A new keyring. Raises: EDQUOT."""
        return self.add(Key(KEYRING, description, owner, perm, b""))

    @property
    def session(self) -> Key:
        """What the processes of the container begin with, as its runtime sets it up."""
        if self._session is None:
            perm = EVERYTHING << POSSESSOR | (VIEW | READ) << USER
            self._session = self.keyring(b"_ses", (0, 0), perm).hold()
        return self._session

    def invalidate(self, key: Key) -> None:
        """It is found no more, and disappears from all keyrings: key_garbage_collector()."""
        key.invalidated = True
        key.empty()
        key.leave()

        def unlink(ring: Key) -> None:
            if ring.links.get(key.name) is key:
                ring.unlink(key.name)

        self.let_go(list(key.holders), unlink)

    def of_user(self, uid: int) -> tuple[Key, Key]:
        """The keyrings of a user, made when first asked for: install_user_keyrings()."""
        found = self.users.get(uid)
        if found is None or any(ring.invalidated for ring in found):
            perm = (EVERYTHING & ~SETATTR) << POSSESSOR | EVERYTHING << USER
            own = self.keyring(b"_uid.%d" % uid, (uid, NO_GROUP), perm)
            session = self.keyring(b"_uid_ses.%d" % uid, (uid, NO_GROUP), perm)
            session.link(own)
            for ring in found or ():
                ring.drop()
            found = self.users[uid] = own.hold(), session.hold()
        return found


class TaskKeys:
    """The keyrings that belong to a thread alone or to its session."""

    __slots__ = ("default", "ids", "session", "thread")

    def __init__(
        self, session: Key | None = None, default: int = 0, ids: tuple[int, int] = (0, 0)
    ) -> None:
        self.session = session.hold() if session is not None else None
        self.thread: Key | None = None
        self.ids = ids
        """fsuid and fsgid when the thread keyring was last looked for."""
        self.default = default
        """KEYCTL_SET_REQKEY_KEYRING."""

    def for_child(self) -> TaskKeys:
        """What clone(2) and execve(2) leave: the session."""
        return TaskKeys(self.session, self.default, self.ids)

    def join(self, session: Key) -> None:
        """Another session."""
        old, self.session = self.session, session.hold()
        if old is not None:
            old.drop()

    def release(self) -> None:
        """The task has ended, or begins anew: nothing is held."""
        for ring in (self.session, self.thread):
            if ring is not None:
                ring.drop()
        self.session = self.thread = None
