"""Options of SOL_SOCKET that attach classic BPF programs. socket(7), net/core/filter.c."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sentry.abi.socket import SO_ATTACH_REUSEPORT_CBPF, SO_LOCK_FILTER, SO_REUSEPORT
from sentry.bpf.filter import PacketFilter
from sentry.bpf.isa import INSTRUCTION_SIZE, MAX_INSTRUCTIONS
from sentry.errors import EINVAL, ENOENT, ENOMEM, EPERM
from sentry.net.options import Counted, Option, show_default
from sentry.net.socket_options import SOCKET

if TYPE_CHECKING:
    from sentry.net.socket import Socket
    from sentry.vfs.file import Caller

OPTMEM_MAX: Final = 131072
"""net.core.optmem_max: what the filters of a socket may take, the new one beside the old one."""
PROGRAM_HEAD: Final = 96
"""sizeof(struct bpf_prog)."""
CONVERTED_SIZE: Final = 8
"""sizeof(struct bpf_insn)."""


def _check_unlocked(sock: Socket) -> None:
    if SO_LOCK_FILTER in sock.options:
        raise EPERM("the filter is locked")


def _get_filter(row: Option, sock: Socket, caller: Caller, size: int) -> Counted:
    """SO_GET_FILTER: the code, and how many instructions it has; `size` counts them too."""
    program = sock.filter
    if program is None:
        return Counted(b"", 0)
    if size and size < program.count:
        raise EINVAL("room for the filter")
    return Counted(program.code if size else b"", program.count)


def _charge(program: PacketFilter | None) -> int:
    """bpf_prog_size()."""
    return 0 if program is None else PROGRAM_HEAD + CONVERTED_SIZE * program.converted


def _program(sock: Socket, caller: Caller, value: bytes) -> PacketFilter:
    """Of a struct sock_fprog: __get_filter(). Raises: EINVAL, EFAULT, EPERM."""
    if len(value) != 16:
        raise EINVAL("struct sock_fprog")
    count, pointer = struct.unpack("<H6xQ", value)
    _check_unlocked(sock)
    if not pointer or not 0 < count <= MAX_INSTRUCTIONS:
        raise EINVAL("length of the filter")
    return PacketFilter(caller.mm.read(pointer, count * INSTRUCTION_SIZE))


def _attach_filter(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    """SO_ATTACH_FILTER. Raises: EINVAL, EFAULT, ENOMEM, EPERM."""
    program = _program(sock, caller, value)
    if _charge(program) + _charge(sock.filter) >= OPTMEM_MAX:
        raise ENOMEM("net.core.optmem_max")
    sock.filter = program


def _detach_filter(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    _check_unlocked(sock)
    if sock.filter is None:
        raise ENOENT("no filter")
    sock.filter = None


def _attach_chooser(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    """SO_ATTACH_REUSEPORT_CBPF: what it gives is the number of a socket, and not what passes.

    Raises: EINVAL, EFAULT, ENOMEM, EPERM.
    """
    if _charge(_program(sock, caller, value)) >= OPTMEM_MAX:
        raise ENOMEM("net.core.optmem_max")
    if SO_REUSEPORT not in sock.options:
        raise EINVAL("it shares no port")
    sock.options.add(row.number)


def _detach_chooser(row: Option, sock: Socket, caller: Caller, value: bytes) -> None:
    """SO_DETACH_REUSEPORT_BPF. Raises: EINVAL, ENOENT."""
    if SO_REUSEPORT not in sock.options:
        raise EINVAL("it shares no port")
    if SO_ATTACH_REUSEPORT_CBPF not in sock.options:
        raise ENOENT("no program")
    sock.options.discard(SO_ATTACH_REUSEPORT_CBPF)


SOCKET.row("SO_ATTACH_FILTER", _get_filter, _attach_filter)
SOCKET.row("SO_DETACH_FILTER", None, _detach_filter)
SOCKET.row("SO_ATTACH_REUSEPORT_CBPF", None, _attach_chooser,
           partial="the program is checked, and does not choose a socket")  # fmt: skip
SOCKET.row("SO_DETACH_REUSEPORT_BPF", None, _detach_chooser)
SOCKET.row("SO_BPF_EXTENSIONS", show_default, default=64)
