"""System V message queues: msgget(2), msgsnd(2), msgrcv(2), msgctl(2)."""

from __future__ import annotations

import struct
from typing import Annotated

from sentry.abi import sysvipc
from sentry.abi.capability import CAP_SYS_RESOURCE
from sentry.abi.limits import INT_MAX
from sentry.abi.sysvipc import (
    IPC_INFO,
    IPC_NOWAIT,
    IPC_RMID,
    IPC_SET,
    IPC_STAT,
    MSG_COPY,
    MSG_EXCEPT,
    MSG_INFO,
    MSG_NOERROR,
    MSG_STAT,
    MSG_STAT_ANY,
    MSGINFO,
    MSGMNB,
    MSGMNI,
    MSGSEG,
    MSGSSZ,
    MSQID_DS,
)
from sentry.errors import E2BIG, EAGAIN, EINVAL, ENOMSG, EPERM
from sentry.kernel.sysv_ids import READ, check_owner, check_permission, now
from sentry.kernel.sysv_ipc import ipc_of
from sentry.kernel.sysv_msg import Message, Queue, Queues, receiving, search
from sentry.kernel.task import Task
from sentry.syscalls.args import show_choice, show_flags, signed
from sentry.syscalls.registry import syscall
from sentry.syscalls.types import Addr, Int, Long, Size
from sentry.vfs.file import Result
from sentry.wait.sleep import no_hand

MAX_MESSAGE = 16 << 20
"""Ceiling of one message, whatever kernel.msgmax says."""
_long = struct.Struct("<q")
Command = Annotated[
    int,
    signed(
        32,
        show_choice({
            n: getattr(sysvipc, n)
            for n in ("IPC_RMID", "IPC_SET", "IPC_STAT", "IPC_INFO", "MSG_STAT", "MSG_INFO",
                      "MSG_STAT_ANY")
        }),
    ),
]  # fmt: skip
MessageFlags = Annotated[
    int,
    signed(
        32,
        show_flags({
            n: getattr(sysvipc, n) for n in ("IPC_NOWAIT", "MSG_NOERROR", "MSG_EXCEPT", "MSG_COPY")
        }),
    ),
]  # fmt: skip


@syscall(68)
def sys_msgget(task: Task, key: Int, flags: Int) -> int:
    """msgget(2)."""
    return ipc_of(task).queues.get(task, key, flags)


@syscall(69)
def sys_msgsnd(task: Task, number: Int, addr: Addr, size: Long, flags: MessageFlags) -> Result:
    """msgsnd(2): do_msgsnd()."""
    queues = ipc_of(task).queues
    (kind,) = _long.unpack(task.mm.read(addr, 8))
    if not 0 <= size <= min(queues.limit("msgmax"), MAX_MESSAGE) or number < 0:
        raise EINVAL(f"size {size}")
    if kind < 1:
        raise EINVAL(f"mtype {kind}")
    message = Message(kind, task.mm.read(addr + 8, size))
    queue = queues.ids.find(number)
    try:
        queues.send(task, queue, message)
    except EAGAIN:
        if flags & IPC_NOWAIT:
            raise
        return queues.sent_in_line(task, queue, message)
    return 0


@syscall(70)
def sys_msgrcv(
    task: Task, number: Int, addr: Addr, size: Size, kind: Long, flags: MessageFlags
) -> Result:
    """msgrcv(2): do_msgrcv()."""
    if number < 0 or size >> 63:
        raise EINVAL("size")
    if flags & MSG_COPY and (flags & MSG_EXCEPT or not flags & IPC_NOWAIT):
        raise EINVAL("MSG_COPY with MSG_EXCEPT or without IPC_NOWAIT")
    queues = ipc_of(task).queues
    room = size
    if flags & MSG_COPY:  # prepare_copy() reads as much as it will write
        room = min(size, queues.limit("msgmax"))
        task.mm.read(addr, room)
    queue = queues.ids.find(number)
    how, kind = search(kind, flags)

    def attempt() -> int:
        index = queues.peek(task, queue, how, kind)
        message = queue.messages[index]
        if len(message.data) > size and not flags & MSG_NOERROR:
            raise E2BIG(f"{len(message.data)} bytes")
        if flags & MSG_COPY and len(message.data) > room:  # a copy is never cut: copy_msg()
            raise EINVAL(f"{len(message.data)} bytes")
        # Pages that have to be fetched first must not cost the message.
        data = message.data[:size]
        task.mm.accessible(addr, 8 + len(data), True)
        if not flags & MSG_COPY:
            queues.take(task, queue, index)
        task.mm.write(addr, _long.pack(message.kind) + data)
        return len(data)

    try:
        return attempt()
    except EAGAIN:
        if flags & IPC_NOWAIT:
            raise ENOMSG("no such message") from None
    return receiving(attempt, queue, how, kind).ended(no_hand)


@syscall(71)
def sys_msgctl(task: Task, number: Int, command: Command, buf: Addr) -> int | None:
    """msgctl(2): ksys_msgctl()."""
    if number < 0 or command < 0:
        raise EINVAL("negative")
    queues = ipc_of(task).queues
    if command in (IPC_INFO, MSG_INFO):
        task.mm.write(buf, _info(queues, command))
        return queues.ids.highest
    if command in (IPC_STAT, MSG_STAT, MSG_STAT_ANY):
        queue = (queues.ids.find if command == IPC_STAT else queues.ids.at)(number)
        if command != MSG_STAT_ANY:
            check_permission(task.creds, queue, READ)
        task.mm.write(buf, _status(task, queue))
        return 0 if command == IPC_STAT else queue.id
    if command == IPC_SET:
        new = MSQID_DS.unpack(task.mm.read(buf, MSQID_DS.size))
        queue = queues.ids.find(number)
        check_owner(task.creds, queue)
        larger = new.msg_qbytes > queues.limit("msgmnb")
        if larger and not task.creds.has(CAP_SYS_RESOURCE):
            raise EPERM("msgmnb")
        queue.set_owner(task.creds, new.msg_perm_uid, new.msg_perm_gid, new.msg_perm_mode)
        queue.max_bytes = new.msg_qbytes
        queue.ctime = now()
        queue.tell_all(task.kernel.loop.call_for_each)
    elif command == IPC_RMID:
        queue = queues.ids.find(number)
        check_owner(task.creds, queue)
        queues.remove(queue, task.kernel.loop.call_for_each)
    else:
        raise EINVAL(f"command {command}")
    return None


def _info(queues: Queues, command: int) -> bytes:
    pool, heads, bytes_ = MSGMNI * MSGMNB // 1024, MSGMNB, MSGMNB
    if command == MSG_INFO:
        pool, heads, bytes_ = len(queues.ids), queues.messages, queues.bytes
    largest, most_bytes, most = (
        min(queues.limit(name), INT_MAX) for name in ("msgmax", "msgmnb", "msgmni")
    )
    return MSGINFO.pack(pool, heads, largest, most_bytes, most, MSGSSZ, bytes_, MSGSEG)


def _status(reader: Task, q: Queue) -> bytes:
    return MSQID_DS.pack(
        *q.perm(reader.creds), q.stime, q.rtime, q.ctime, q.bytes, len(q.messages), q.max_bytes,
        reader.pids.of(q.lspid), reader.pids.of(q.lrpid), 0, 0,
    )  # fmt: skip
