"""The compiled module `kvm._kvm`, who owns a descriptor, and how an ioctl's error is raised.

Raw pointers and ioctls of this package stay behind this file, system.py, vm.py and vcpu.py.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kvm._kvm import ffi, lib

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from kvm._kvm import Data

__all__ = ["Descriptor", "address_of", "check", "ffi", "ioctl", "ioctl_pointer", "lib"]


def check(result: int, what: str) -> int:
    """The result of an ioctl wrapper, which is -errno on failure.

    Raises: OSError.
    """
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


def ioctl(fd: int, request: str, argument: int = 0) -> int:
    """An ioctl of <linux/kvm.h>, by name, with a number. Raises: OSError."""
    number: int = getattr(lib, request)
    return check(lib.kvm_ioctl(fd, number, argument), request)


def ioctl_pointer(fd: int, request: str, argument: Data) -> int:
    """The same with a pointer to a struct.

    SAFETY: the struct has to be the one that the request is made for.
    """
    number: int = getattr(lib, request)
    return check(lib.kvm_ioctl_ptr(fd, number, argument), request)


def address_of(memory: Buffer) -> int:
    """The host address of a writable buffer: for MemorySlot.host_address.

    Preconditions: the caller keeps the buffer for as long as the address is used.

    >>> address_of(bytearray(1)) > 0
    True
    """
    return int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))


class Descriptor:
    """What owns a file descriptor of KVM, and closes it at the end of a `with` block."""

    fd: int
    """-1 once it is closed."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Close the descriptor, once: a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
