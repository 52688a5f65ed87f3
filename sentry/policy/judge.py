"""`Judge`: what a call has come to, shown to the rules; `Task.judge` while the call is made.

The rooms below call it where the object is known, after their own checks and before anything has
happened: `opening` and `creating` (sentry/vfs/open.py), `walked` and `named` (sentry/vfs/walk.py),
`address` (sentry/syscalls/sockets), `runs` (sentry/loader). The object is the one that is then
used. Where somebody outside is asked, the call is made again after the answer, which counts only if
the call comes to the same object once more.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.fcntl import O_ACCMODE, O_CREAT, O_PATH, O_TRUNC, RENAME_EXCHANGE
from sentry.abi.socket import AF_INET, AF_INET6, AF_UNIX
from sentry.abi.stat import S_IFDIR, S_IFSOCK
from sentry.abi.unistd import bind, connect, renameat2
from sentry.errors import EPERM
from sentry.loader.digest import digest
from sentry.net.inet.address import (
    ANY4,
    ANY6,
    LOOPBACK4,
    LOOPBACK6,
    Endpoint,
    pack,
)  # fmt: skip
from sentry.policy.event import Event
from sentry.policy.places import path_of_file
from sentry.policy.rules import GIVES, MOUNTS, Rule, number_of
from sentry.policy.verdicts import Change
from sentry.vfs.interface import Absent
from sentry.wait.again import CURRENT, again

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.policy.layer import Layer
    from sentry.vfs.dentry import Dentry
    from sentry.vfs.location import Location
    from sentry.vfs.mount import Mount
    from sentry.vfs.open import OpenHow
    from sentry.vfs.walk import Parent

ADDRESS: Final = "policy: address"
"""Key of the address that a call was made with first."""
PROTOCOLS: Final = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp"}
_MAPPED: Final = 0xFFFF << 32
ANY: Final[dict[int | None, int]] = {
    int.from_bytes(any_, "big"): int.from_bytes(loopback, "big")
    for any_, loopback in ((ANY4, LOOPBACK4), (ANY6, LOOPBACK6))
}
"""Where a packet for a wildcard goes, as numbers."""
_WRITES: Final = O_ACCMODE | O_TRUNC
_INET, _INET6 = (family.to_bytes(2, "little") for family in (AF_INET, AF_INET6))
_IPV4, _IPV6 = struct.Struct(">HI").unpack_from, struct.Struct(">H4x16s").unpack_from


class Named:
    """A name that a call has come to."""

    __slots__ = ("is_allowed", "is_there", "path", "rules", "subject")

    def __init__(
        self, path: str, subject: tuple[Any, ...], is_there: bool, is_allowed: bool
    ) -> None:
        self.path = path
        self.subject = subject
        self.is_there = is_there
        """It is that of a Unix socket, or of a directory that may have some."""
        self.is_allowed = is_allowed
        """By a rule about names: whatever is to have, or to lose, this one."""
        self.rules: list[Rule] = []
        """About such names."""


class Judge:
    """Of one call."""

    __slots__ = ("_first", "_layer", "heads", "is_changed", "task", "values")

    def __init__(
        self, layer: Layer, task: Task, values: tuple[Any, ...], is_changed: bool
    ) -> None:
        self.task = task
        self._layer = layer
        self.values = values
        self.is_changed = is_changed
        self.heads = 0
        """The walk goes to the directory of what is meant."""
        self._first: Named | None = None
        """Of a call that gives a name the name that it has come to first."""

    def _event(self, kind: str, path: str = "") -> Event:
        event = Event(self._layer, self.task, self.values, kind)
        event.path = path
        if self.is_changed:
            event.changed = True
        return event

    # --- files

    def opening(self, location: Location, how: OpenHow) -> None:
        """An open file is about to be made of it."""
        rules = self._layer.opens
        if rules:
            mount, dentry = location
            flags = how.flags
            path = path_of_file(self.task, mount, dentry)
            asked = [
                rule for rule in rules if rule.path is None or rule.path.fullmatch(path) is not None
            ]
            if asked:
                event = Event(self._layer, self.task, self.values, "open")
                event.path, event.flags = path, flags
                if self.is_changed:
                    event.changed = True
                if flags & _WRITES and not flags & O_PATH:
                    event.writes = True
                self._layer.decide(self.task, asked, event, (mount, dentry, dentry.inode, path))

    def creating(self, directory: Location, name: bytes, how: OpenHow) -> None:
        """A file is about to be made, and opened."""
        rules = self._layer.opens
        if rules:
            mount, dentry = directory
            path = path_of_file(self.task, mount, dentry, name)
            asked = [rule for rule in rules if rule.is_for_path(path)]
            if asked:
                event = self._event("open", path)
                event.flags = how.flags | O_CREAT
                event.writes = event.creates = True
                self._layer.decide(self.task, asked, event, (mount, dentry, name, path))

    def walked(self, mount: Mount, dentry: Dentry) -> None:
        """A path has led there."""
        if self.heads:
            return
        if self._layer.paths or self._layer.gives:
            self._path(mount, dentry, b"")
        elif self._layer.addresses:
            self._unix(path_of_file(self.task, mount, dentry), (mount, dentry))

    def named(self, parent: Parent) -> None:
        """A path has led to a directory and a name in it."""
        mount, dentry = parent.at
        if self._layer.paths or self._layer.gives:
            self._path(mount, dentry, parent.last)
        elif self._layer.addresses:
            path = path_of_file(self.task, mount, dentry, parent.last)
            self._unix(path, (mount, dentry, parent.last))

    def _path(self, mount: Mount, dentry: Dentry, name: bytes) -> None:
        layer = self._layer
        path = path_of_file(self.task, mount, dentry, name)
        subject = mount, dentry, name, path
        self._decide([rule for rule in layer.paths if rule.is_for_path(path)], subject)
        if not layer.gives:
            return
        names = [rule for rule in layer.names if rule.is_for_name(path)]
        is_allowed = self._decide(names, subject) is not None
        mounts = layer.declaration.name in MOUNTS
        for family in layer.families:  # what may be opened may not be connected to yet
            if family[0].kind != "address" and not is_allowed:
                self._decide([
                    rule for rule in family
                    if rule.is_for_name(path) and (rule.path is not None or not mounts)
                ], subject)  # fmt: skip
        sockets = [rule for rule in layer.gives if rule.kind == "address"]
        if sockets:
            named = Named(path, subject, _may_be_socket(dentry, name), is_allowed)
            self._socket(sockets, named, mounts)

    def _socket(self, rules: list[Rule], named: Named, mounts: bool) -> None:
        """A name that a Unix socket may have, or get. That it may be connected to gives it to no
        socket whose own name may not."""
        named.rules = [rule for rule in rules if rule.path and rule.is_for_name(named.path)]
        if named.is_there and not named.is_allowed:
            for rule in named.rules:
                self._decide([rule], named.subject)
        first, self._first = self._first, named
        if first is None or mounts:
            return
        exchanges = self._layer.number == renameat2 and self.values[-1] & RENAME_EXCHANGE
        for old, new in ((first, named), (named, first))[: 2 if exchanges else 1]:
            if old.is_there and new.rules and not (new.is_allowed or old.rules):
                family = frozenset().union(*(rule.family for rule in new.rules))
                asked = [rule for rule in rules if not rule.path and rule.family & family]
                self._decide(asked, old.subject)

    def _decide(self, rules: list[Rule], subject: tuple[Any, ...]) -> object:
        """About a name, the last of the subject; None: nothing was said."""
        if not rules:
            return None
        event = self._event("path", subject[-1])
        event.writes = self._layer.declaration.name in GIVES
        return self._layer.decide(self.task, rules, event, subject)

    def layered(self, mount: Mount, dentry: Dentry) -> None:
        """It is to be a layer: all that is below it gets another name. Rules about names below have
        been asked by `walked`, but for the root, which other mounts leave as it is."""
        path = path_of_file(self.task, mount, dentry)
        asked = [
            rule for rule in self._layer.gives
            if rule.kind != "address" and (rule.path is None or path == "/")
        ]  # fmt: skip
        if asked:
            event = self._event("path", path)
            event.writes = True
            self._layer.decide(self.task, asked, event, (mount, dentry, path))

    # --- programs

    async def runs(self, file: Any, argv: list[bytes]) -> None:
        """A program, an interpreter or a loader is about to run; nobody may write to it."""
        layer, location = self._layer, file.location
        path = path_of_file(self.task, location.mount, location.dentry)
        asked = [rule for rule in layer.runs if rule.is_for_path(path)]
        if not asked:
            return
        event = self._event("exec", path)
        event.argv = [word.decode(errors="surrogateescape") for word in argv]
        if any(rule.hashes for rule in asked):
            event.hash = (await digest(self.task, file)).hex()
            asked = [rule for rule in asked if not rule.hashes or event.hash in rule.hashes]
        await again(layer.decide, self.task, asked, event, (file, path))

    # --- addresses

    def address(self, sock: Any, raw: bytes) -> bytes:
        """An address that was copied from the program's memory; what is used instead."""
        if not self._layer.addresses:
            return raw
        known: bytes | None = None
        if CURRENT.call is not None:
            known = CURRENT.call.answers.get(ADDRESS)
            raw = known or raw
        change = self._judged(sock, raw, known or raw, self.is_changed)
        if not isinstance(change, Change):
            return raw
        changed = _changed(sock, raw, change)
        self._judged(sock, changed, known or raw, True)
        return changed

    def _judged(self, sock: Any, raw: bytes, first: bytes, is_changed: bool) -> object:
        layer = self._layer
        if sock.family == AF_UNIX:
            if raw[2:3] != b"\0":
                return None  # a path, which `walked` shows
            number, port, protocol = None, 0, ""
            unix = "@" + raw[3:].decode(errors="surrogateescape")
        else:
            if layer.number == connect and raw[:2] == b"\0\0":
                return None  # the end of a connection
            unix = ""
            number, port = number_and_port(sock.family, raw)
            if number in ANY and layer.number != bind:
                number = ANY[number]
            protocol = PROTOCOLS.get(sock.protocol) or str(sock.protocol)
        asked = [
            rule for rule in layer.addresses if is_for_address(rule, number, port, protocol, unix)
        ]
        if not asked:
            return None
        event = Event(layer, self.task, self.values, "address")
        event.protocol = protocol
        if number is not None:
            event.number, event.port = number, port
        else:
            event.unix, event.raw_family = unix, raw[:2]
        if is_changed:
            event.changed = True
        subject = ADDRESS, raw, sock.family, protocol
        return layer.decide(self.task, asked, event, subject, (ADDRESS, first))

    def _unix(self, path: str, subject: tuple[Any, ...]) -> None:
        asked = [
            rule for rule in self._layer.addresses if is_for_address(rule, None, 0, "", path)
        ]
        if asked:
            event = self._event("address", path)
            event.unix = path
            self._layer.decide(self.task, asked, event, (*subject, path))


