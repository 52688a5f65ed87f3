"""A root that is an image in a file: where a container has nothing else of the host's files, its
Sentry gets that file's descriptor, and there is no Gofer.

What needs one all the same: bind mounts (which sockets and FIFOs of the host are, too), and
createContainer hooks, which run in its namespaces. A container that is added to a sandbox has one.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import msgspec

from runsc.errors import RuntimeFailure

if TYPE_CHECKING:
    from runsc.launch.boot import Terms
    from runsc.oci.convert import Container
    from sentry.config import SandboxConfig


def alone(container: Container, config: SandboxConfig, terms: Terms) -> SandboxConfig:
    """The same with the image open, if that is all there is. Raises: RuntimeFailure."""
    if not container.root.is_image or len(container.exports) > 1:
        return config
    if terms.before_gofer is not None:
        return config
    fd = _opened(container.exports[0].path)
    return msgspec.structs.replace(config, root=msgspec.structs.replace(config.root, image_fd=fd))


def _opened(path: str) -> int:
    """Nobody waits for what has come in its place: a FIFO, a device."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise RuntimeFailure(f"the root file system {path}: {reason}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise RuntimeFailure(f"the root file system {path} is no file any more")
    return fd
