"""Records of System V objects."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sentry.state.records.base import Amount, Data, Id, Int32, Many, Pid, Record, Ref
from sentry.state.records.names import Node


class IpcObject(Record, frozen=True):
    """What System V objects have in common."""

    id: Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
    key: Int32
    uid: Id
    gid: Id
    cuid: Id
    cgid: Id
    mode: Id
    ctime: Amount


class IpcSegment(IpcObject, frozen=True, kw_only=True):
    """shmget(2)."""

    node: Node
    size: Amount
    atime: Amount = 0
    dtime: Amount = 0
    cpid: Amount = 0
    lpid: Amount = 0
    locked_by: Id = 0
    creator: Pid | None = None


class IpcSemaphores(IpcObject, frozen=True, kw_only=True):
    """semget(2)."""

    values: Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=65535)]],
                      msgspec.Meta(max_length=32000)]  # fmt: skip
    pids: Annotated[list[Int32], msgspec.Meta(max_length=32000)]
    otime: Amount = 0


class IpcQueue(IpcObject, frozen=True, kw_only=True):
    """msgget(2)."""

    messages: Annotated[list[tuple[Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)], Data]],
                        Many]  # fmt: skip
    max_bytes: Amount
    stime: Amount = 0
    rtime: Amount = 0
    lspid: Amount = 0
    lrpid: Amount = 0


class Ipc(Record, frozen=True):
    """All System V objects; `numbers` say which identifiers come next."""

    segments: Annotated[list[IpcSegment], msgspec.Meta(max_length=32768)] = []
    semaphores: Annotated[list[IpcSemaphores], msgspec.Meta(max_length=32768)] = []
    queues: Annotated[list[IpcQueue], msgspec.Meta(max_length=32768)] = []
    numbers: Annotated[list[tuple[Id, Annotated[int, msgspec.Meta(ge=-1, le=32768)],
                                  Annotated[int, msgspec.Meta(ge=0, le=65535)]]],
                       msgspec.Meta(max_length=3)] = []  # fmt: skip


class Undo(Record, frozen=True):
    """SEM_UNDO: (identifier, number, what is added at the end)."""

    adjustments: Annotated[list[tuple[Amount, Ref, Int32]], Many]
    namespace: Ref | None = None
    """Where these semaphores are; None: in the first."""
