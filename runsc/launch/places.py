"""What a bind mount is about, as the host numbers it: the Sentry, which knows no path of the host,
finds by that which mounts of several containers are of the same folder, or file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from runsc.oci.convert import Container
    from sentry.config import MountConfig


def with_places(container: Container) -> tuple[MountConfig, ...]:
    """The mounts, each with its place."""
    return tuple(
        mount
        if mount.attachment is None
        else msgspec.structs.replace(mount, place=_of(container, mount))
        for mount in container.mounts
    )


def _of(container: Container, mount: MountConfig) -> str:
    """One that shows what the host mounts below it is another than one that does not."""
    assert mount.attachment is not None
    found = place(container.exports[mount.attachment].path)
    return f"{found}:follows" if found and mount.follows else found


def place(path: str) -> str:
    """Of a file or folder of the host; "" if it is gone."""
    try:
        info = os.stat(path)
    except OSError:
        return ""
    return f"{info.st_dev}:{info.st_ino}"