def _may_be_socket(dentry: Dentry, name: bytes) -> bool:
    """Whether an object is a Unix socket, or such may be below it."""
    inode = dentry.inode if not name else dentry.inode.lookup_cached(name)
    if isinstance(inode, Absent):
        return False
    return inode is None or inode.kind in (S_IFSOCK, S_IFDIR)


def is_for_address(rule: Rule, number: int | None, port: int, protocol: str, unix: str) -> bool:
    """Of an address: of IP, or the name of a Unix socket."""
    for ports in rule.ports:
        if port in ports:
            break
    else:
        if rule.ports:
            return False
    if rule.protocols and protocol not in rule.protocols:
        return False
    if rule.path is not None and not (unix and rule.is_for_path(unix)):
        return False
    if not rule.networks:
        return True
    return number is not None and any(number & mask == base for base, mask in rule.networks)


def number_and_port(family: int, raw: bytes) -> tuple[int | None, int]:
    """Of an address of IP that a socket of a family is given, as of IPv6; else (None, 0)."""
    given = raw[:2]
    if family not in (AF_INET, AF_INET6) or len(raw) < 16:
        return None, 0
    none = b"\0\0"  # AF_UNSPEC is the socket's own family, but for connect(2)
    if given == _INET or (given == none and family == AF_INET):
        port, ipv4 = _IPV4(raw, 2)
        return _MAPPED | ipv4, port
    if given in (_INET6, none) and family == AF_INET6 and len(raw) >= 24:
        port, ip = _IPV6(raw, 2)
        return int.from_bytes(ip, "big"), port
    return None, 0


def _changed(sock: Any, raw: bytes, change: Change) -> bytes:
    """The address that a handler wants instead. Raises: EPERM, if there is none such."""
    number, port = number_and_port(sock.family, raw)
    asked = dict(change.arguments)
    if number is None or asked.keys() - {"address", "port"}:
        raise EPERM("policy: of an address of IP, `address` and `port` can be changed")
    if "port" in asked:
        port = asked["port"]
        if type(port) is not int or not 0 <= port < 65536:
            raise EPERM("policy: no port")
    if "address" in asked:
        try:
            number = number_of(str(asked["address"]))
        except OSError:
            raise EPERM("policy: no address") from None
    if sock.family == AF_INET and number >> 32 != 0xFFFF:
        raise EPERM("policy: a socket of IPv4 has no address of IPv6")
    return pack(Endpoint(number.to_bytes(16, "big"), port), sock.family)
