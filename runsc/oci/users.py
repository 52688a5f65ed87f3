"""linux.uidMappings and gidMappings: which ids of the host those of the container are.

config-linux.md, "User namespace mappings"; user_namespaces(7) has the bounds.
"""

from __future__ import annotations

import os
from itertools import pairwise

from runsc.errors import SpecError
from runsc.oci import spec
from runsc.oci.exports import Users
from sentry.config import Extents

MAX_EXTENTS = 340
"""Lines of /proc/PID/uid_map: UID_GID_MAP_MAX_EXTENTS."""
LAST_ID = (1 << 32) - 2


def of(linux: spec.Linux) -> Users:
    """What the maps say. Raises: SpecError."""
    found = [each for each in linux.namespaces or [] if each.type == "user"]
    if not found:
        text = "User namespace mappings specified, but USER namespace isn't enabled in the config"
        raise SpecError("$.linux.uidMappings", text)
    if found[0].path:  # the maps are those of the namespace that is there
        return Users(path=found[0].path)
    uids = _extents(linux.uid_mappings or [], "$.linux.uidMappings")
    gids = _extents(linux.gid_mappings or [], "$.linux.gidMappings")
    if os.geteuid():
        _check_own(uids, os.geteuid(), "$.linux.uidMappings")
        _check_own(gids, os.getegid(), "$.linux.gidMappings")
    return Users(uids, gids)


def of_mount(mount: spec.Mount, container: Users | None, path: str) -> Users:
    """An idmapped mount: its own maps, or else those of the container. Raises: SpecError."""
    if mount.uid_mappings or mount.gid_mappings:
        return Users(
            _extents(mount.uid_mappings or [], f"{path}.uidMappings"),
            _extents(mount.gid_mappings or [], f"{path}.gidMappings"),
        )
    if container is None:
        raise SpecError(f"{path}.options", "an idmapped mount needs mappings")
    return container


def _extents(documents: list[spec.IdMapping], where: str) -> Extents:
    if not documents:
        raise SpecError(where, "User namespaces enabled, but no mapping found")
    if len(documents) > MAX_EXTENTS:
        raise SpecError(where, f"more than {MAX_EXTENTS} mappings")
    made = tuple((each.container_id, each.host_id, each.size) for each in documents)
    for index, (inside, outside, size) in enumerate(made):
        if not size or max(inside, outside) + size - 1 > LAST_ID:
            raise SpecError(f"{where}[{index}]", "ids out of range")
    for side in (0, 1):
        ranges = sorted((each[side], each[side] + each[2]) for each in made)
        if any(end > begin for (_, end), (begin, _) in pairwise(ranges)):
            raise SpecError(where, "the ids of two mappings overlap")
    return made


def _check_own(extents: Extents, own: int, where: str) -> None:
    """Without root nobody may map others: newuidmap(1) does it, for engines."""
    if extents != ((0, own, 1),):
        raise SpecError(where, f"an ordinary user can map 0 to {own}, and nothing else")
