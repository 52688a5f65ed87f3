"""The small namespaces: names of the machine, cgroups, offsets of clocks. namespaces(7).

`Namespaces`, one of each kind, is in kernel.py; namespaces.py makes new ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sentry.wait.queue import ChangeCount

if TYPE_CHECKING:
    from sentry.auth.userns import Charge, UserNamespace
    from sentry.kernel.cgroup import Cgroup

UNSET: Final = b"(none)"


class Uts:
    """Names of the machine: uname(2)."""

    __slots__ = (
        "changes", "charge", "domainname", "machine", "nodename", "owner", "release", "sysname",
        "version",
    )  # fmt: skip

    def __init__(self, nodename: bytes, domainname: bytes = b"") -> None:
        """As it is made; an empty name is one that nobody has set: UTS_NODENAME, UTS_DOMAINNAME."""
        self.owner: UserNamespace | None = None
        self.charge: Charge | None = None
        self.sysname = b"Linux"
        self.nodename = nodename or UNSET
        self.release = b"6.12.0"
        self.version = b"#1 SMP PREEMPT_DYNAMIC runsc"
        self.machine = b"x86_64"
        self.domainname = domainname or UNSET
        self.changes = {"nodename": ChangeCount(), "domainname": ChangeCount()}
        """Told when a name is set: poll(2) of /proc/sys/kernel/hostname, domainname."""

    def set_name(self, which: str, name: bytes) -> None:
        """Set the `nodename` or the `domainname`."""
        setattr(self, which, name)
        self.changes[which].happened()

    def copy(self, owner: UserNamespace | None, charge: Charge) -> Uts:
        """The names of a new UTS namespace."""
        made = Uts(self.nodename)
        made.nodename, made.domainname = self.nodename, self.domainname
        made.owner, made.charge = owner, charge
        return made


class CgroupNamespace:
    """What a task sees as the root of the tree: cgroup_namespaces(7)."""

    __slots__ = ("charge", "owner", "root")

    def __init__(
        self, root: Cgroup, owner: UserNamespace | None = None, charge: Charge | None = None
    ) -> None:
        self.root = root
        self.owner = owner
        self.charge = charge


class TimeNamespace:
    """Offsets of the monotonic and the boot-time clock, set before the first task is in it."""

    __slots__ = ("boottime_ns", "charge", "frozen", "monotonic_ns", "owner")

    def __init__(
        self,
        owner: UserNamespace | None = None,
        charge: Charge | None = None,
        model: TimeNamespace | None = None,
    ) -> None:
        self.owner = owner
        self.charge = charge
        self.monotonic_ns: int = model.monotonic_ns if model is not None else 0
        self.boottime_ns: int = model.boottime_ns if model is not None else 0
        self.frozen = self.is_first
        """A task is in it: the offsets stay as they are."""

    @property
    def is_first(self) -> bool:
        """The sandbox's own: its clocks are the host's."""
        return self.charge is None
