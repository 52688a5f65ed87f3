"""`Controlled`: what a control server needs of the kernel, and of what is asked of it meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sentry.config import FurtherConfig
    from sentry.control.answers import (
        ClockState,
        EgressState,
        Packets,
        PolicyTold,
        ProcessInfo,
        Procfs,
        Profile,
        Said,
        Stacks,
        Stats,
        TraceState,
    )
    from sentry.control.connection import Connection
    from sentry.control.orders import (
        ClockOrder,
        Decided,
        ExecProcess,
        FileOrder,
        ForkOrder,
        InjectOrder,
        PolicyOrder,
        ServeOrder,
        Trace,
    )
    from sentry.control.protocol import Reply, Request
    from sentry.faults import InjectState


class Running(Protocol):
    """A process of `exec`, as its connection sees it."""

    def signal(self, number: int, everyone: bool) -> None:
        """Send it a signal, or all that has come of it. Raises: EINVAL."""

    def abandon(self) -> None:
        """The connection has ended."""


class Waiting(Protocol):
    """What a connection waits for."""

    def look(self) -> None:
        """It may be there already."""

    def abandon(self) -> None:
        """The connection has ended."""


class Looking(Protocol):
    """Somebody who looks at what goes by interfaces."""

    def ask(self, *, ends: bool) -> None:
        """For more."""

    def end(self) -> None:
        """No more."""


class Controlled(Protocol):
    """What the kernel offers. Each may raise an Errno: its text goes back to the caller."""

    def control_create(
        self, config: FurtherConfig, fds: list[int], told: Callable[[str], object]
    ) -> Waiting:
        """Add a container, which waits for its start; `told` "" or why not."""
        ...

    def control_exec(self, request: ExecProcess, fds: list[int], client: Connection) -> Running:
        """Add a process; `client` is told later what became of it. Takes the descriptors."""
        ...

    def control_attach(self, pid: int, fds: list[int], client: Connection) -> Running:
        """In a fork: be the client of a process, with these streams. Takes the descriptors."""
        ...

    def control_pause(self, done: Callable[[], object]) -> None:
        """Hold all programs; `done` once they stand, and others see what they did to files."""

    def control_sync(self, told: Callable[[str], object]) -> None:
        """Have all that was done to files on the host's disk; `told` "" then, or what failed."""

    def control_share(self, told: Callable[[str], object]) -> None:
        """Have what is done to the root on the host at once, from now on; `told` the same."""

    def control_resume(self) -> None:
        """Let them go on."""

    def control_start(self) -> None:
        """Make the first process run."""

    def control_resize(self) -> None:
        """The terminal of the first process has a new size on the host."""

    def control_update(self, request: Request) -> None:
        """Other limits; None is left as it is."""

    def control_kill(self, pid: int, signal: int, everyone: bool) -> None:
        """Send a signal to a process of the container, or to all of them."""

    def control_wait(self, pid: int, done: Callable[[int], object]) -> Waiting:
        """Tell how a process ends, `done` with its wait(2) status."""
        ...

    def control_forward(self, port: int, fds: list[int], told: Callable[[str], object]) -> Waiting:
        """Connect to a port inside; `fds` are the ways in and out; `told` "" or why not."""
        ...

    def control_read(
        self, request: Request, fds: list[int], told: Callable[[str], object]
    ) -> Waiting:
        """Read a file into a pipe; `told` "" at its end, or what failed."""
        ...

    def control_file(
        self, order: FileOrder, fds: list[int], told: Callable[[Reply], object]
    ) -> Waiting:
        """Do something with files; `told` what came of it."""
        ...

    def control_checkpoint(
        self, parent: str, fds: list[int], told: Callable[[Reply], object]
    ) -> Waiting:
        """Write a snapshot into two files; all stand still until the wait is abandoned."""
        ...

    def control_oom(self, known: int, done: Callable[[], None]) -> Waiting:
        """Tell when memory has run out more than so many times."""
        ...

    def control_egress(self, request: Request, fds: list[int]) -> EgressState:
        """What may leave, after a change if one is asked for, and what was denied."""
        ...

    def control_policy(
        self, order: PolicyOrder, done: Callable[[str], object]
    ) -> PolicyTold | None:
        """Who decides on calls, now or as `done` tells."""
        ...

    def control_questions(self, after: int, done: Callable[[PolicyTold], object]) -> Waiting:
        """Tell when a policy has asked more."""
        ...

    def control_denials(self, after: int, done: Callable[[], None]) -> Waiting:
        """Tell when more has been denied."""
        ...

    def control_packets(self, interface: str, told: Callable[[Packets], object]) -> Looking:
        """Look at what goes by an interface, or by all; `told` some of it for each question."""
        ...

    def control_fork(
        self, asked: ForkOrder | None, fds: list[int], told: Callable[[str], object]
    ) -> None:
        """Make another sandbox of this one as it is; `told` "" when it has begun, or why not."""

    def control_succeed(self, fds: list[int], told: Callable[[str], object]) -> None:
        """Another process goes on in its place, to which there is a way; `told` "" then."""

    def control_processes(self, told: Callable[[list[ProcessInfo]], object]) -> None:
        """Tell its processes."""

    def control_stats(self) -> Stats:
        """What they use."""
        ...

    def control_counts(self) -> dict[str, int]:
        """How much of everything there is, by name."""
        ...

    def control_strace(self, trace: Trace, fds: list[int], done: Callable[[str], object]) -> None:
        """Write what programs call, or no more; `done` with "" or with what failed."""

    def control_log(self, debug: bool, done: Callable[[str], object]) -> None:
        """Tell in the log what programs do not get, or no more."""

    def control_trace(
        self, request: Request, fds: list[int], done: Callable[[str], object]
    ) -> None:
        """Somebody listens from now on; `done` with "" or with what failed. Takes descriptors."""

    def control_untrace(self, name: str) -> None:
        """Nobody of that session listens any more."""

    def control_repl(self, source: str) -> Said:
        """Run a statement of Python."""
        ...

    def control_traces(self) -> list[TraceState]:
        """Who listens."""
        ...

    def control_procfs(self, after: int) -> Procfs:
        """Some processes, as /proc has them."""
        ...

    def control_metrics(self) -> dict[str, int]:
        """Figures, by the names that Prometheus has for them."""
        ...

    def control_stacks(self, after: int) -> Stacks:
        """Where tasks, or the kernel itself, are."""
        ...

    def control_inject(self, order: InjectOrder) -> list[InjectState]:
        """Faults, after a change if one is asked for."""
        ...

    def control_decided(self) -> Decided:
        """What the sandbox's owner has decided about it."""
        ...

    def control_serve(
        self, order: ServeOrder, fds: list[int], told: Callable[[Reply], object]
    ) -> Waiting:
        """Something that the sandbox's owner serves comes, or goes. Takes the descriptors."""
        ...

    def control_clock(self, asked: ClockOrder) -> ClockState:
        """The time that programs see, after a change if one is asked for."""
        ...

    def control_advance(self, by_ns: int, done: Callable[[ClockState], object]) -> Waiting:
        """So much of it goes by, from timer to timer; `done` with what it is then."""
        ...

    def control_profile(self, time_ns: int, done: Callable[[Profile], object]) -> None:
        """Measure for so long, then `done`."""

    def control_expire(self, time_ns: int) -> None:
        """End the container in so long; 0: not for that."""

    def control_expires_ns(self) -> int:
        """How long that is from now; 0: it was not asked for."""
        ...

    def control_status(self) -> str:
        """ "created", "running", "paused" or "stopped"."""
