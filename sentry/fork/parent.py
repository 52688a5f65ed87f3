"""`Forks`: a sandbox that runs is copied, by fork(2) of the process that is its kernel.

For a moment nothing moves: no program is in a vCPU, the Gofer and the threads for host calls have
answered everything. Then the memory of the programs is frozen (`Ram.freeze`): both go on with
private mappings of it. The parent goes on where it stood; what the child does is in `child`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from sentry.control.descriptors import close_all
from sentry.errors import EBUSY, EINVAL, EOPNOTSUPP, Errno
from sentry.fork.child import Child
from sentry.fork.order import Order
from sentry.fork.order import order as order_of
from sentry.fork.succession import Place
from sentry.kernel import pause

if TYPE_CHECKING:
    from sentry.config import SandboxConfig
    from sentry.control.operations import Operations
    from sentry.control.orders import ForkOrder
    from sentry.control.server import ControlServer
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.own_memory import OwnMemory
    from sentry.platform.kvm import KvmPlatform

Told = Callable[[str], object]


class Outside(Protocol):
    """The network of a sandbox with a network process: behind interfaces of the host, or sockets of
    it."""

    @property
    def is_asked(self) -> bool:
        """It has not answered all yet."""

    def leave(self, null: int = -1) -> None:
        """Nothing of it is there any more, and nobody outside hears of that. In a copy /dev/null
        is under the number of each socket of the host then."""

    def join(self, fd: int, joined: Callable[[str], object]) -> None:
        """Another one, by its network process; `joined` "" when it is there, or why not.
        Preconditions: it has left."""


LOOK_NS: Final = 200_000
PATIENCE_NS: Final = 5_000_000_000
"""So long something may take that is under way; a server behind FUSE may take for ever."""
MAX_WAITING: Final = 1024
SMALL: Final = 16 << 20
"""Bytes."""


class Forks:
    """Of one sandbox, which has been started as one that may be forked."""

    def __init__(
        self, kernel: Kernel, machine: KvmPlatform, config: SandboxConfig, operations: Operations
    ) -> None:
        self.kernel = kernel
        self.machine = machine
        self.config = config
        self.operations = operations
        self.server: ControlServer | None = None
        self.own_memory: OwnMemory | None = None
        self.seal: Callable[[], object] = lambda: None
        """Takes from a child what only its beginning needs; filled in by who made this process."""
        self.prepare: Callable[[], object] | None = None
        """What comes before the first one; filled in like that."""
        self.gofer_end = -1
        """Watched for the end of the Gofer."""
        self.is_fork = False
        self.is_sealed = False
        """A fork that has given up what forking takes."""
        self.stands = False
        """A template: nothing of it goes on."""
        self.place = Place(kernel, self._is_quiet)
        self._gives_way = False
        self.has_link = config.link is not None
        """A network whose other end is its own."""
        self.outside: Outside | None = None
        """Where it has one."""
        self._orders: deque[tuple[Order, Told]] = deque()
        self._since_ns = 0

    @property
    def is_small(self) -> bool:
        """A fork that has not allocated much: to look for garbage would copy more than it finds."""
        own = self.own_memory
        return self.is_fork and own is not None and own.used < SMALL

    def ask(self, asked: ForkOrder | None, fds: list[int], told: Told) -> None:
        """Make one; `told` "" when there is its process, which reports for itself, or why not.

        Raises: Errno; the descriptors are closed then.
        """
        order = order_of(asked, fds)
        try:
            if order.asked.succeeds and not self.stands:
                raise EINVAL("only of a template one goes on in the place of its sandbox")
            if order.asked.network and self.outside is None:
                raise EOPNOTSUPP("it was not started with such a network")
            self._check()
        except Errno:
            close_all(fds)
            raise
        if order.asked.link is not None:  # all forks have it in common then
            from sentry.net import given  # noqa: F401, PLC0415  few have one
        if order.asked.decided is not None:
            from sentry.control import decisions  # noqa: PLC0415  few go back

            decisions.prepare(order.asked.decided)
        if self.prepare is not None:
            self.prepare()
            self.prepare = None
        self._orders.append((order, told))
        if len(self._orders) == 1:
            self._stop()

    def give_way(self, fds: list[int], told: Told) -> None:
        """Another process goes on in the place of this one: nothing of it moves any more when that
        is `told`. Raises: EBUSY, EINVAL, EOPNOTSUPP; the descriptors are closed then."""
        try:
            if len(fds) != 1:
                raise EINVAL("a way to who goes on")
            if self.is_fork:
                raise EOPNOTSUPP("a fork is ended by who makes another one")
            if self.kernel.further:
                raise EOPNOTSUPP("a sandbox with further containers has no way back")
            if self._orders:
                raise EBUSY("it is being forked")
            if self._gives_way:
                raise EBUSY("another process is about to take its place")
        except Errno:
            close_all(fds)
            raise
        self._gives_way = True
        pause.stand(self.kernel.container, lambda: self._leave(fds[0], told))

    def _leave(self, successor: int, told: Told) -> None:
        """All programs stand."""
        if not self.place.leave(successor, told) and self.kernel.exit_status is None:
            self._gives_way = False
            self._go_on()

    def _check(self) -> None:
        init = self.kernel.container.init
        if self._gives_way:
            raise EBUSY("another process takes its place")
        if self.is_sealed:
            raise EOPNOTSUPP("this fork was not made as one that can be forked")
        if len(self._orders) >= MAX_WAITING:
            raise EBUSY("too many forks are asked for at once")
        if init is None or not init.tasks or init.exiting:
            raise EBUSY("the sandbox has ended")
        if self.operations.waits_for_start:
            raise EBUSY("the sandbox has not been started")
        if self.operations.has_terminals:
            raise EBUSY("a command has a terminal, which cannot be copied")
        if self.kernel.further:
            raise EOPNOTSUPP("a sandbox with further containers cannot be forked")

    def _stop(self) -> None:
        self._since_ns = self.kernel.loop.now_ns()
        pause.stand(self.kernel.container, self._look)

    def _look(self) -> None:
        """Whether nothing moves, now or in a moment."""
        loop = self.kernel.loop
        problem = self._moving()
        if not problem:
            loop.call_soon(self._fork_next)
        elif loop.now_ns() - self._since_ns < PATIENCE_NS:
            loop.call_at(loop.now_ns() + LOOK_NS, self._look)
        else:
            self._go_on()
            orders, self._orders = self._orders, deque()
            for order, told in orders:
                close_all(order.given)
                told(f"the sandbox does not come to a standstill: {problem}")

    def _moving(self) -> str:
        """What does; "" if nothing."""
        kernel = self.kernel
        for session in kernel.services.gofers:
            session.drain()
            if session.unanswered or session.crowded:
                return "the Gofer has not answered"
        if self.outside is not None and self.outside.is_asked:
            return "the network process has not answered"
        threads = kernel.vfs.host_io.threads if kernel.vfs.host_io is not None else ()
        if len(threads):
            return "a call of the host takes its time"
        if kernel.watch is not None and kernel.watch.is_changing:
            return "a trace session begins"
        if kernel.policy is not None and kernel.policy.is_changing:
            return "another policy is on its way"
        if not self.machine.park():
            return "a program runs"
        return ""

    def _is_quiet(self) -> bool:
        return self.outside is None and not self.has_link and not self._moving()

    def _fork_next(self) -> None:
        """One for each turn of the loop. A child returns from here into a loop of its own."""
        if not self._moving():
            order, told = self._orders.popleft()
            if self._fork(order, told):
                return
        self._since_ns = self.kernel.loop.now_ns()
        if self._orders:
            self._look()
        else:
            self._go_on()

    def _fork(self, order: Order, told: Told) -> bool:
        """True in the child."""
        kernel = self.kernel
        sessions: list[int] = []
        try:
            self._check()  # others were heard since it was asked for
            sessions += [each.duplicate() for each in kernel.services.gofers]
            pid = self.machine.fork()
        except (Errno, OSError) as error:
            why = error.why() if isinstance(error, Errno) else (error.strerror or "").lower()
            told(f"cannot fork: {why}")
            pid = -1
        if not pid:
            Child(self, order.asked, order.given, sessions).begin()
            return True
        close_all((*order.given, *sessions))
        if pid > 0:
            told("")
        return False

    def hang_up(self) -> None:
        """Nothing of it goes on: who is at the other end of its network ends by that."""
        if self.outside is not None:
            self.outside.leave()
        if self.has_link:
            from sentry.net import given  # noqa: PLC0415  few have one

            given.hang_up(self.kernel.first.net.stack)

    def forget_orders(self) -> None:
        """In the child: they are its parent's."""
        for order, _ in self._orders:
            close_all(order.given)
        self._orders.clear()

    def _go_on(self) -> None:
        pause.stand_no_more(self.kernel.container)
