"""The container's user namespace on the host: linux.uidMappings, or one that is joined.

The stand-in is in it, and the Gofer enters it when its trees are open: so the host's kernel
translates the owners of files both ways, and the Gofer may touch no file of others' ids than those
that are mapped. The Sentry stays nobody of the host. user_namespaces(7).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from runsc import host
from runsc.errors import RuntimeFailure, why
from sentry.abi.sched import CLONE_NEWUSER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runsc.oci.exports import Export, Users
    from sentry.config import Extents


class Entrance(Struct, frozen=True):
    """How one comes in: the namespace, open, and who one is there."""

    fd: int
    uid: int
    gid: int


def settle(pid: int, users: Users) -> tuple[Extents, Extents]:
    """Map the ids of a process that waits in a new namespace; what the maps are. Raises: OSError.

    A namespace that was joined has them.
    """
    for name, extents in (("uid_map", users.uids), ("gid_map", users.gids)):
        if not users.path:
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
                file.write("".join(f"{a} {b} {count}\n" for a, b, count in extents))
    return read(pid, "uid_map"), read(pid, "gid_map")


def read(pid: int, name: str) -> Extents:
    """A map, as this process sees it."""
    with open(f"/proc/{pid}/{name}", encoding="ascii") as file:
        rows = [line.split() for line in file]
    return tuple((int(a), int(b), int(count)) for a, b, count in rows)


def with_owners(exports: Sequence[Export]) -> tuple[Export, ...]:
    """Exports of idmapped mounts with their namespaces, open. Raises: RuntimeFailure.

    Preconditions: one thread.
    """
    return tuple(
        replace(export, owners_fd=_namespace(export.owners)) if export.owners else export
        for export in exports
    )


def _namespace(users: Users) -> int:
    """A user namespace with these maps, in which nobody is."""
    try:
        if users.path:
            return os.open(users.path, os.O_RDONLY | os.O_CLOEXEC)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        pid = host.spawn(CLONE_NEWUSER)
        if not pid:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        os.close(reader)
        try:
            settle(pid, users)
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(writer)
            os.waitpid(pid, 0)
    except OSError as error:
        raise RuntimeFailure(f"owners of an idmapped mount: {why(error)}") from None


def root_of(extents: Extents) -> int:
    """Root, or who comes first where there is none."""
    if any(first == 0 for first, _, _ in extents):
        return 0
    return min(first for first, _, _ in extents)


def enter(entrance: Entrance) -> None:
    """Preconditions: one thread; CAP_SYS_ADMIN over it. All capabilities in it are ours then."""
    host.setns(entrance.fd, CLONE_NEWUSER)
    os.close(entrance.fd)
    become(entrance.uid, entrance.gid)


def become(uid: int, gid: int) -> None:
    """Be somebody of the namespace."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
