"""Control messages: what sendmsg(2) is given and recvmsg(2) gives beside the bytes. cmsg(3)."""

from __future__ import annotations

import struct

from sentry.abi.capability import (
    CAP_NET_ADMIN,
    CAP_NET_RAW,
    CAP_SETGID,
    CAP_SETUID,
    CAP_SYS_ADMIN,
    CAP_SYS_RESOURCE,
)
from sentry.abi.resource import RLIMIT_NOFILE
from sentry.abi.socket import (
    AF_NETLINK,
    AF_UNIX,
    MSG_CMSG_CLOEXEC,
    SCM_CREDENTIALS,
    SCM_PIDFD,
    SCM_RIGHTS,
    SO_MARK,
    SO_TIMESTAMPING_OLD,
    SOL_SOCKET,
)
from sentry.errors import EINVAL, EMFILE, EPERM, ESRCH, ETOOMANYREFS, Errno
from sentry.fs.pidfd import PidFile
from sentry.kernel.task import Task
from sentry.net.message import Ancillary
from sentry.net.socket import Socket
from sentry.net.unix_flights import drop_files, flights
from sentry.net.unix_options import shown_ucred

INT_SIZE = 4
TX_RECORD_MASK = 0x303
"""SOF_TIMESTAMPING_TX_HARDWARE, TX_SOFTWARE, TX_SCHED, TX_ACK."""
MAX_RIGHTS = 253
MAX_IN_FLIGHT = 100_000
"""Descriptors on their way in the whole sandbox: a ceiling of ours."""


def pidfd(task: Task, pid: int) -> int:
    """A new descriptor for a process. Raises: ESRCH, EMFILE."""
    group = task.kernel.pids.groups.get(pid)
    if group is None:
        raise ESRCH(f"pid {pid}")
    file = PidFile(task.kernel.vfs, group, False)
    return task.files.install(file, task.rlimit(RLIMIT_NOFILE), cloexec=True)


def parse_control(task: Task, sock: Socket, data: bytes) -> Ancillary:
    """What sendmsg is given beside the bytes: cmsg(3). EINVAL, EBADF, EPERM."""
    result = Ancillary()
    at = 0
    try:
        while at + 16 <= len(data):
            length, level, kind = struct.unpack_from("<Qii", data, at)
            if length < 16 or at + length > len(data):
                raise EINVAL("cmsg_len")
            body = data[at + 16 : at + length]
            at += (length + 7) & ~7
            if level != SOL_SOCKET:
                result.records.append((level, kind, body))
            elif sock.family not in (AF_UNIX, AF_NETLINK):
                check_common(task, sock, kind, body)
            elif kind == SCM_RIGHTS and sock.family == AF_UNIX:
                take_rights(task, sock, result, body)
            elif kind == SCM_CREDENTIALS:
                if len(body) != 12:
                    raise EINVAL("struct ucred")
                result.creds = check_creds(task, struct.unpack("<iII", body))
            else:
                raise EINVAL(f"control message {kind}")
    except Errno:
        drop_files(sock.stack, result)
        raise
    return result


def check_common(task: Task, sock: Socket, kind: int, body: bytes) -> None:
    """__sock_cmsg_send(): SO_MARK and SO_TIMESTAMPING of one message. EINVAL, EPERM."""
    if kind in (SCM_RIGHTS, SCM_CREDENTIALS):
        return  # left to others
    if kind not in (SO_MARK, SO_TIMESTAMPING_OLD):
        raise EINVAL(f"control message {kind}")
    if kind == SO_MARK and not any(
        task.creds.has_in(sock.stack.owner, one) for one in (CAP_NET_RAW, CAP_NET_ADMIN)
    ):
        raise EPERM("SO_MARK")
    if len(body) != INT_SIZE:
        raise EINVAL("int expected")
    if kind == SO_TIMESTAMPING_OLD and int.from_bytes(body, "little") & ~TX_RECORD_MASK:
        raise EINVAL("SO_TIMESTAMPING")


def take_rights(task: Task, sock: Socket, result: Ancillary, body: bytes) -> None:
    """SCM_RIGHTS: a use of every named file."""
    fds = struct.unpack(f"<{len(body) // 4}i", body[: len(body) // 4 * 4])
    if len(result.files) + len(fds) > MAX_RIGHTS:
        raise EINVAL("too many descriptors")
    exempt = task.creds.has(CAP_SYS_RESOURCE) or task.creds.has(CAP_SYS_ADMIN)
    flying = flights(sock.stack).count
    if flying > MAX_IN_FLIGHT or (flying > task.rlimit(RLIMIT_NOFILE) and not exempt):
        raise ETOOMANYREFS("descriptors in flight")
    for fd in fds:
        result.files.append(task.files.get_raw(fd).incref())


def check_creds(task: Task, given: tuple[int, int, int]) -> tuple[int, int, int]:
    """scm_check_creds(): one's own ids, unless capable. EPERM, ESRCH."""
    creds = task.creds
    pid, uid, gid = task.pids.known(given[0]), creds.kuid(given[1]), creds.kgid(given[2])
    if pid != task.group.tgid and not creds.has_in(task.pids.owner, CAP_SYS_ADMIN):
        raise EPERM("pid")
    if pid not in task.kernel.pids.groups:
        raise ESRCH(f"pid {pid}")
    if uid not in (creds.uid, creds.euid, creds.suid) and not creds.own(CAP_SETUID):
        raise EPERM("uid")
    if gid not in (creds.gid, creds.egid, creds.sgid) and not creds.own(CAP_SETGID):
        raise EPERM("gid")
    if 0xFFFFFFFF in (uid, gid):
        raise EINVAL("no such id")
    return pid, uid, gid


def format_control(task: Task, ancillary: Ancillary, room: int, flags: int) -> tuple[bytes, bool]:
    """(control bytes for the receiver, whether something did not fit)."""
    out, cut = b"", False

    def add(level: int, kind: int, body: bytes) -> None:
        nonlocal out, cut
        left = room - len(out)
        if left < 16:
            cut = True
            return
        taken = body[: left - 16]
        cut |= len(taken) < len(body)
        out += struct.pack("<Qii", 16 + len(taken), level, kind) + taken
        out += bytes(min(-len(out) % 8, max(0, room - len(out))))

    if ancillary.creds is not None:
        add(SOL_SOCKET, SCM_CREDENTIALS, shown_ucred(task, ancillary.creds))
    if ancillary.files:
        fit = max(0, (room - len(out) - 16) // 4)
        fds = []
        for file in ancillary.files[:fit]:
            try:
                fds.append(
                    task.files.install(
                        file, task.rlimit(RLIMIT_NOFILE), cloexec=bool(flags & MSG_CMSG_CLOEXEC)
                    )
                )
            except EMFILE:
                break
        cut |= len(fds) < len(ancillary.files)
        if fds:
            add(SOL_SOCKET, SCM_RIGHTS, struct.pack(f"<{len(fds)}i", *fds))
    if ancillary.pid is not None and room - len(out) >= 20:
        try:
            add(SOL_SOCKET, SCM_PIDFD, struct.pack("<i", pidfd(task, ancillary.pid)))
        except Errno as error:
            add(SOL_SOCKET, SCM_PIDFD, struct.pack("<i", -error.number))
    elif ancillary.pid is not None:
        cut = True
    for level, kind, body in ancillary.records:
        add(level, kind, body)
    return out, cut
