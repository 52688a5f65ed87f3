"""The file of `--overlay2=root:self` and `root:dir=PATH`, which holds what programs write.

It has no name: nothing is left of it when the last process ends that has it, whatever ends that.
"""

from __future__ import annotations

import errno
import os

from runsc.errors import RuntimeFailure

_NO_SUCH_FILES = (errno.EOPNOTSUPP, errno.EISDIR)
"""open(2), O_TMPFILE: of the file system, and of a kernel, that has none."""


def open_in(folder: str, container_id: str, context: str = "") -> int:
    """`context`: its label of SELinux. Raises: RuntimeFailure."""
    try:
        fd = _made_in(folder, container_id)
        if context:
            os.setxattr(fd, "security.selinux", f"{context}\0".encode())
        return fd
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise RuntimeFailure(f"--overlay2: a file in {folder}: {why}") from None


def _made_in(folder: str, container_id: str) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(folder, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in _NO_SUCH_FILES:
            raise
    path = f"{folder}/.runsc.filestore.{container_id}"
    fd = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    os.unlink(path)
    return fd
