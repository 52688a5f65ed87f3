"""`Services`: the singletons of a sandbox that are not the kernel's own parts.

A field without a value here is filled in boot, and `check` names one that was forgotten. All others
begin empty: who needs one first makes it. Rooms below see what they need as `sentry.fs.kernel`.
"""

from __future__ import annotations

import os
import struct
from itertools import count
from typing import TYPE_CHECKING, Any

from sentry.auth.userns import NamespaceCounts
from sentry.fs.gofer.trees import SharedTrees
from sentry.fs.served.known import Served, ServedTexts
from sentry.kernel.device_filters import Programs
from sentry.kernel.signals import Quota
from sentry.uuids import random_uuid
from sentry.wait.queue import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sentry.config import Extents
    from sentry.fs.gofer.handles import HandleCache, Lingering
    from sentry.fs.gofer.session import Session
    from sentry.fs.pseudo.cpu import Cpu
    from sentry.kernel.key_table import KeyTable
    from sentry.kernel.machine import Machine
    from sentry.kernel.system_log import SystemLog
    from sentry.net.unix_flights import Flights


class ForkNotice:
    """What programs hear of forks of the sandbox: /proc/sandbox_forks."""

    __slots__ = ("count", "signals")

    def __init__(self) -> None:
        self.count = 0
        """How many there were on the way to this one."""
        self.signals: dict[Any, int] = {}
        """By process (a ThreadGroup): what it gets in a fork."""


class Services:
    """One of a kernel: `kernel.services`."""

    __slots__ = (
        "boot_id", "bpf_programs", "clock_steps", "cpu", "flights", "forks",
        "gofers", "handles", "host_ids", "injection", "kcmp_secret", "keys", "keys_text",
        "lingering", "logins", "machine", "namespace_counts", "proc_files", "served",
        "signal_quota", "sysctls", "system_log", "timex", "trees",
    )  # fmt: skip

    handles: HandleCache
    """Files of the host that are open."""
    lingering: Lingering
    """Those that nobody uses just now."""

    def __init__(self) -> None:
        self.boot_id = random_uuid()
        self.bpf_programs = Programs()
        """bpf(2)."""
        self.clock_steps = WaitQueue()
        """Told when the host's wall clock was set: deadlines on it move."""
        self.cpu: Cpu | None = None
        """What /proc/cpuinfo shows."""
        self.flights: Flights | None = None
        """Descriptors on their way between Unix sockets, once there is such a socket."""
        self.forks = ForkNotice()
        self.gofers: list[Session] = []
        """The session with the first container's Gofer, if it has one; that for its mounts, if it
        is another."""
        self.host_ids: dict[str, Extents] = {}
        """By "uid" and "gid": whom on the host those in the sandbox are, where they have a map."""
        self.injection: Any = None
        """Faults that are wanted: sentry.inject."""
        self.kcmp_secret = struct.unpack("<QQ", os.urandom(16))
        """kptr_obfuscate(): what turns addresses of objects into an order that tells nothing."""
        self.keys: KeyTable | None = None
        self.keys_text: Callable[[Any], Iterator[str]] | None = None
        """/proc/keys for a reader, once somebody has a key."""
        self.logins: Iterator[int] = count(1)
        """Numbers of sessions: /proc/PID/sessionid."""
        self.machine: Machine | None = None
        """What the auxiliary vector says of the CPU."""
        self.namespace_counts = NamespaceCounts()
        self.proc_files = ServedTexts()
        """Files of /proc that the sandbox's owner serves."""
        self.served = Served()
        """Sessions with the owner's processes, which serve those and more."""
        self.signal_quota = Quota()
        self.sysctls: dict[str, str] = {}
        """What was written below /proc/sys, by path."""
        self.system_log: SystemLog | None = None
        """syslog(2)."""
        self.timex: dict[str, int] = {}
        """What adjtimex(2) keeps for its own answers, by field."""
        self.trees = SharedTrees()
        """Trees of the host that several containers may have."""

    @property
    def suid_dumpable(self) -> int:
        """fs.suid_dumpable: what PR_GET_DUMPABLE says of who has got other rights."""
        return int(self.sysctls.get("fs/suid_dumpable", "0"))

    def check(self) -> None:
        """At the end of boot. Raises: AssertionError with the field that nobody filled."""
        for name in self.__slots__:
            assert hasattr(self, name), f"kernel.services.{name} was not filled in boot"
