"""Descriptors that come with a request for a container: what each is for, and of what kind."""

from __future__ import annotations

import os
import stat

from msgspec.structs import replace

from sentry.config import FurtherConfig, RestoreConfig
from sentry.control.descriptors import check
from sentry.errors import EINVAL


def placed(config: FurtherConfig, fds: list[int]) -> FurtherConfig:
    """Descriptors instead of places in the list. Raises: EINVAL."""
    restore = config.restore
    files = [] if restore is None else [*restore.fds()]
    places = [*config.stdio, *config.preserved]
    sockets = [
        at
        for at in (
            config.gofer_fd, config.volumes_fd, config.network_fd, config.stand_in_fd,
            config.victim_fd, config.control_listener_fd, config.link.fd if config.link else -1,
        )
        if at >= 0
    ]  # fmt: skip
    if sorted([*places, *sockets, *files]) != list(range(len(fds))):
        raise EINVAL("descriptors that do not match")
    if min(config.gofer_fd, config.stand_in_fd, config.control_listener_fd) < 0:
        raise EINVAL("descriptors are missing")
    if config.root.image_fd >= 0:
        raise EINVAL("an image without a Gofer")
    for at in places:
        check(fds[at])
    if not all(_is_socket(fds[at]) for at in sockets):
        raise EINVAL("a way that is no socket")
    if not all(stat.S_ISREG(os.fstat(fds[at]).st_mode) for at in files):
        raise EINVAL("a snapshot that is no file")

    def real(at: int) -> int:
        return fds[at] if at >= 0 else -1

    return replace(
        config,
        stdio=tuple(map(real, config.stdio)),
        preserved=tuple(map(real, config.preserved)),
        gofer_fd=real(config.gofer_fd),
        volumes_fd=real(config.volumes_fd),
        network_fd=real(config.network_fd),
        stand_in_fd=real(config.stand_in_fd),
        victim_fd=real(config.victim_fd),
        control_listener_fd=real(config.control_listener_fd),
        link=replace(config.link, fd=real(config.link.fd)) if config.link else None,
        restore=None if restore is None else _opened(restore, fds),
    )


def _opened(restore: RestoreConfig, fds: list[int]) -> RestoreConfig:
    """All of it is read: memory is there already, into which it could be mapped."""
    layers = tuple(replace(layer, fd=fds[layer.fd]) for layer in restore.layers)
    objects_fd = fds[restore.objects_fd]
    return replace(restore, objects_fd=objects_fd, layers=layers, background=False)


def _is_socket(fd: int) -> bool:
    return stat.S_ISSOCK(os.fstat(fd).st_mode)
