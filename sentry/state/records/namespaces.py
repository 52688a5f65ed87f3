"""Records of namespaces that programs have made. An owner is a user namespace; None: the first."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sentry.state.records.base import MOST, Amount, HostName, Id, Many, Pid, Record, Ref, Words
from sentry.state.records.ipc import Ipc

Offset = Annotated[int, msgspec.Meta(ge=-MOST, le=MOST)]
"""ns."""
Extents = Annotated[list[tuple[Id, Id, Id]], msgspec.Meta(max_length=340)]
"""(first id inside, first one of the sandbox, how many)"""


class UserNamespace(Record, frozen=True):
    """user_namespaces(7)."""

    owner: Id
    group: Id
    """The effective ids of who made it."""
    parent: Ref | None = None
    uids: Extents = []
    gids: Extents = []
    projects: Extents = []
    setgroups_allowed: bool = True
    maker_had_setfcap: bool = False
    limits: dict[Words, Amount] = {}
    """/proc/sys/user/max_*_namespaces."""


class PidNamespace(Record, frozen=True):
    """pid_namespaces(7)."""

    owner: Ref | None = None
    parent: Ref | None = None
    init: Pid | None = None
    ended: bool = False
    """Its first process is gone."""
    last: Amount = 0
    numbers: Annotated[list[tuple[Pid, Pid]], Many] = []
    """(in the sandbox, in here)"""


class MachineNames(Record, frozen=True):
    """uts_namespaces(7)."""

    owner: Ref | None = None
    nodename: HostName = b""
    domainname: HostName = b""


class ClockOffsets(Record, frozen=True):
    """time_namespaces(7)."""

    owner: Ref | None = None
    monotonic_ns: Offset = 0
    boottime_ns: Offset = 0
    frozen: bool = False
    """Somebody is in it."""


class Owned(Record, frozen=True):
    """A namespace of which nothing is to be said but whose it is."""

    owner: Ref | None = None


class IpcNamespace(Record, frozen=True):
    """ipc_namespaces(7)."""

    owner: Ref | None = None
    objects: Ipc | None = None


class NetworkNamespace(Record, frozen=True):
    """network_namespaces(7), with nothing but the loopback interface."""

    owner: Ref | None = None
    is_up: bool = False
    """That interface is."""


class Whereabouts(Record, frozen=True):
    """The namespaces of threads, by kind; None: the first."""

    cgroup: Ref | None = None
    ipc: Ref | None = None
    mounts: Ref | None = None
    net: Ref | None = None
    pids_for_children: Ref | None = None
    time: Ref | None = None
    time_for_children: Ref | None = None
    uts: Ref | None = None


class Namespaces(Record, frozen=True):
    """All that programs have made."""

    users: Annotated[list[UserNamespace], msgspec.Meta(max_length=4096)] = []
    pids: Annotated[list[PidNamespace], msgspec.Meta(max_length=4096)] = []
    uts: Annotated[list[MachineNames], msgspec.Meta(max_length=4096)] = []
    time: Annotated[list[ClockOffsets], msgspec.Meta(max_length=4096)] = []
    cgroup: Annotated[list[Owned], msgspec.Meta(max_length=4096)] = []
    ipc: Annotated[list[IpcNamespace], msgspec.Meta(max_length=4096)] = []
    net: Annotated[list[NetworkNamespace], msgspec.Meta(max_length=4096)] = []
    whereabouts: Annotated[list[Whereabouts], Many] = []
