"""Process ids: who has which number, in which PID namespace. pid_namespaces(7), kernel/pid.c.

Inside the kernel a number is the one of the sandbox's first PID namespace: `Pids` has all tasks by
it. A `PidNamespace` below knows which of them are in it, and their numbers there; it is asked only
where a program gives or sees a number.

A further container of the sandbox may have a PID namespace beside the first one: one without a
parent. Nobody in the first one sees who is there, whose numbers in the tables are from APART on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentry.errors import EAGAIN, EEXIST, EINVAL, ENOMEM, ENOSPC, EPERM, ESRCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentry.auth.userns import Charge, UserNamespace
    from sentry.kernel.accounting_file import Accounting
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ProcessGroup, Session, ThreadGroup

PID_MAX = 4194304
"""PID_MAX_LIMIT, and the value of kernel.pid_max at the start."""
RESERVED_PIDS = 300
MAX_LEVEL = 32
APART = PID_MAX
"""Numbers from here on are those of tasks that are not in the first namespace."""
APART_MAX = 1 << 29


class PidNamespace:
    """A namespace below the first one, or (without a parent) beside it."""

    __slots__ = (
        "_inner", "_outer", "_root", "accounting", "charge", "ended", "init", "last", "level",
        "lingers", "mortal", "owner", "parent",
    )  # fmt: skip

    def __init__(
        self, parent: PidNamespace | None, root: Pids | None, owner: UserNamespace | None
    ) -> None:
        self.parent = parent
        self.level: int = parent.level + 1 if parent is not None else 0
        if self.level > MAX_LEVEL:
            raise ENOSPC("PID namespaces are too deep")
        self._root = root
        self.owner = owner
        self.init: ThreadGroup | None = None
        """Its first process, the reaper of orphans: None before it is made, and once it is gone."""
        self.mortal = False
        """Its first process dies of signals as others do: no init, but what a person called."""
        self.ended = False
        """The first process has died: no other can be made."""
        self.lingers = False
        """The first process waits for the others to be gone, before others may wait for it."""
        self.last = 0
        """The number given out last."""
        self.charge: Charge | None = None
        self.accounting: Accounting | None = None
        """Where the ends of its processes are recorded: acct(2)."""
        self._inner: dict[int, int] = {}
        """Number here → number in the first namespace."""
        self._outer: dict[int, int] = {}

    @property
    def _tables(self) -> Pids:
        assert self._root is not None
        return self._root

    def protects(self, group: ThreadGroup) -> bool:
        """pid_namespaces(7): whether signals without a handler do nothing to this process."""
        return self.init is group and not self.mortal

    # --- translation

    def of(self, number: int) -> int:
        """pid_nr_ns(): how a number reads here; 0 if nobody here has it."""
        return self._outer.get(number, 0)

    def known(self, number: int) -> int:
        """The number in the first namespace; 0 if nobody has it."""
        return self._inner.get(number, 0)

    def sees(self, group: ThreadGroup) -> bool:
        """The process has a number here."""
        return group.tgid in self._outer

    def numbers(self, number: int) -> list[int]:
        """NSpid of /proc/PID/status: here, and in every namespace below that has one."""
        below = (ns for ns in self._tables.nested(number) if ns.level > self.level)
        return [self.of(number), *(ns.of(number) for ns in below)]

    def contains(self, other: PidNamespace) -> bool:
        """The other one is this, or below it."""
        at: PidNamespace | None = other
        while at is not None and at is not self:
            at = at.parent
        return at is self

    def recorded(self) -> list[PidNamespace]:
        """This namespace and those above, as far as the ends of their processes are recorded."""
        found: list[PidNamespace] = []
        at: PidNamespace | None = self
        while at is not None:
            if at.accounting is not None:
                found.append(at)
            at = at.parent
        return found

    # --- looking up

    def task(self, number: int) -> Task | None:
        """The task with this number."""
        return self._tables.tasks.get(self.known(number))

    def task_or_zombie(self, number: int) -> Task | None:
        """The task with this number; also a leader that has ended, until it is waited for."""
        task = self.task(number)
        if task is None and (group := self.group(number)) is not None:
            task = group.leader
        return task

    def group(self, number: int) -> ThreadGroup | None:
        """The process, also a zombie."""
        return self._tables.groups.get(self.known(number))

    def process_group(self, number: int) -> ProcessGroup | None:
        """The process group."""
        return self._tables.process_groups.get(self.known(number))

    def to_foreground(self, number: int, session: Session) -> ProcessGroup:
        """The group for TIOCSPGRP; also one that a process of the session has not made yet.

        session_of_pgrp(), drivers/tty/tty_jobctrl.c. Raises: ESRCH, EPERM.
        """
        tables, known = self._tables, self.known(number)
        if not tables.is_taken(known):
            raise ESRCH(f"process group {number}")
        group, task = tables.process_groups.get(known), self.task_or_zombie(number)
        if group is None and task is not None and task.group.session is session:
            return session.group_of(known)
        if group is None or group.session is not session:
            raise EPERM(f"{number} is of another session")
        return group

    def members(self) -> list[ThreadGroup]:
        """The processes here and below, by number, zombies too."""
        groups = self._tables.groups
        return [groups[n] for _, n in sorted(self._inner.items()) if n in groups]

    def has_others(self, group: ThreadGroup) -> bool:
        """There is a process besides this one, a zombie perhaps."""
        groups = self._tables.groups
        return any(groups.get(number, group) is not group for number in self._inner.values())

    # --- numbers

    def pairs(self) -> list[tuple[int, int]]:
        """All that are known here: the number in the first namespace, and here."""
        return list(self._outer.items())

    def is_taken(self, number: int) -> bool:
        """Somebody here has it."""
        return number in self._inner

    def next_number(self, wanted: int) -> int:
        """The next free number, as Linux cycles through them; or `wanted`. EEXIST, EAGAIN."""
        if wanted:
            if self.is_taken(wanted):
                raise EEXIST(f"pid {wanted}")
            return wanted
        number, end = self.last, self._tables.pid_max
        for _ in range(end + 1):
            number = number + 1 if number + 1 < end else RESERVED_PIDS
            if not self.is_taken(number):
                self.last = number
                return number
        raise EAGAIN("kernel.pid_max")

    def enter(self, outer: int, number: int) -> None:
        """`outer` is known here as `number`."""
        self._inner[number] = outer
        self._outer[outer] = number

    def leave(self, outer: int) -> None:
        """Nobody has the number any more."""
        self._inner.pop(self._outer.pop(outer), None)


class Pids(PidNamespace):
    """The first namespace: tasks, processes, groups and sessions by number.

    Free is what none of them has.
    """

    def __init__(self, ceiling: int) -> None:
        super().__init__(None, None, None)
        self._ceiling = ceiling
        self.pid_max = PID_MAX
        """kernel.pid_max: all numbers are below it."""
        self.tasks: dict[int, Task] = {}
        self.groups: dict[int, ThreadGroup] = {}
        """By tgid, zombies too."""
        self.awaited: set[int] = set()
        """Of threads that are gone but for their tracer, who has not waited for them."""
        self.process_groups: dict[int, ProcessGroup] = {}
        self.sessions: dict[int, Session] = {}
        self._nested: dict[int, list[PidNamespace]] = {}
        """The namespaces below or beside, innermost first, in which a number has another."""
        self._last_apart = APART - 1
        self.has_others_apart = False
        """There are, or were, tasks that are not here."""

    @property
    def _tables(self) -> Pids:
        return self

    def of(self, number: int) -> int:
        """All numbers but those apart are these."""
        return number if number < APART else 0

    def known(self, number: int) -> int:
        """All numbers but those apart are these."""
        return number if number < APART else 0

    def task(self, number: int) -> Task | None:
        """The task with this number."""
        return self.tasks.get(number) if number < APART else None

    def sees(self, group: ThreadGroup) -> bool:
        """Everybody is here who is not apart."""
        return group.tgid < APART

    def members(self) -> list[ThreadGroup]:
        """All processes, by number."""
        return [self.groups[number] for number in sorted(self.groups) if number < APART]

    def nested(self, number: int) -> Sequence[PidNamespace]:
        """The namespaces below this one in which somebody has a number, outermost first."""
        return self._nested.get(number, ())[::-1]

    def set_max(self, value: int) -> None:
        """kernel.pid_max, from pid_max_min to pid_max_max. Raises: EINVAL."""
        if not RESERVED_PIDS < value <= PID_MAX:
            raise EINVAL(f"pid_max {value}")
        self.pid_max = value

    def is_taken(self, pid: int) -> bool:
        """A task, a zombie, a process, a group or a session has this number."""
        return (
            pid in self.tasks
            or pid in self.groups
            or pid in self.awaited
            or pid in self.process_groups
            or pid in self.sessions
        )

    def allocate(self, namespace: PidNamespace | None = None, wanted: Sequence[int] = ()) -> int:
        """Numbers in a namespace and all above it; `wanted` are some of them, innermost first.

        Gives the number here. Raises: EAGAIN at the ceiling of tasks, EEXIST, ENOMEM in a
        namespace that has ended.
        """
        if (
            len(self.tasks) + len(self.groups) >= self._ceiling * 2
            or len(self.tasks) >= self._ceiling
        ):
            raise EAGAIN("too many tasks")
        if namespace is None or namespace is self:
            return self.next_number(wanted[0] if wanted else 0)
        if namespace.ended:
            raise ENOMEM("the PID namespace has lost its first process")
        levels: list[PidNamespace] = []
        at: PidNamespace | None = namespace
        while at is not None and at is not self:
            levels.append(at)
            at = at.parent
        asked = [*wanted, *[0] * (len(levels) + 1 - len(wanted))]
        inner = [level.next_number(number) for level, number in zip(levels, asked, strict=False)]
        outer = self._next_apart() if at is None else self.next_number(asked[len(levels)])
        for level, number in zip(levels, inner, strict=True):
            level.enter(outer, number)
        self._nested[outer] = levels
        return outer

    def admit(self, namespace: PidNamespace, number: int) -> int:
        """Somebody comes with a number that he has had in a namespace beside this one: `nest` comes
        once all are there. Raises: EAGAIN at the ceiling of tasks."""
        if len(self.tasks) + len(namespace.pairs()) >= self._ceiling * 2:
            raise EAGAIN("too many tasks")
        outer = self._next_apart()
        namespace.enter(outer, number)
        return outer

    def nest(self, namespaces: Sequence[PidNamespace]) -> None:
        """These have been made, with the numbers in them, before anybody was in them."""
        for namespace in sorted(namespaces, key=lambda each: -each.level):
            for outer, _ in namespace.pairs():
                self._nested.setdefault(outer, []).append(namespace)

    def _next_apart(self) -> int:
        """For who is not in the first namespace."""
        self.has_others_apart = True
        while True:
            self._last_apart += 1
            if self._last_apart >= APART_MAX:
                self._last_apart = APART
            if not self.is_taken(self._last_apart):
                return self._last_apart

    def release(self, number: int) -> None:
        """Something that had the number is gone; perhaps it was the last."""
        if number in self._nested and not self.is_taken(number):
            for namespace in self._nested.pop(number):
                namespace.leave(number)

    def forget_if_empty(self, group: ProcessGroup) -> None:
        """Drop a process group without members, and its session after the last group."""
        if group.members:
            return
        self.process_groups.pop(group.pgid, None)
        group.session.groups.discard(group)
        if not group.session.groups:
            self.sessions.pop(group.session.sid, None)
            self.release(group.session.sid)
        self.release(group.pgid)

