"""Calls on a donated socket, with types and errnos. None blocks, for the socket does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.platform._native import ffi, lib
from sentry.platform.host_io import host_error

if TYPE_CHECKING:
    from sentry.platform._native import Uint8, Uint32

MAX_ADDRESS: Final = 128
MAX_CONTROL: Final = 4096


def _checked(result: int) -> int:
    if result < 0:
        raise host_error(-result)
    return result


def _address() -> tuple[Uint8, Uint32]:
    return ffi.new("uint8_t[]", MAX_ADDRESS), ffi.new("uint32_t *", MAX_ADDRESS)


def _bytes(buffer: Uint8, size: int) -> bytes:
    return bytes(ffi.buffer(buffer, size))


def bind(fd: int, address: bytes) -> None:
    """bind(2)."""
    _checked(lib.sock_bind(fd, address, len(address)))


def connect(fd: int, address: bytes) -> None:
    """connect(2). Raises: EINPROGRESS."""
    _checked(lib.sock_connect(fd, address, len(address)))


def listen(fd: int, backlog: int) -> None:
    """listen(2)."""
    _checked(lib.sock_listen(fd, backlog))


def accept(fd: int) -> tuple[int, bytes]:
    """accept4(2): the new descriptor, which does not block either, and the other end's address."""
    buffer, size = _address()
    made = _checked(lib.sock_accept(fd, buffer, size))
    return made, _bytes(buffer, min(size[0], MAX_ADDRESS))


def name(fd: int, *, peer: bool) -> bytes:
    """getsockname(2), getpeername(2)."""
    buffer, size = _address()
    _checked(lib.sock_name(fd, peer, buffer, size))
    return _bytes(buffer, min(size[0], MAX_ADDRESS))


def shutdown(fd: int, how: int) -> None:
    """shutdown(2)."""
    _checked(lib.sock_shutdown(fd, how))


def set_option(fd: int, level: int, option: int, value: bytes) -> None:
    """setsockopt(2)."""
    _checked(lib.sock_set(fd, level, option, value, len(value)))


def option(fd: int, level: int, option: int, size: int) -> bytes:
    """getsockopt(2)."""
    buffer, length = ffi.new("uint8_t[]", size), ffi.new("uint32_t *", size)
    _checked(lib.sock_get(fd, level, option, buffer, length))
    return _bytes(buffer, min(length[0], size))


def send(fd: int, data: bytes, address: bytes, control: bytes, flags: int) -> int:
    """sendmsg(2): how many bytes went."""
    to = address or ffi.NULL
    beside = control or ffi.NULL
    return _checked(
        lib.sock_send(fd, data, len(data), to, len(address), beside, len(control), flags)
    )


def receive(fd: int, count: int, flags: int) -> tuple[int, bytes, bytes, bytes, int]:
    """recvmsg(2): (its result, data, address, control messages, MSG_* flags)."""
    data = ffi.new("uint8_t[]", max(count, 1))
    address, address_size = _address()
    control, control_size = ffi.new("uint8_t[]", MAX_CONTROL), ffi.new("size_t *", MAX_CONTROL)
    flags_io = ffi.new("int *", flags)
    got = _checked(
        lib.sock_receive(fd, data, count, address, address_size, control, control_size, flags_io)
    )
    return (
        got,
        _bytes(data, min(got, count)),
        _bytes(address, min(address_size[0], MAX_ADDRESS)),
        _bytes(control, control_size[0]),
        flags_io[0],
    )


def count(fd: int, request: int) -> int:
    """ioctl(2) that gives an int: SIOCINQ, SIOCOUTQ, SIOCATMARK."""
    value = ffi.new("int *")
    _checked(lib.sock_count(fd, request, value))
    return value[0]
