"""Keys and keyrings: keyrings(7). What they are, who may do what with them, how they are searched.

A key lives as long as a keyring, or a process as one of its own keyrings, holds it (`users`), and
goes at once with the last. Rights are
judged by the owner's, the group's or everybody's bits, and besides by the possessor's for who can
reach the key through his keyrings: security/keys/permission.c.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Final, Protocol

from sentry.errors import (
    EACCES,
    EDEADLK,
    EINVAL,
    EKEYEXPIRED,
    EKEYREVOKED,
    ELOOP,
    ENOKEY,
    ENOTDIR,
    EPERM,
)
from sentry.wait.again import begun
from sentry.wait.lock import Lock
from sentry.wait.steps import Steps, driven

if TYPE_CHECKING:
    from sentry.auth.credentials import Credentials

VIEW, READ, WRITE, SEARCH, LINK, SETATTR = 1, 2, 4, 8, 16, 32
EVERYTHING: Final = 0x3F
ALL_PERMS: Final = 0x3F3F3F3F
POSSESSOR, USER, GROUP = 24, 16, 8
"""Where the bits of each of them begin; others' at 0."""
KEYRING: Final = b"keyring"
PAYLOAD_MAX: Final = {b"user": 32767, b"logon": 32767}
"""The types that hold bytes."""
LINK_SIZE: Final = 4
"""KEYQUOTA_LINK_BYTES: what a link costs the owner of the keyring."""
MAX_DEPTH: Final = 6
NO_GROUP: Final = 65534


class Table(Protocol):
    """All keys: sentry.kernel.key_table."""

    linking: Lock
    """Of who puts keyrings into others: keyring_serialise_link_lock."""

    def enlist(self, key: Key) -> None: ...
    def strike_off(self, key: Key) -> None: ...
    def count(self, key: Key, sign: int) -> None: ...
    def reserve(self, key: Key, more: int) -> None: ...
    def let_go(self, keys: Collection[Key], end: Callable[[Key], object]) -> None: ...


