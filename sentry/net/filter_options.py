"""Options of SOL_SOCKET that attach classic BPF programs. socket(7), net/core/filter.c."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi.socket import SO_LOCK_FILTER
from sentry.bpf.check import check
from sentry.bpf.isa import pack, unpack
from sentry.errors import EINVAL, ENOENT, EPERM
from sentry.net.options import Counted, Option, show_default
from sentry.net.socket_options import SOCKET

if TYPE_CHECKING:
    from sentry.net.socket import Socket
    from sentry.vfs.file import Caller

MAX_FILTER: Final = 4096


def _check_unlocked(sock: Socket) -> None:
    if SO_LOCK_FILTER in sock.options:
        raise EPERM("the filter is locked")


def _get_filter(row: Option, sock: Socket, caller: Caller, size: int) -> Counted:
    """SO_GET_FILTER: the code, and how many instructions it has; `size` counts them too."""
    program = sock.filter or ()
    if size and size < len(program):
        raise EINVAL("room for the filter")
    return Counted(pack(program) if size and program else b"", len(program))


def _attach_filter(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    """SO_ATTACH_FILTER: struct sock_fprog. Raises: EINVAL, EFAULT, EPERM."""
    if len(value) != 16:
        raise EINVAL("struct sock_fprog")
    count, pointer = struct.unpack("<H6xQ", value)
    if not pointer or not 0 < count <= MAX_FILTER:
        raise EINVAL("length of the filter")
    program = unpack(caller.mm.read(pointer, count * 8))
    _check_unlocked(sock)
    sock.filter = check(program)


def _detach_filter(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    _check_unlocked(sock)
    if sock.filter is None:
        raise ENOENT("no filter")
    sock.filter = None


def _no_program(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    raise EINVAL("no program")


SOCKET.row("SO_ATTACH_FILTER", _get_filter, _attach_filter)
SOCKET.row("SO_DETACH_FILTER", None, _detach_filter)
SOCKET.row("SO_ATTACH_REUSEPORT_CBPF", None, _attach_filter,
           partial="the program is attached to the socket, and does not choose one")  # fmt: skip
SOCKET.row("SO_DETACH_REUSEPORT_BPF", None, _no_program, partial="there is none to detach: EINVAL")
SOCKET.row("SO_BPF_EXTENSIONS", show_default, default=64)
