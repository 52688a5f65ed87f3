"""Namespaces that programs have made, as records and back; those of mounts: mounts.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentry.abi.sched import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from sentry.abi.time import CLOCK_BOOTTIME
from sentry.auth import userns
from sentry.errors import Errno
from sentry.fs.proc.id_maps import LATEST_NS
from sentry.kernel.ipc_namespace import IpcNamespace
from sentry.kernel.nsproxy import CgroupNamespace, TimeNamespace, Uts
from sentry.kernel.pids import PidNamespace
from sentry.net.interfaces import Interfaces, bring_up
from sentry.net.namespace import NetNamespace
from sentry.state import records
from sentry.state.numbering import Numbers
from sentry.state.pages import Damaged
from sentry.state.remounting import MadeMounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentry.auth.userns import Charge, UserNamespace
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.kernel import Namespaces as Whereabouts
    from sentry.kernel.sysv_ids import IpcObject
    from sentry.net.stack import Stack
    from sentry.state.rights import Rights
    from sentry.state.saver import Saver

FLAGS: Final = {
    "pids": CLONE_NEWPID, "uts": CLONE_NEWUTS, "time": CLONE_NEWTIME, "cgroup": CLONE_NEWCGROUP,
    "ipc": CLONE_NEWIPC, "net": CLONE_NEWNET, "mnt": CLONE_NEWNS,
}  # fmt: skip
KINDS: Final = {
    "cgroup": "cgroup", "ipc": "ipc", "net": "net", "pids_for_children": "pids", "time": "time",
    "time_for_children": "time", "uts": "uts",
}  # fmt: skip
"""Fields of where a thread is, and the list in which each is."""
CHARGED: Final = {"pids": "pid"}
"""What a kind is called where it is counted, if that is another name."""

NO_MOUNTS: Final = records.MountTable()


class SavedNamespaces:
    """Of one snapshot."""

    def __init__(self, saver: Saver) -> None:
        from sentry.state.saver import Places, refused  # noqa: PLC0415  which knows this module

        self._refused = refused
        self._first = saver.first
        self._root = saver.container.pids
        self._users = Places(self._user)
        self._lists = {
            "pids": Places(self._pids), "uts": Places(self._names), "time": Places(self._offsets),
            "cgroup": Places(self._cgroup), "ipc": Places(self._ipc), "net": Places(self._net),
        }  # fmt: skip
        self._whereabouts = Places(self._where)
        tasks = [task for group in saver.container.processes() for task in group.tasks]
        self._nets = {
            id(net._stack): net
            for net in (saver.first.net, *(task.ns.net for task in tasks))
            if net._stack is not None
        }
        """By the identity of its stack, of which a socket knows."""
        self._ipcs = [
            ipc for ipc in dict.fromkeys(task.ns.ipc for task in tasks)
            if ipc is not saver.first.ipc
        ]  # fmt: skip
        self._ipc_of: dict[int, IpcNamespace] | None = None
        """By the identity of a System V object, once one is asked for: there may be very many."""
        self._saver = saver

    def record(self) -> records.Namespaces:
        """All that were found."""
        return records.Namespaces(
            users=self._users.records, whereabouts=self._whereabouts.records,
            **{kind: places.records for kind, places in self._lists.items()},
        )  # fmt: skip

    def user(self, ns: UserNamespace | None) -> int | None:
        """Its place; None: the first."""
        return None if ns is None else self._users(ns)

    def stacks(self) -> Iterator[Stack]:
        """Of all network namespaces in which a process is, and none of another container."""
        for net in self._nets.values():
            if not self._saver.others.has(net.stack):
                yield net.stack

    def net(self, stack: Stack) -> int | None:
        """The place of a socket's network namespace; None: the first. Raises: EOPNOTSUPP."""
        if stack is self._first.net._stack:
            return None
        found = self._nets.get(id(stack))
        if found is None:
            self._refused("a socket of a network namespace in which no process is")
        return self._lists["net"](found)

    def pids(self, ns: PidNamespace | None) -> int | None:
        """Its place; None: the first."""
        return None if ns is None or ns is self._root else self._lists["pids"](ns)

    def where(self, ns: Whereabouts) -> int | None:
        """That of a thread; None: in the first ones. Raises: EOPNOTSUPP."""
        return None if ns == self._first else self._whereabouts(ns)

    def _where(self, ns: Whereabouts) -> records.Whereabouts:
        return records.Whereabouts(mounts=self._saver.mounts.namespace(ns.mounts.mounts), **{
            name: self._made(kind, getattr(ns, name))
            for name, kind in KINDS.items() if getattr(ns, name) is not getattr(self._first, name)
        })  # fmt: skip

    def _made(self, kind: str, ns: Any) -> int:
        """The place of one that programs of the container have made. Raises: EOPNOTSUPP."""
        if self._saver.others.has(ns):
            self._refused("a namespace of another container")
        return self._lists[kind](ns)

    def named(self, what: Any, ns: Any) -> records.NamedNamespace:
        """One by its kind, as /proc/PID/ns calls that. Raises: EOPNOTSUPP."""
        if what == "user":
            place = self.user(ns)
        elif what == "pid":
            place = self.pids(ns)
        elif what == "mnt":
            place = self._saver.mounts.namespace(ns.mounts)
        else:
            place = None if ns is getattr(self._first, what) else self._made(what, ns)
        return records.NamedNamespace(what, place)

    def _user(self, ns: UserNamespace) -> records.UserNamespace:
        uids, gids, projects = (
            [(each.first, each.kernel_first, each.size) for each in table.extents]
            for table in (ns.uid_map, ns.gid_map, ns.projid_map)
        )
        return records.UserNamespace(
            ns.owner, ns.group, self.user(ns.parent), uids, gids, projects, ns.setgroups_allowed,
            ns.maker_had_setfcap, dict(ns.limits),
        )  # fmt: skip

    def _pids(self, ns: PidNamespace) -> records.PidNamespace:
        if ns.lingers:
            self._refused("a PID namespace in the middle of its end")
        if ns.accounting is not None:
            self._refused("acct(2)")
        if not self._root.contains(ns):
            self._refused("a namespace of another container")
        number = self._saver.number
        return records.PidNamespace(
            self.user(ns.owner), self.pids(ns.parent),
            None if ns.init is None else number(ns.init.tgid),
            ns.ended, ns.last, sorted((number(outer), inner) for outer, inner in ns.pairs()),
        )  # fmt: skip

    def _names(self, uts: Uts) -> records.MachineNames:
        return records.MachineNames(self.user(uts.owner), uts.nodename, uts.domainname)

    def _offsets(self, ns: TimeNamespace) -> records.ClockOffsets:
        return records.ClockOffsets(
            self.user(ns.owner), ns.monotonic_ns, ns.boottime_ns, ns.frozen
        )

    def _cgroup(self, ns: CgroupNamespace) -> records.Owned:
        return records.Owned(self.user(ns.owner))

    def ipc_of(self, found: IpcObject) -> int | None:
        """The place of the namespace of a System V object; None: the first. Raises: EOPNOTSUPP."""
        from sentry.state.sysv import objects_of  # noqa: PLC0415  who asks has imported it

        first = self._first.ipc
        if self._ipc_of is None:
            self._ipc_of = {
                id(each): ns for ns in (first, *self._ipcs) if ns.made is not None
                for each in objects_of(ns.made)
            }  # fmt: skip
        ns = self._ipc_of.get(id(found))
        if ns is None:
            self._refused("a System V object that was removed, or where no process is")
        return None if ns is first else self._lists["ipc"](ns)

    def _ipc(self, ns: IpcNamespace) -> records.IpcNamespace:
        objects = None
        if ns.made is not None:
            from sentry.state import sysv  # noqa: PLC0415  few have any

            objects = sysv.save(self._saver, ns.made)
        if ns.mqueue is not None and ns.mqueue.fs.root.dirents():
            self._refused("a POSIX message queue")
        if ns.written():
            self._refused("values below /proc/sys of an IPC namespace that a program has made")
        return records.IpcNamespace(self.user(ns.owner), objects)

    def _net(self, ns: NetNamespace) -> records.NetworkNamespace:
        if ns.sysctls:
            self._refused("values below /proc/sys/net of a namespace that a program has made")
        stack, is_up = ns._stack, False
        if stack is not None:
            is_up = stack.interfaces.loopback.is_up
            if not has_plain_loopback(stack):
                self._refused(
                    "a network namespace that a program has made, and given interfaces, addresses,"
                    " routes or rules"
                )
        return records.NetworkNamespace(self.user(ns.owner), is_up)