class Key:
    """A key; a keyring has `links`, all others a `payload`."""

    __slots__ = (
        "_table", "_uid", "description", "expires_ns", "gid", "holders", "invalidated", "links",
        "name", "negative", "payload", "perm", "restricted", "revoked", "rings", "serial", "type",
        "users",
    )  # fmt: skip

    def __init__(
        self, kind: bytes, description: bytes, owner: tuple[int, int], perm: int, payload: bytes
    ) -> None:
        self._table: Table | None = None
        """Where it is found by its serial, from `enter` until its end."""
        self.users = 0
        """Keyrings and processes that hold it."""
        self.serial = 0
        self.type = kind
        self.description = description
        self.name = kind, description
        """What tells it from others in a keyring."""
        self._uid, self.gid = owner
        self.perm = perm
        self.payload = payload
        self.links: dict[tuple[bytes, bytes], Key] = {}
        self.rings: dict[tuple[bytes, bytes], Key] = {}
        """The keyrings among them."""
        self.holders: dict[Key, None] = {}
        """The keyrings that hold it."""
        self.expires_ns = 0
        self.revoked = False
        self.invalidated = False
        self.negative = False
        """request_key(2) asked for it and nobody made it: there is no payload."""
        self.restricted = False
        """KEYCTL_RESTRICT_KEYRING: nothing more can be linked."""

    @property
    def uid(self) -> int:
        """Whom it belongs to, and whom it is counted for."""
        return self._uid

    @uid.setter
    def uid(self, uid: int) -> None:
        table = self._table
        if table is not None:
            table.count(self, -1)
        self._uid = uid
        if table is not None:
            table.count(self, 1)

    @property
    def size(self) -> int:
        """What it costs its owner."""
        return len(self.payload) + len(self.description) + 1 + LINK_SIZE * len(self.links)

    @property
    def is_keyring(self) -> bool:
        """It holds other keys."""
        return self.type == KEYRING

    def check_keyring(self) -> None:
        """Raises: ENOTDIR."""
        if not self.is_keyring:
            raise ENOTDIR(f"key {self.serial} is no keyring")

    def check_valid(self) -> None:
        """key_validate(). Raises: ENOKEY, EKEYREVOKED, EKEYEXPIRED."""
        if self.invalidated:
            raise ENOKEY(f"key {self.serial} is invalidated")
        if self.revoked:
            raise EKEYREVOKED(f"key {self.serial}")
        if self.expires_ns and time.monotonic_ns() >= self.expires_ns:
            raise EKEYEXPIRED(f"key {self.serial}")

    def check_made(self) -> None:
        """Raises: ENOKEY for a negative key."""
        if self.negative:
            raise ENOKEY(f"key {self.serial} is negative")

    @property
    def is_valid(self) -> bool:
        """Neither gone, nor revoked, nor expired."""
        expired = self.expires_ns and time.monotonic_ns() >= self.expires_ns
        return not (self.invalidated or self.revoked or expired)

    def allows(self, creds: Credentials, possessed: bool, needed: int) -> bool:
        """key_task_permission()."""
        if self.uid == creds.fsuid:
            bits = self.perm >> USER
        elif self.gid != NO_GROUP and self.perm >> GROUP & EVERYTHING and creds.in_group(self.gid):
            bits = self.perm >> GROUP
        else:
            bits = self.perm
        if possessed:
            bits |= self.perm >> POSSESSOR
        return not needed & ~bits

    def check(self, creds: Credentials, possessed: bool, needed: int) -> None:
        """Raises: EACCES."""
        if not self.allows(creds, possessed, needed):
            raise EACCES(f"key {self.serial}")

    def describe(self, reader: Credentials) -> bytes:
        """KEYCTL_DESCRIBE, with its NUL."""
        return b"%s;%d;%d;%08x;%s\0" % (
            self.type, reader.shown_uid(self.uid), reader.shown_gid(self.gid), self.perm,
            self.description,
        )  # fmt: skip

    def update(self, payload: bytes) -> None:
        """Another payload; it makes a negative key a real one, and does not expire.

        Raises: EDQUOT.
        """
        self._reserve(len(payload) - len(self.payload))
        self.payload = payload
        self.negative = False
        self.expires_ns = 0

    def _reserve(self, more: int) -> None:
        if self._table is not None:
            self._table.reserve(self, more)

    def contents(self) -> bytes:
        """KEYCTL_READ: bytes, or the serials of a keyring."""
        if not self.is_keyring:
            return self.payload
        return array("I", [key.serial for key in self.links.values()]).tobytes()

    # Its life ------------------------------------------------------------------------------------

    def enter(self, table: Table) -> None:
        """It is found by its serial from now on."""
        self._table = table
        table.enlist(self)

    def hold(self) -> Key:
        """One user more."""
        self.users += 1
        return self

    def drop(self) -> None:
        """One less: the last takes it, and what it alone holds."""
        self.users -= 1
        if not self.users:
            table = self._table
            self.leave()
            self.empty(table)

    def leave(self) -> None:
        """It is not found any more."""
        if self._table is not None:
            self._table.strike_off(self)
            self._table = None

    # Links ---------------------------------------------------------------------------------------

    def link(self, key: Key) -> None:
        """Hold another key; one of the same name gives way.

        Raises: ENOTDIR, EPERM, EDEADLK, ELOOP, EDQUOT; NotNow, where keyrings lie in the key.
        """
        self.check_keyring()
        if self.restricted:
            raise EPERM("a restricted keyring")
        if key.is_keyring:
            if key is self:
                raise EDEADLK("a keyring in itself")
            if self._table is not None:
                with self._table.linking:
                    self._check_depth(key)
        is_new = key.name not in self.links
        if is_new:
            self._reserve(LINK_SIZE)
        key.hold()
        if not is_new:
            self._take_out(key.name)
        self.links[key.name] = key
        if key.is_keyring:
            self.rings[key.name] = key
        key.holders[self] = None

    def _check_depth(self, key: Key) -> None:
        """Preconditions: nobody else links keyrings until it is done."""
        if key.rings:
            depth = begun((_height, key, self), lambda: driven(_height(key, self, {})))
            if depth > MAX_DEPTH:
                raise ELOOP("keyrings in keyrings")

    def unlink(self, name: tuple[bytes, bytes]) -> None:
        """Hold this one no more."""
        self._reserve(-LINK_SIZE)
        self._take_out(name)

    def _take_out(self, name: tuple[bytes, bytes]) -> None:
        key = self.links.pop(name)
        self.rings.pop(name, None)
        key.holders.pop(self, None)
        key.drop()

    def empty(self, table: Table | None = None) -> None:
        """Hold nothing. Many are let go of in their turn: keyring_clear() leaves that to RCU."""
        self._reserve(-LINK_SIZE * len(self.links))
        links, self.links, self.rings = self.links, {}, {}
        table = table or self._table
        if table is not None:
            table.let_go(links.values(), self._dropped)

    def _dropped(self, key: Key) -> None:
        if self.links.get(key.name) is not key:
            key.holders.pop(self, None)
        key.drop()

    def searched(self, creds: Credentials, possessed: bool, dead: bool = False) -> Iterator[Key]:
        """The keyrings that a search looks into, this one first; `dead`: also those that have
        expired.

        A keyring that lies in many others is looked into once, and again only where it lies
        higher: the ways to it are as many as the product of all breadths.
        """
        return self._searched({}, 0, creds, possessed, dead)

    def _searched(
        self, depths: dict[Key, int], depth: int, creds: Credentials, possessed: bool, dead: bool
    ) -> Iterator[Key]:
        if depth > MAX_DEPTH or not self.is_keyring or depths.get(self, depth + 1) <= depth:
            return
        depths[self] = depth
        if not self.allows(creds, possessed, SEARCH):
            return
        yield self
        for key in list(self.rings.values()):
            if (dead or key.is_valid) and not (key.revoked or key.invalidated):
                yield from key._searched(depths, depth + 1, creds, possessed, dead)

    def found(
        self, creds: Credentials, possessed: bool, name: tuple[bytes, bytes]
    ) -> Steps[Key | None]:
        """The first of this name that is valid and may be found."""
        for ring in self.searched(creds, possessed):
            key = ring.links.get(name)
            if key is not None and key.is_valid and key.allows(creds, possessed, SEARCH):
                return key
            yield
        return None


