"""Where a zygote listens, and for which program: one for each user and each installation.

Costs nothing to import: every command that makes a sandbox asks.
"""

from __future__ import annotations

import os
import stat
import sys
from binascii import crc32

from runsc.containers.names import default_root

HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""Where this package lies."""


def program() -> bytes:
    """What both sides have to be alike in: the package, and the interpreter."""
    how = f"{sys.flags.optimize} {sys.flags.dev_mode}"
    return os.fsencode("\n".join((HOME, sys.executable, sys.version, how)))


def socket_path() -> str:
    """In the folder of the user's containers, by a name that no container can have."""
    return os.path.join(default_root(), f"zygote@{crc32(program()):08x}")


def is_own(folder: str) -> bool:
    """Whether nobody but this user can make or change something there."""
    try:
        info = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o022
