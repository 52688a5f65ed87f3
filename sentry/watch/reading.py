"""What points read of a program's memory and of its open files, beside its arguments.

Nothing here waits or fails: what is not there now is told as empty. All of it is bounded.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from sentry.abi.resource import RLIMIT
from sentry.abi.time import ITIMERSPEC
from sentry.errors import ENAMETOOLONG, Errno
from sentry.net.inet.address import MAPPED
from sentry.syscalls.show import peek, peek_string
from sentry.vfs.mount import top
from sentry.vfs.paths import link_text
from sentry.watch.messages import ItimerSpec, Rlimit, Timespec

if TYPE_CHECKING:
    from sentry.kernel.task import Task
    from sentry.vfs.location import Location

MAX_TEXT: Final = 4096
"""Bytes of a text: PATH_MAX."""
MAX_WORDS: Final = 256
"""Arguments, and variables."""
MAX_WORDS_SIZE: Final = 32768
"""Bytes of all of them together: those of two lists, paths and the rest fit into a message of the
least socket buffer that hosts have by default (net.core.wmem_default, 212,992)."""
MAX_VECTOR: Final = 1024
"""UIO_MAXIOV."""
MAX_ADDRESS: Final = 128
"""struct sockaddr_storage."""
MAX_NUMBER: Final = (1 << 64) - 1
NO_FILE: Final = "[err: FD not found]"
TOO_LONG: Final = "[err: path too long]"


def text(data: bytes | None) -> str:
    """Of a program, for who reads UTF-8."""
    return data[:MAX_TEXT].decode(errors="backslashreplace") if data else ""


def words(found: list[bytes] | tuple[bytes, ...]) -> list[str]:
    """As many as there is room for, as they are told: bytes that are no UTF-8 grow to four times as
    many, and a message that is too large for a socket of the host would not be told at all."""
    result, left = [], MAX_WORDS_SIZE
    for word in found[:MAX_WORDS]:
        shown = text(word)
        left -= len(shown) if shown.isascii() else len(shown.encode())
        if left < 0:
            break
        result.append(shown)
    return result


def vector(task: Task, addr: int) -> list[str]:
    """argv or envp."""
    found: list[bytes] = []
    left = MAX_WORDS_SIZE
    while addr and len(found) < MAX_WORDS and left > 0:
        pointer = peek(task, addr + 8 * len(found), 8)
        if pointer is None or not any(pointer):
            break
        word = peek_string(task, int.from_bytes(pointer, "little"), min(left, MAX_TEXT))
        if word is None:
            break
        found.append(word)
        left -= len(word) + 1
    return words(found)


def total(task: Task, addr: int, count: int) -> int:
    """Bytes that an array of struct iovec is about, in 64 bits: no record has a larger number."""
    data = peek(task, addr, 16 * min(count, MAX_VECTOR))
    if data is None or count > MAX_VECTOR:
        return 0
    whole: int = sum(length for _, length in struct.iter_unpack("<QQ", data))
    return whole & MAX_NUMBER


def address(task: Task, addr: int, size: int) -> bytes:
    """A socket address."""
    size &= 0xFFFFFFFF
    if not addr or not 0 < size <= MAX_ADDRESS:
        return b""
    return peek(task, addr, size) or b""


def peer(data: bytes) -> str:
    """A socket address in words: 192.0.2.1:80, [2001:db8::1]:80, unix:/path, unix:@abstract."""
    family = int.from_bytes(data[:2], "little")
    if family == socket.AF_INET and len(data) >= 8:
        return f"{socket.inet_ntop(family, data[4:8])}:{int.from_bytes(data[2:4], 'big')}"
    if family == socket.AF_INET6 and len(data) >= 24:
        return f"[{socket.inet_ntop(family, data[8:24])}]:{int.from_bytes(data[2:4], 'big')}"
    if family == socket.AF_UNIX and len(data) > 2:
        if data[2]:
            return f"unix:{text(data[2:].split(bytes(1), 1)[0])}"
        return f"unix:@{text(data[3:])}"
    return ""


def address_text(ip: bytes) -> str:
    """An address of 16 bytes, of which those of IPv4 are mapped; empty of none."""
    if ip[:12] == MAPPED:
        return socket.inet_ntop(socket.AF_INET, ip[12:])
    return socket.inet_ntop(socket.AF_INET6, ip) if ip else ""


def place(task: Task, location: Location) -> str:
    """The path of a place in the container's own root, wherever the program's is."""
    mounts = task.ns.mounts.mounts.root
    try:
        return text(link_text(location, top(mounts.location)))
    except ENAMETOOLONG:
        return TOO_LONG


def cwd(task: Task) -> str:
    """The working directory; empty of a task that is gone."""
    return "" if task.dead and task not in task.group.tasks else place(task, task.fs.cwd)


def fd_path(task: Task, fd: int) -> str:
    """What a descriptor is, as a link in /proc/PID/fd says it; empty of AT_FDCWD and the like."""
    if fd < 0:
        return ""
    try:
        file = task.files.get_raw(fd)
    except Errno:
        return NO_FILE
    return place(task, file.location)


def number(task: Task, addr: int, size: int) -> int:
    """An unsigned one."""
    return int.from_bytes(peek(task, addr, size) or b"", "little") if addr else 0


def rlimit(task: Task, addr: int) -> Rlimit | None:
    """struct rlimit64."""
    data = peek(task, addr, RLIMIT.size) if addr else None
    if data is None:
        return None
    cur, most = struct.unpack("<QQ", data)
    return Rlimit(cur, most)


def itimerspec(task: Task, addr: int) -> ItimerSpec | None:
    """struct itimerspec."""
    data = peek(task, addr, ITIMERSPEC.size) if addr else None
    if data is None:
        return None
    numbers: tuple[Any, ...] = struct.unpack("<4q", data)
    return ItimerSpec(Timespec(*numbers[:2]), Timespec(*numbers[2:]))
