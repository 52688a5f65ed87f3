"""The compiled module `kvm._kvm`, and how an ioctl's error becomes an OSError.

Raw pointers and ioctls of this package stay behind this file, system.py, vm.py and vcpu.py.
"""

from __future__ import annotations

import os
from typing import Any

from kvm import _kvm

ffi: Any = _kvm.ffi
lib: Any = _kvm.lib
"""Constants of <linux/kvm.h> and the ioctl wrappers of _build.py."""


def check(result: int, what: str) -> int:
    """The result of an ioctl wrapper, which is -errno on failure.

    Raises: OSError.
    """
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result
