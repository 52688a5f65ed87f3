"""`Cgroup`: the tree of control groups of version 2: who is in which, and what holds for them.

Documentation/admin-guide/cgroup-v2.rst. The top is the container's own cgroup, whose limits the
host enforces on the sandbox; those below are made by programs, through `sentry.fs.cgroup`. Only
what the Sentry enforces itself can be had for them: the number of tasks (the controller `pids`),
freezing, killing. All threads of a process are in the same cgroup: there are no threaded ones.

The rights of who writes are looked at by the file system.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Final, Protocol

from sentry.abi.signal import SIGKILL
from sentry.errors import EAGAIN, EBUSY, ENODEV, ENOENT, ENOSPC
from sentry.kernel.device_filters import DeviceFilters, check, removed
from sentry.wait.queue import ChangeCount
from sentry.wait.steps import Steps

MAX_CGROUPS: Final = 4_096
"""Of one sandbox."""
MAX_DEPTH: Final = 128
"""Below the top: every birth of a task is charged on each level."""
ROOT: Final = (0, 0)
ENABLED: Final = ("pids",)
"""Controllers that a cgroup may give to those in it."""


class Thread(Protocol):
    """A task."""

    dead: bool
    stopped: bool

    @property
    def fiber(self) -> Any: ...


Process = Any
"""A ThreadGroup, which knows this module."""


class Cgroup:
    """One control group."""

    __slots__ = (
        "charged", "children", "container", "dead", "descendants", "devices",
        "enabled", "events", "freeze",
        "freezing", "frozen", "gone_sys_ns", "gone_user_ns", "listeners", "look", "max_depth",
        "max_descendants", "members", "name", "owner", "parent", "peak", "pids_events", "pids_hits",
        "pids_hits_here", "pids_max", "populated_children", "root_fs", "runs",
        "unsettled",
    )  # fmt: skip

    def __init__(self, parent: Cgroup | None, name: bytes) -> None:
        self.parent = parent
        self.name = name
        self.container: Any = parent.container if parent is not None else None
        """Whose it is: sentry.kernel.container."""
        self.owner = ROOT
        """Who made it: its files are theirs."""
        self.children: dict[bytes, Cgroup] = {}
        self.descendants = 0
        self.devices: DeviceFilters | None = None
        """Which devices may be used in it and below: sentry.kernel.device_filters."""
        self.max_depth: int | None = None
        self.max_descendants: int | None = None
        self.dead = False
        """rmdir(2) has removed it."""
        self.enabled: tuple[str, ...] = ()
        """cgroup.subtree_control"""
        self.members: dict[Process, None] = {}
        """Processes that have a living thread."""
        self.populated_children = 0
        self.events = ChangeCount()
        """Told when `populated` or `frozen` is another."""
        self.freeze = False
        """cgroup.freeze"""
        self.freezing: bool = parent is not None and parent.freezing
        """It, or one above, is to stand still."""
        self.frozen = False
        """It is to stand still, and all in it and below do."""
        self.unsettled = 0
        """How many freeze or thaw it, and have not told everybody yet."""
        self.runs: tuple[Process, Thread] | None = None
        """One that did not stand yet when it was looked at last."""
        self.charged = 0
        """Tasks here and below, zombies too."""
        self.peak = 0
        self.pids_max: int | None = None
        self.pids_hits = self.pids_hits_here = 0
        """How often a limit was met: here or below; that of this one."""
        self.pids_events = ChangeCount()
        self.gone_user_ns = self.gone_sys_ns = 0
        """CPU time, here and below, of those that have left."""
        self.listeners: list[Any] = []
        """Its directories that somebody holds, one for each file system (sentry.fs.cgroup)."""
        self.look: dict[bytes, Any] = {}
        """Modes, owners and extended attributes by name of the file; of the directory by b""."""
        self.root_fs: Any = None
        """The file system that shows it as its root."""

    # --- the tree

    def up(self) -> Iterator[Cgroup]:
        """This one and those above, to the top."""
        at: Cgroup | None = self
        while at is not None:
            yield at
            at = at.parent

    def down(self) -> Iterator[Cgroup]:
        """This one and all below, each before what is in it."""
        waiting = [self]
        while waiting:
            at = waiting.pop()
            yield at
            waiting.extend(at.children.values())

    def path_from(self, root: Cgroup) -> str:
        """cgroup_path_ns(): "/" is the root of a namespace; from outside it begins with "/..".

        The name of one that was removed ends with " (deleted)".
        """
        above = list(root.up())
        mine = []
        common = root
        for at in self.up():
            if at in above:
                common = at
                break
            mine.append(at.name.decode(errors="surrogateescape"))
        parts = [".."] * above.index(common) + mine[::-1]
        return "/" + "/".join(parts) + (" (deleted)" if self.dead else "")

    def is_below(self, other: Cgroup) -> bool:
        """It is the other one, or below it."""
        return any(at is other for at in self.up())

    def make(self, name: bytes) -> Cgroup:
        """cgroup_mkdir(). Raises: EAGAIN, ENODEV, ENOSPC."""
        if self.dead:
            raise ENODEV("the cgroup is gone")
        for depth, at in enumerate(self.up(), 1):
            if at.max_descendants is not None and at.descendants >= at.max_descendants:
                raise EAGAIN("cgroup.max.descendants")
            if at.max_depth is not None and depth > at.max_depth:
                raise EAGAIN("cgroup.max.depth")
        if depth > MAX_DEPTH:
            raise EAGAIN("the ceiling of depth")
        if at.descendants >= MAX_CGROUPS:
            raise ENOSPC("the ceiling of cgroups")
        made = self.children[name] = Cgroup(self, name)
        for at in self.up():
            at.descendants += 1
        made.frozen = made.freezing
        return made

    def remove(self) -> None:
        """cgroup_rmdir(). Raises: EBUSY while there is anybody in it or a cgroup below."""
        assert self.parent is not None
        if self.members or self.children:
            raise EBUSY("in use")
        del self.parent.children[self.name]
        self.dead = True
        removed(self)
        for at in self.parent.up():
            at.descendants -= 1
        self.parent.settle_frozen()

    # --- controllers

    @property
    def controllers(self) -> tuple[str, ...]:
        """What it may give to those in it: what it was given."""
        return self.parent.enabled if self.parent is not None else ENABLED

    def control(self, give: set[str], take: set[str]) -> None:
        """cgroup.subtree_control. Raises: ENOENT, EBUSY."""
        if give - set(self.controllers):
            raise ENOENT("a controller that it does not have itself")
        if any(take & set(child.enabled) for child in self.children.values()):
            raise EBUSY("given on further below")
        new = give - set(self.enabled)
        if new and self.members and self.populated_children:
            raise EBUSY("processes here and below")
        self.enabled = tuple(name for name in ENABLED if name in {*self.enabled, *give} - take)
        if "pids" in take:
            for child in self.children.values():
                child.pids_max = None

    def check_new_members(self) -> None:
        """cgroup_migrate_vet_dst(). Raises: EBUSY, ENODEV."""
        if self.dead:
            raise ENODEV("the cgroup is gone")
        if self.enabled and self.populated_children:
            raise EBUSY("the processes are further below")

    def check_birth(self) -> None:
        """pids_can_fork(). Raises: EAGAIN."""
        for at in self.up():
            if at.pids_max is not None and at.charged >= at.pids_max:
                at.pids_hits_here += 1
                for above in at.up():
                    above.pids_hits += 1
                    above.pids_events.happened()
                    above.tell(b"pids.events")
                raise EAGAIN(f"pids.max is {at.pids_max}")

    def check_device(self, kind: int, rdev: int, access: int) -> None:
        """Those in it may use a device. Raises: EPERM."""
        if any(at.devices is not None for at in self.up()):
            check(self, kind, rdev, access)

    # --- members

    def born(self, group: Process) -> None:
        """A thread was made, the first or a further one of a process that is here."""
        for at in self.up():
            at.charged += 1
            at.peak = max(at.peak, at.charged)
        if group not in self.members:
            self._add(group)

    def thread_ends(self, group: Process) -> None:
        """A thread of a process that is here is gone; the last one stays as a zombie."""
        if group.tasks:
            self._charge(-1)
        else:
            self._count(*group.cpu_ns())
            self._drop(group)
        if self.runs is not None and self.runs[1].dead:
            self.runs = None
        if self.freezing:
            self.settle_frozen()

    def reaped(self) -> None:
        """A zombie is gone."""
        self._charge(-1)

    def take(self, group: Process) -> None:
        """Move a process here, threads and all; it is allowed. A zombie stays where it is."""
        old = group.cgroup
        if old is self or not group.tasks:
            return
        old._charge(-len(group.tasks))
        old._count(*group.cpu_ns())
        old._drop(group)
        group.cgroup = self
        self._charge(len(group.tasks))
        user_ns, sys_ns = group.cpu_ns()
        self._count(-user_ns, -sys_ns)
        self._add(group)
        if self.freezing or old.freezing:
            from sentry.kernel import pause  # noqa: PLC0415  hardly ever

            (pause.halt if self.freezing else pause.go_on)(group)
        old.settle_frozen()
        self.settle_frozen()

    def _charge(self, tasks: int) -> None:
        for at in self.up():
            at.charged += tasks
            at.peak = max(at.peak, at.charged)

    def _count(self, user_ns: int, sys_ns: int) -> None:
        for at in self.up():
            at.gone_user_ns += user_ns
            at.gone_sys_ns += sys_ns

    def _add(self, group: Process) -> None:
        was = self.populated
        self.members[group] = None
        if not was:
            self._populated_changes(1)

    def _drop(self, group: Process) -> None:
        self.members.pop(group, None)
        if not self.populated:
            self._populated_changes(-1)

    def _populated_changes(self, by: int) -> None:
        """cgroup_update_populated(): this one is not as it was, perhaps those above neither."""
        self._changed()
        at = self.parent
        while at is not None:
            was = at.populated
            at.populated_children += by
            if at.populated is was:
                break
            at._changed()
            at = at.parent

    @property
    def populated(self) -> bool:
        """A process is here or below."""
        return bool(self.members or self.populated_children)

    def cpu_ns(self) -> Generator[str, None, tuple[int, int]]:
        """CPU time of all here and below, also of who has left: of programs, and of the kernel.

        An empty piece of text for each process.
        """
        user, system = self.gone_user_ns, self.gone_sys_ns
        for group in [group for at in self.down() for group in at.members]:
            more_user, more_system = group.cpu_ns()
            user, system = user + more_user, system + more_system
            yield ""
        return user, system

    def kill(self, by: Any) -> Steps[None]:
        """cgroup.kill: SIGKILL for everybody here and below, sent by a task.

        As always, the first process of a PID namespace is safe from those in it. Who is forked
        meanwhile dies, too.
        """
        more = True
        while more:
            more = False
            for group in [group for at in self.down() for group in at.members]:
                spared = group.pids.init is group and group.pids.sees(by.group)
                if group.exiting:
                    group.hurry()
                elif not spared:
                    more = True
                    group.exit(SIGKILL)
                yield

    # --- freezing

    def set_freeze(self, on: bool) -> Steps[None]:
        """cgroup_freeze(). What sleeps in a call is woken, and makes the call again later."""
        if self.freeze is on:
            return
        from sentry.kernel import pause  # noqa: PLC0415  hardly ever

        self.freeze = on
        all_below = list(self.down())
        groups: list[Process] = []
        for at in all_below:
            was = at.freezing
            at.freezing = at.freeze or (at.parent is not None and at.parent.freezing)
            if at.freezing is not was:
                groups += at.members
            at.unsettled += 1
        try:
            for group in groups:
                (pause.halt if group.cgroup.freezing else pause.go_on)(group)
                yield
        finally:
            for at in reversed(all_below):  # each after those below it
                at.unsettled -= 1
                at._settles()
        if self.parent is not None:
            self.parent.settle_frozen()

    def settle_frozen(self) -> None:
        """Somebody stands still now, or came, or went: say so, up to where nothing changes."""
        for at in self.up():
            if not at._settles():
                break

    def _settles(self) -> bool:
        """It stands still now, or does not any more, and did not or did before."""
        frozen = (
            self.freezing
            and not self.unsettled
            and self._all_stand()
            and all(child.frozen for child in self.children.values())
        )
        if frozen is self.frozen:
            return False
        self.frozen = frozen
        self._changed()
        return True

    def _all_stand(self) -> bool:
        """Asked each time that one stands still: those that were found so before come last."""
        if self.runs is not None:
            group, task = self.runs
            if group in self.members and not _stands(task):
                return False
        running = (
            (group, task)
            for group in reversed(self.members)
            for task in reversed(group.tasks)
            if not _stands(task)
        )
        self.runs = next(running, None)
        return self.runs is None

    # --- who listens

    def _changed(self) -> None:
        self.events.happened()
        self.tell(b"cgroup.events")

    def tell(self, name: bytes) -> None:
        """A file has another content: kernfs_notify()."""
        for directory in list(self.listeners):
            directory.changed(name)


def _stands(task: Thread) -> bool:
    """Not in ring 3: it stands still, sleeps in a call that nothing ends early, or is dead."""
    return task.stopped or task.dead or task.fiber is not None