def _height(key: Key, forbidden: Key, known: dict[Key, int]) -> Steps[int]:
    """How deep the keyrings in a keyring go. Raises: EDEADLK if `forbidden` is among them."""
    if key is forbidden:
        raise EDEADLK("a keyring in itself")
    if key not in known:
        yield
        highest = 0
        for inner in list(key.rings.values()):
            highest = max(highest, (yield from _height(inner, forbidden, known)))
        known[key] = 1 + highest
    return known[key]


def default_perm(kind: bytes) -> int:
    """key_create_or_update(): what the type can do, for the possessor; the owner may look."""
    possessor = VIEW | SEARCH | LINK | SETATTR | WRITE
    if kind != b"logon":
        possessor |= READ
    return possessor << POSSESSOR | VIEW << USER


def check_name(kind: bytes, description: bytes) -> None:
    """What a new key needs, with the vet_description of its type. Raises: EINVAL."""
    if not description:
        raise EINVAL("no description")
    if kind == b"logon" and description.find(b":") < 1:
        raise EINVAL("a logon key's name has a prefix")


def check_payload(kind: bytes, payload: bytes) -> None:
    """The preparse of a type. Raises: EINVAL."""
    if kind == KEYRING:
        if payload:
            raise EINVAL("a keyring has no payload")
    elif not 0 < len(payload) <= PAYLOAD_MAX[kind]:
        raise EINVAL(f"{len(payload)} bytes of payload")