class MadeNamespaces:
    """Those of a snapshot that is read."""

    def __init__(
        self, kernel: Kernel, found: records.Namespaces, rights: Rights,
        table: records.MountTable = NO_MOUNTS, numbers: Numbers | None = None,
    ) -> None:  # fmt: skip
        """Raises: Damaged."""
        self._kernel = kernel
        self._numbers_of = numbers if numbers is not None else Numbers(kernel, kernel.container)
        self.container: Container = self._numbers_of.container
        self._found = found
        self._rights = rights
        self._users: dict[int, UserNamespace] = {}
        self._pids: dict[int, PidNamespace] = {}
        try:
            for at in range(len(found.users)):
                self.user(at)
            for at in range(len(found.pids)):
                self.pids(at)
            self._lists: dict[str, list[Any]] = {
                "pids": [self._pids[at] for at in range(len(found.pids))],
                "uts": [self._names(each) for each in found.uts],
                "time": [self._offsets(each) for each in found.time],
                "cgroup": [self._cgroup(each) for each in found.cgroup],
                "ipc": [self._ipc(each) for each in found.ipc],
                "net": [self._net(each) for each in found.net],
            }
            root = self.container.pids
            apart = () if root is kernel.pids else (root,)
            kernel.pids.nest([*self._lists["pids"], *apart])
            self.mounts = MadeMounts(kernel, table, self, rights)
        except Errno as error:
            raise Damaged(f"namespaces: {error}") from None
        self._whereabouts = [self._where(each) for each in found.whereabouts]

    def user(self, at: int | None) -> UserNamespace | None:
        """By its place. Raises: Damaged, ENOSPC."""
        if at is None:
            return None
        known = self._users.get(at)
        return known if known is not None else self._chain(at, "users", self._users, self._user)

    def pids(self, at: int | None) -> PidNamespace:
        """By its place. Raises: Damaged, ENOSPC."""
        if at is None:
            root: PidNamespace = self.container.pids
            return root
        known = self._pids.get(at)
        made: PidNamespace = (
            known if known is not None else self._chain(at, "pids", self._pids, self._numbers)
        )
        return made

    def where(self, at: int | None) -> Whereabouts:
        """Of a thread. Raises: Damaged."""
        if at is None:
            first: Whereabouts = self.container.ns
            return first
        found: Whereabouts = _at(self._whereabouts, at)
        return found

    def settle(self) -> None:
        """All processes are there. Raises: Damaged."""
        groups = self._kernel.pids.groups
        for at, record in enumerate(self._found.pids):
            made = self._pids[at]
            made.ended, made.last = record.ended, record.last
            if record.init is not None:
                made.init = groups.get(self._numbers_of.of(record.init))
                if made.init is None or made.init.pids is not made:
                    raise Damaged(f"process {record.init} is not in its PID namespace")
        for group in groups.values():
            ns: PidNamespace | None = group.pids
            while ns is not None and ns is not self.container.pids:
                if not ns.sees(group):
                    raise Damaged(f"process {group.tgid} has no number in its PID namespace")
                ns = ns.parent

    def _chain(self, at: int, kind: str, known: dict[int, Any], make: Any) -> Any:
        """With those above it, the outermost first."""
        all_of_kind = getattr(self._found, kind)
        way: list[int] = []
        above: int | None = at
        while above is not None and above not in known:
            if len(way) > userns.MAX_LEVEL + 1:
                raise Damaged("namespaces that are too deep")
            way.append(above)
            above = _at(all_of_kind, above).parent
        for each in reversed(way):
            known[each] = make(all_of_kind[each])
        return known[at]

    def owned(self, kind: str, owner: int | None) -> tuple[UserNamespace | None, Charge]:
        """Who owns one of a kind. Raises: Damaged, ENOSPC."""
        self._rights.check_namespace(FLAGS[kind], is_owned=owner is not None)
        whose = self.user(owner)
        uid = 0 if whose is None else whose.owner
        counts = self._kernel.services.namespace_counts
        return whose, counts.take(whose, uid, CHARGED.get(kind, kind))

    def _user(self, record: records.UserNamespace) -> UserNamespace:
        self._rights.check_namespace(CLONE_NEWUSER, is_owned=True)
        self._rights.check_maps(record)
        parent = None if record.parent is None else self._users[record.parent]
        if parent is not None and parent.level > userns.MAX_LEVEL:
            raise Damaged("namespaces that are too deep")
        charge = self._kernel.services.namespace_counts.take(parent, record.owner, "user")
        made = userns.UserNamespace(parent, record.owner, record.group)
        made.charge = charge
        made.uid_map, made.gid_map, made.projid_map = map(
            _map, (record.uids, record.gids, record.projects)
        )
        made.setgroups_allowed &= record.setgroups_allowed and self._rights.sets_groups
        made.maker_had_setfcap = record.maker_had_setfcap and self._rights.sets_file_caps
        made.limits = dict(record.limits)
        return made

    def _numbers(self, record: records.PidNamespace) -> PidNamespace:
        owner, charge = self.owned("pids", record.owner)
        root = self.container.pids
        parent = root if record.parent is None else self._pids[record.parent]
        made = PidNamespace(parent, self._kernel.pids, owner)
        made.charge = charge
        for number, inner in record.numbers:
            outer = self._numbers_of.of(number)
            if not outer or made.is_taken(inner) or made.of(outer):
                raise Damaged(f"number {inner} of a PID namespace is there twice")
            made.enter(outer, inner)
        return made

    def _names(self, record: records.MachineNames) -> Uts:
        made = Uts(record.nodename)
        made.owner, made.charge = self.owned("uts", record.owner)
        made.nodename, made.domainname = record.nodename, record.domainname
        return made

    def _offsets(self, record: records.ClockOffsets) -> TimeNamespace:
        made, clock = TimeNamespace(*self.owned("time", record.owner)), self._kernel.clock
        made.monotonic_ns = _offset(record.monotonic_ns, clock.now_ns())
        made.boottime_ns = _offset(record.boottime_ns, clock.shown_ns(CLOCK_BOOTTIME))
        made.frozen = record.frozen
        return made

    def _cgroup(self, record: records.Owned) -> CgroupNamespace:
        return CgroupNamespace(self.container.cgroup, *self.owned("cgroup", record.owner))

    def ipcs(self) -> list[IpcNamespace]:
        """In the order of their records."""
        return self._lists["ipc"]

    def _ipc(self, record: records.IpcNamespace) -> IpcNamespace:
        self._kernel.vfs.budget.check_ipc_namespaces()
        return IpcNamespace(self._kernel, *self.owned("ipc", record.owner))

    def _net(self, record: records.NetworkNamespace) -> NetNamespace:
        made = NetNamespace(self._kernel, {}, *self.owned("net", record.owner))
        if record.is_up:
            bring_up(made.stack.interfaces.loopback)
        return made

    def stack(self, at: int | None) -> Stack:
        """Of a socket. Raises: Damaged."""
        found: NetNamespace = self.container.ns.net if at is None else _at(self._lists["net"], at)
        return found.stack

    def _where(self, record: records.Whereabouts) -> Whereabouts:
        places = {name: getattr(record, name) for name in KINDS}
        found = {
            name: _at(self._lists[KINDS[name]], at)
            for name, at in places.items() if at is not None
        }  # fmt: skip
        if record.mounts is not None:
            found["mounts"] = _at(self.mounts.held, record.mounts)
        made: Whereabouts = self.container.ns.but(**found)
        return made

    def named(self, record: records.NamedNamespace) -> Any:
        """As /proc/PID/ns has it. Raises: Damaged, ENOSPC."""
        what, place = record.what, record.place
        if what == "user":
            return self.user(place)
        if what == "pid":
            return self.pids(place)
        if place is None:
            return getattr(self.container.ns, "mounts" if what == "mnt" else what)
        return _at(self.mounts.held if what == "mnt" else self._lists[what], place)


