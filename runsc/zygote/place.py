"""Where a zygote listens, and for which program: one for each user and each installation.

Costs nothing to import: every command that makes a sandbox asks.
"""

from __future__ import annotations

import os
import stat
import sys
from binascii import crc32

from runsc.containers.names import default_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""Where this package lies."""


OF_PROGRAMS = ("LD_", "PYTHON")
"""Beginnings of variables that change what a program of Python is: ld.so(8), python(1)."""


def program() -> bytes:
    """What both sides have to be alike in: the package, the interpreter, and variables of both."""
    return _described(sys.version)


def _described(version: str) -> bytes:
    how = f"{sys.flags.optimize} {sys.flags.dev_mode}"
    variables = {name: text for name, text in os.environ.items() if name.startswith(OF_PROGRAMS)}
    variables["PYTHONPATH"] = os.pathsep.join(paths(variables))
    own = (f"{name}={text}" for name, text in sorted(variables.items()))
    return os.fsencode("\n".join((HOME, sys.executable, version, how, *own)))


def paths(variables: Mapping[str, str]) -> list[str]:
    """Where modules are looked for first, wherever one stands: here, then as PYTHONPATH has it."""
    found = (HOME, *variables.get("PYTHONPATH", "").split(os.pathsep))
    return list(dict.fromkeys(path for path in found if os.path.isabs(path)))


def socket_path() -> str:
    """In the folder of the user's containers, by a name that no container can have: the same for
    all of 3.13, so that a unit of systemd that names it outlives an update of the interpreter."""
    name = crc32(_described(sys.implementation.cache_tag))
    return os.path.join(default_root(), f"zygote@{name:08x}")


def is_own(folder: str) -> bool:
    """Whether nobody but this user can make or change something there."""
    try:
        info = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o022


def serves(root: str) -> bool:
    """Whether containers that are noted in this folder may be made by forks of a zygote."""
    return not os.path.exists(root) or is_own(root)
