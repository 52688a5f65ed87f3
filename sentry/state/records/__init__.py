"""What a snapshot says of a sandbox: one record for each object of the kernel.

Plain values: an object that another one refers to is named by its place in the list of its kind
(`Ref`). A record is read as hostile input: each number has bounds, each list a ceiling, and a field
that is not known here is an error that names it. See docs/snapshots.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from sentry.state.records.base import MAX_BYTES as MAX_BYTES
from sentry.state.records.base import MAX_OBJECTS as MAX_OBJECTS
from sentry.state.records.base import MOST as MOST
from sentry.state.records.base import U64 as U64
from sentry.state.records.base import Amount as Amount
from sentry.state.records.base import Data as Data
from sentry.state.records.base import HostName as HostName
from sentry.state.records.base import Id as Id
from sentry.state.records.base import Int32 as Int32
from sentry.state.records.base import Int64 as Int64
from sentry.state.records.base import Many as Many
from sentry.state.records.base import Name as Name
from sentry.state.records.base import Path as Path
from sentry.state.records.base import Pid as Pid
from sentry.state.records.base import Record as Record
from sentry.state.records.base import Ref as Ref
from sentry.state.records.base import Signal as Signal
from sentry.state.records.base import Word as Word
from sentry.state.records.base import Words as Words
from sentry.state.records.base import time_ns as time_ns
from sentry.state.records.files import AsyncNotice as AsyncNotice
from sentry.state.records.files import Attachment as Attachment
from sentry.state.records.files import ClockTimer as ClockTimer
from sentry.state.records.files import DirectoryNotice as DirectoryNotice
from sentry.state.records.files import DonatedFile as DonatedFile
from sentry.state.records.files import EpollSet as EpollSet
from sentry.state.records.files import EventCounter as EventCounter
from sentry.state.records.files import Flock as Flock
from sentry.state.records.files import Held as Held
from sentry.state.records.files import Locks as Locks
from sentry.state.records.files import Master as Master
from sentry.state.records.files import MemoryFile as MemoryFile
from sentry.state.records.files import NamedFile as NamedFile
from sentry.state.records.files import NamespaceHandle as NamespaceHandle
from sentry.state.records.files import OpenFile as OpenFile
from sentry.state.records.files import PipeBuffer as PipeBuffer
from sentry.state.records.files import PipeEnd as PipeEnd
from sentry.state.records.files import ProcessHandle as ProcessHandle
from sentry.state.records.files import SignalSet as SignalSet
from sentry.state.records.files import Slave as Slave
from sentry.state.records.files import Terminal as Terminal
from sentry.state.records.files import Watch as Watch
from sentry.state.records.files import Watched as Watched
from sentry.state.records.files import Watches as Watches
from sentry.state.records.ipc import Ipc as Ipc
from sentry.state.records.ipc import IpcObject as IpcObject
from sentry.state.records.ipc import IpcQueue as IpcQueue
from sentry.state.records.ipc import IpcSegment as IpcSegment
from sentry.state.records.ipc import IpcSemaphores as IpcSemaphores
from sentry.state.records.ipc import Undo as Undo
from sentry.state.records.memory import Bytes as Bytes
from sentry.state.records.memory import Layout as Layout
from sentry.state.records.memory import Mapping as Mapping
from sentry.state.records.memory import Memory as Memory
from sentry.state.records.memory import Run as Run
from sentry.state.records.memory import Runs as Runs
from sentry.state.records.mounts import Changed as Changed
from sentry.state.records.mounts import FileSystem as FileSystem
from sentry.state.records.mounts import MadeMount as MadeMount
from sentry.state.records.mounts import MemoryLimits as MemoryLimits
from sentry.state.records.mounts import MountNamespace as MountNamespace
from sentry.state.records.mounts import MountTable as MountTable
from sentry.state.records.mounts import NamedNamespace as NamedNamespace
from sentry.state.records.mounts import Sharing as Sharing
from sentry.state.records.names import Difference as Difference
from sentry.state.records.names import Entry as Entry
from sentry.state.records.names import Image as Image
from sentry.state.records.names import InTree as InTree
from sentry.state.records.names import LayeredFile as LayeredFile
from sentry.state.records.names import Listed as Listed
from sentry.state.records.names import Mounted as Mounted
from sentry.state.records.names import Node as Node
from sentry.state.records.names import Overlay as Overlay
from sentry.state.records.names import Place as Place
from sentry.state.records.names import Tree as Tree
from sentry.state.records.names import Where as Where
from sentry.state.records.namespaces import ClockOffsets as ClockOffsets
from sentry.state.records.namespaces import IpcNamespace as IpcNamespace
from sentry.state.records.namespaces import MachineNames as MachineNames
from sentry.state.records.namespaces import Namespaces as Namespaces
from sentry.state.records.namespaces import NetworkNamespace as NetworkNamespace
from sentry.state.records.namespaces import Owned as Owned
from sentry.state.records.namespaces import PidNamespace as PidNamespace
from sentry.state.records.namespaces import UserNamespace as UserNamespace
from sentry.state.records.namespaces import Whereabouts as Whereabouts
from sentry.state.records.processes import CpuTime as CpuTime
from sentry.state.records.processes import Credentials as Credentials
from sentry.state.records.processes import Descriptors as Descriptors
from sentry.state.records.processes import Handler as Handler
from sentry.state.records.processes import Info as Info
from sentry.state.records.processes import Interval as Interval
from sentry.state.records.processes import Limit as Limit
from sentry.state.records.processes import Pending as Pending
from sentry.state.records.processes import PosixTimer as PosixTimer
from sentry.state.records.processes import Process as Process
from sentry.state.records.processes import Restart as Restart
from sentry.state.records.processes import Scheduling as Scheduling
from sentry.state.records.processes import Session as Session
from sentry.state.records.processes import Start as Start
from sentry.state.records.processes import Thread as Thread
from sentry.state.records.processes import Usage as Usage
from sentry.state.records.sockets import Address as Address
from sentry.state.records.sockets import AnySocket as AnySocket
from sentry.state.records.sockets import Datagram as Datagram
from sentry.state.records.sockets import Numbers as Numbers
from sentry.state.records.sockets import Remains as Remains
from sentry.state.records.sockets import Sent as Sent
from sentry.state.records.sockets import TcpEnd as TcpEnd
from sentry.state.records.sockets import Ucred as Ucred
from sentry.state.records.sockets import UdpEnd as UdpEnd
from sentry.state.records.sockets import UnixEnd as UnixEnd

AnyFile = (
    NamedFile | DonatedFile | PipeEnd | EventCounter | EpollSet | ClockTimer | SignalSet
    | ProcessHandle | MemoryFile | UnixEnd | TcpEnd | UdpEnd | Watches
    | Attachment | Master | Slave | NamespaceHandle
)  # fmt: skip


class Snapshot(Record, frozen=True):
    """All objects of a sandbox."""

    hostname: HostName
    domainname: HostName
    sysctls: dict[Words, Words]
    last_pid: Amount
    boot_ns: Amount
    now_ns: Amount
    """CLOCK_MONOTONIC."""
    cpu: Annotated[list[Words], Many]
    """What the CPU can, as the programs were told: names of /proc/cpuinfo."""
    clock_code: Word
    """CRC-32 of the vDSO; 0: there is none."""
    mounts: Annotated[list[Mounted], Many]
    trees: Annotated[list[Tree], Many]
    bytes: Annotated[list[Bytes], Many]
    pipes: Annotated[list[PipeBuffer], Many]
    files: Annotated[list[AnyFile], Many]
    terminals: Annotated[list[Terminal], msgspec.Meta(max_length=4096)]
    ipc: Ipc | None
    undos: Annotated[list[Undo], Many]
    locks: Annotated[list[Locks], Many]
    remains: Annotated[list[Remains], msgspec.Meta(max_length=8192)]
    creds: Annotated[list[Credentials], Many]
    descriptors: Annotated[list[Descriptors], Many]
    starts: Annotated[list[Start], Many]
    limits: Annotated[list[Annotated[list[Limit], msgspec.Meta(max_length=16)]], Many]
    actions: Annotated[list[Annotated[list[Handler], msgspec.Meta(max_length=64)]], Many]
    memories: Annotated[list[Memory], Many]
    sessions: Annotated[list[Session], Many]
    processes: Annotated[list[Process], Many]
    namespaces: Namespaces = Namespaces()
    mount_table: MountTable = MountTable()
    shared: Annotated[list[Literal["ipc", "net", "pid", "uts"]], msgspec.Meta(max_length=4)] = []
    """Kinds of namespaces that were its pod's, not its own, when it was written."""


def decoded(data: bytes, kind: Any) -> Any:
    """Raises: ValueError, with where in the record it is."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None