def has_plain_loopback(stack: Stack) -> bool:
    """A loopback interface as a new namespace has it, up or down, and nothing else."""
    like = Interfaces(up=stack.interfaces.loopback.is_up).loopback
    own = [each for each in stack.interfaces if not each.is_loopback]
    is_like = all(
        getattr(stack.interfaces.loopback, name) == getattr(like, name)
        for name in ("name", "flags", "mtu", "queue_length", "ipv6_is_on", "addresses")
    )
    routes = stack.routes
    has_more = own or routes.added or not routes.rules.are_first or stack.ip or stack.netfilter
    return is_like and not has_more


def _offset(wanted_ns: int, now_ns: int) -> int:
    """One that leaves a clock where time_namespaces(7) lets it be: this host's may be earlier."""
    return min(max(wanted_ns, -now_ns), LATEST_NS - now_ns)


def _map(extents: list[tuple[int, int, int]]) -> userns.IdMap:
    """Of ids that there are."""
    for first, kernel_first, size in extents:
        if not size or max(first, kernel_first) + size > userns.NO_ID:
            raise Damaged("a map of ids that there are not")
    return userns.IdMap(userns.Extent(*each) for each in extents)


def _at(things: Any, at: int) -> Any:
    if at >= len(things):
        raise Damaged(f"there is no namespace {at}")
    return things[at]
