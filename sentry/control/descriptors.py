"""Descriptors that come with a request (unix(7), SCM_RIGHTS): which ones a sandbox takes.

They are the caller's standard streams, which a program inside will use. What could be a way to the
host's files, devices or other kernel objects is refused, whoever sends it.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import stat
from collections.abc import Iterable

from sentry.abi.fcntl import O_PATH
from sentry.errors import EINVAL, Errno
from sentry.net.host import calls
from sentry.suppress import suppress

MAX_DESCRIPTORS = 253
"""SCM_MAX_FD: what the host sends in one message."""
ANCILLARY_SIZE = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)

MEMORY_DEVICES = 1
HARMLESS = frozenset({3, 5, 7, 8, 9})
"""/dev/null, zero, full, random, urandom: mem(4), null(4), random(4)."""
TERMINAL_MAJORS = frozenset({4, 5, *range(136, 144)})


def receive(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """What came, and the descriptors that came with it.

    Raises: OSError; ValueError at more descriptors than there is room for (none is kept then).
    """
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    data, ancillary, result, _ = sock.recvmsg(size, ANCILLARY_SIZE, flags)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if result & socket.MSG_CTRUNC:
        close_all(fds)
        raise ValueError("too many descriptors")
    return data, list(fds)


def receive_one(sock: socket.socket) -> int:
    """One descriptor, waited for; -1 when the other end is closed instead. Raises: OSError."""
    _, fds, _, _ = socket.recv_fds(sock, 1, 1, socket.MSG_CMSG_CLOEXEC)
    return fds[0] if fds else -1


def close_all(fds: Iterable[int]) -> None:
    """Close; each is ours alone."""
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


def check(fd: int) -> None:
    """Refuse what is no stream, terminal or regular file. Raises: EINVAL."""
    status = os.fstat(fd)
    kind = stat.S_IFMT(status.st_mode)
    if fcntl.fcntl(fd, fcntl.F_GETFL) & O_PATH:
        raise EINVAL("a descriptor that is only a place (O_PATH)")
    if kind in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK):
        return
    if kind == stat.S_IFCHR:
        major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        if major == MEMORY_DEVICES and minor in HARMLESS:
            return
        if major in TERMINAL_MAJORS and os.isatty(fd):
            return
    raise EINVAL(f"a descriptor of a kind that is not passed on (mode {status.st_mode:o})")


def keeps_messages_apart(fd: int) -> bool:
    """Whether it is a Unix socket of packets."""
    wanted = {socket.SO_DOMAIN: socket.AF_UNIX, socket.SO_TYPE: socket.SOCK_SEQPACKET}
    try:
        found = [calls.option(fd, socket.SOL_SOCKET, name, 4) for name in wanted]
    except Errno:
        return False
    return [int.from_bytes(each, "little") for each in found] == [*wanted.values()]
