"""What a control server may ask of, and change in, a sandbox: the same for all of its containers.

Who looks on (traces, policies, packets, profiles, figures), what goes wrong on purpose, and the
time that programs see. `Operations` is that and what is about one container.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from sentry.control.counts import counts
from sentry.control.descriptors import close_all
from sentry.errors import EBUSY, EINVAL, EPERM

if TYPE_CHECKING:
    from sentry.config import FurtherConfig
    from sentry.control.answers import (
        ClockState,
        EgressState,
        Packets,
        PolicyTold,
        Procfs,
        Profile,
        Said,
        Stacks,
        TraceState,
    )
    from sentry.control.egress import DenialWait
    from sentry.control.observing import Observing
    from sentry.control.orders import (
        ClockOrder,
        Decided,
        ForkOrder,
        InjectOrder,
        PolicyOrder,
        Trace,
    )
    from sentry.control.packets import Capture
    from sentry.control.policies import QuestionWait
    from sentry.control.profile import Profiler
    from sentry.control.protocol import Request
    from sentry.control.repl import Repl
    from sentry.control.timing import Advancing
    from sentry.control.watchdog import Watchdog
    from sentry.faults import InjectState
    from sentry.kernel.container import Container
    from sentry.kernel.kernel import Kernel

MAX_PROFILE_NS = 3600 * 10**9
Told = Callable[[str], object]
"""Hears later that it is done (""), or what failed."""


class Shared(Protocol):
    """What the containers of a sandbox have in common: sentry.boot.further."""

    log_fd: int
    strace_fd: int
    watchdog: Watchdog
    forks: Forking | None
    repl_is_on: bool

    def add(self, config: FurtherConfig, fds: list[int], told: Told) -> Bringing:
        """Bring a container up."""
        ...


class Forking(Protocol):
    """Who copies a sandbox: sentry.fork."""

    stands: bool

    def ask(self, asked: ForkOrder | None, fds: list[int], told: Told) -> None:
        """Make one."""

    def give_way(self, fds: list[int], told: Told) -> None:
        """Another one goes on in its place."""


class Bringing(Protocol):
    """A container that comes."""

    def look(self) -> None: ...
    def abandon(self) -> None: ...


class Oversight:
    """Of a sandbox, asked by way of a container of it."""

    def __init__(self, kernel: Kernel, container: Container, shared: Shared) -> None:
        self._kernel = kernel
        self._container = container
        self._shared = shared
        self._observing: Observing | None = None
        self._profiler: Profiler | None = None
        self._repl: Repl | None = None

    def control_egress(self, request: Request, fds: list[int]) -> EgressState:
        """Another policy, if there is one, and what there is. `fds`: the way to its dialer.

        Raises: EINVAL, EOPNOTSUPP.
        """
        from sentry.control import egress  # noqa: PLC0415  few ask

        dialer = egress.dialer_of(fds, self._kernel.loop)
        try:
            found = egress.of(self._kernel)
            if request.egress is not None:
                given, dialer = dialer, None
                egress.change(found, request.egress, given)
        finally:
            if dialer is not None:
                dialer.close()
        return egress.state(found, request.after)

    def control_denials(self, after: int, done: Callable[[], None]) -> DenialWait:
        """Tell when more has been denied. Raises: EOPNOTSUPP."""
        from sentry.control.egress import DenialWait, of  # noqa: PLC0415  few ask

        return DenialWait(self._kernel.loop, of(self._kernel), after, done)

    def control_policy(self, order: PolicyOrder, done: Told) -> PolicyTold | None:
        """Who decides on calls: another policy (`done` hears of it), what there is, an answer.

        Raises: EBUSY, EINVAL, ENOENT.
        """
        from sentry.control import policies  # noqa: PLC0415  few have one

        return policies.do(self._kernel, self._shared.watchdog, order, done)

    def control_questions(
        self, after: int, done: Callable[[PolicyTold], object]
    ) -> QuestionWait:
        """Tell when a policy has asked more."""
        from sentry.control.policies import QuestionWait  # noqa: PLC0415  few have one

        return QuestionWait(self._kernel, self._shared.watchdog, after, done)

    def control_packets(self, interface: str, told: Callable[[Packets], object]) -> Capture:
        """Look at what goes by an interface, or all of them. Raises: ENODEV, EBUSY."""
        from sentry.control.packets import Capture  # noqa: PLC0415  few ask

        return Capture(self._container.ns.net.stack, interface, self._kernel.loop, told)

    def control_counts(self) -> dict[str, int]:
        """How much of everything there is."""
        return counts(self._kernel)

    def control_strace(self, trace: Trace, fds: list[int], done: Callable[[str], object]) -> None:
        """Write calls from now on, or no more. Raises: EBUSY, EINVAL; `fds` are closed."""
        self._observers().strace(trace, fds, done)

    def control_log(self, debug: bool, done: Callable[[str], object]) -> None:
        """Count what programs do not get, or tell it and count no more. Raises: EBUSY, EINVAL."""
        self._observers().debug(on=debug, done=done)

    def _observers(self) -> Observing:
        if self._observing is None:
            from sentry.control.observing import Observing  # noqa: PLC0415  few ask

            shared = self._shared
            self._observing = Observing(self._kernel, shared.log_fd, shared.strace_fd)
        return self._observing

    def control_trace(self, request: Request, fds: list[int], done: Told) -> None:
        """Somebody listens from now on. Raises: EBUSY, EEXIST, EINVAL; `fds` are closed."""
        from sentry.control import tracing  # noqa: PLC0415  few ask

        if request.session is None:
            close_all(fds)
            raise EINVAL("which session?")
        tracing.create(self._kernel, request.session, fds, done, force=request.force)

    def control_untrace(self, name: str) -> None:
        """Nobody of that session listens any more. Raises: ENOENT."""
        from sentry.control import tracing  # noqa: PLC0415  few ask

        tracing.delete(self._kernel, name)

    def control_traces(self) -> list[TraceState]:
        """Who listens."""
        from sentry.control import tracing  # noqa: PLC0415  few ask

        return tracing.sessions(self._kernel)

    def control_procfs(self, after: int) -> Procfs:
        """Some processes, as /proc has them."""
        from sentry.control import procfs  # noqa: PLC0415  few ask

        return procfs.after(self._kernel, after)

    def control_metrics(self) -> dict[str, int]:
        """Figures, by the names that Prometheus has for them."""
        from sentry.control import metrics  # noqa: PLC0415  few ask

        return metrics.of(self._kernel)

    def control_stacks(self, after: int) -> Stacks:
        """Some tasks after that one, or (-1) coroutines and threads of the kernel."""
        from sentry.control import stacks  # noqa: PLC0415  few ask

        if after < 0:
            return stacks.of_kernel(self._kernel)
        return stacks.tasks_after(self._kernel, after)

    def control_inject(self, order: InjectOrder) -> list[InjectState]:
        """Faults. Raises: EINVAL."""
        from sentry.inject import plan  # noqa: PLC0415  few ask

        found = plan.of(self._kernel)
        if order.rules is not None:
            found.replace(order.rules)
        return found.states()

    def control_decided(self) -> Decided:
        """What is in force of policies and faults."""
        from sentry.control import decisions  # noqa: PLC0415  few ask

        return decisions.of(self._kernel)

    def decide(self, decided: Decided) -> None:
        """That holds from now on. Preconditions: no program runs. Raises: EINVAL."""
        from sentry.control import decisions  # noqa: PLC0415  few go back

        decisions.put(self._kernel, self._shared.watchdog, decided)

    def control_clock(self, asked: ClockOrder) -> ClockState:
        """The time that programs see. Raises: EINVAL."""
        from sentry.control import timing  # noqa: PLC0415  few ask

        return timing.order(self._kernel, asked)

    def control_advance(self, by_ns: int, done: Callable[[ClockState], object]) -> Advancing:
        """It goes on, from timer to timer. Raises: EBUSY, EINVAL."""
        from sentry.control.timing import Advancing  # noqa: PLC0415  few ask

        return Advancing(self._kernel, by_ns, done)

    def control_profile(self, time_ns: int, done: Callable[[Profile], object]) -> None:
        """Measure for so long. Raises: EBUSY if somebody does already, EINVAL."""
        if self._profiler is not None:
            raise EBUSY("it is being profiled already")
        if not 0 < time_ns <= MAX_PROFILE_NS:
            raise EINVAL(f"a profile of {time_ns} ns")
        from sentry.control.profile import Profiler  # noqa: PLC0415

        self._profiler = Profiler(self._kernel)

        def finish() -> None:
            profiler, self._profiler = self._profiler, None
            if profiler is not None:
                long_steps = self._shared.watchdog.long_steps()
                done(msgspec.structs.replace(profiler.stop(), long_steps=long_steps))

        self._kernel.loop.call_at(time.monotonic_ns() + time_ns, finish)

    def control_repl(self, source: str) -> Said:
        """Run a statement on the kernel's objects. Raises: EPERM if it was not started for that."""
        if not self._shared.repl_is_on:
            raise EPERM("the sandbox was not started with runsc --repl")
        if self._repl is None:
            from sentry.control.repl import Repl  # noqa: PLC0415

            self._repl = Repl(self._kernel)
        return self._repl.run(source)
