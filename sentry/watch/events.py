"""What the kernel tells of its own accord, as records: sentry.kernel.watching."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sentry.errors import ENAMETOOLONG, Errno
from sentry.loader.digest import digest
from sentry.suppress import suppress
from sentry.watch import messages as m
from sentry.watch.context import offset_ns
from sentry.watch.reading import address_text, place, text, words

if TYPE_CHECKING:
    from sentry.config import ProcessConfig
    from sentry.kernel.kernel import Kernel
    from sentry.kernel.signals import SigInfo
    from sentry.kernel.task import Task
    from sentry.kernel.thread_group import ThreadGroup
    from sentry.net.egress.denials import Denial
    from sentry.net.egress.flows import Flow
    from sentry.net.egress.policy import Target
    from sentry.net.inet.egress import Egress
    from sentry.watch.context import Context

MAX_HASHED: Final = 256 << 20
"""Bytes of a program; the hash of a larger one is empty."""


class Events(ABC):
    """Makes a record for each who listens to a point."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._denials = 0
        """The last one that was told."""

    @abstractmethod
    def listeners(self, name: str) -> list[Any]:
        """`session.Listener`s of a point."""

    def _tell(self, name: str, task: Task, make: Callable[[Any], m.Record]) -> None:
        for listener in self.listeners(name):
            record = make(listener)
            who: Context = listener.who
            record.context_data = who(task)
            listener.emit(record)

    def started(self, task: Task, process: ProcessConfig) -> None:
        """The first program of a container is about to run."""

        def make(listener: Any) -> m.Record:
            env = words(process.env) if "env" in listener.optional else []
            args, cwd = words(process.args), text(process.cwd)
            identity = task.group.container.id
            return m.Start(None, identity, cwd, args, env, process.terminal)

        self._tell("container/start", task, make)

    def cloned(self, task: Task, child: Task, flags: int) -> None:
        """A task was made."""
        start_ns = child.start_ns + offset_ns()

        def make(_: Any) -> m.Record:
            return m.CloneInfo(None, child.tid, child.group.tgid, start_ns, flags)

        self._tell("sentry/clone", task, make)

    async def digest(self, task: Task, file: Any) -> bytes:
        """The SHA-256 of a program, if somebody asks for it: nothing may change it meanwhile."""
        if not any("binary_info" in each.optional for each in self.listeners("sentry/execve")):
            return b""
        if task.group.container.init is None:
            return b""
        try:
            return await digest(task, file, MAX_HASHED)
        except Errno:
            return b""

    def execed(
        self, task: Task, file: Any, argv: Sequence[bytes], envp: Sequence[bytes], digest: bytes
    ) -> None:
        """A process has become a program; that a container has its first one is `started`."""
        if task.group.container.init is None:
            return

        def make(listener: Any) -> m.Record:
            record = m.ExecveInfo(None, place(task, file.location), words(list(argv)))
            record.env = words(list(envp))
            if "binary_info" in listener.optional:
                inode = file.inode
                record.binary_mode = inode.mode
                record.binary_uid, record.binary_gid = inode.uid, inode.gid
                record.binary_sha256 = digest
            return record

        self._tell("sentry/execve", task, make)

    def signalled(self, task: Task, info: SigInfo) -> None:
        """A signal is about to be acted on."""

        def make(_: Any) -> m.Record:
            sender = struct.unpack_from("<i", info.body)[0] if info.names_sender else 0
            return m.SignalInfo(None, info.signo, info.code, sender)

        self._tell("sentry/signal_delivered", task, make)

    def exits(self, task: Task, status: int) -> None:
        """A thread ends."""
        self._tell("sentry/task_exit", task, lambda _: m.ExitInfo(None, status))

    def ended(self, group: ThreadGroup) -> None:
        """A process has ended."""
        if group.leader is not None and group.parent is not None:
            status = group.exit_status
            leader = group.leader
            self._tell("sentry/exit_notify_parent", leader, lambda _: m.ExitInfo(None, status))

    def out_of_memory(self, victim: ThreadGroup) -> None:
        """It is killed."""
        task = victim.leader or victim.tasks[0]

        def make(_: Any) -> m.Record:
            return m.OutOfMemory(None, victim.tgid, text(task.comm))

        self._tell("sentry/out_of_memory", task, make)

    def decided(self, task: Task, verdict: str, rule: str, event: Any) -> None:
        """A policy has decided (or learns)."""
        if not self.listeners("sentry/policy"):
            return  # it is decided often

        def make(_: Any) -> m.Record:
            record = m.Policy(None, event.call.rstrip("_"), event.kind, verdict, rule)
            with suppress(ENAMETOOLONG):
                record.program = _sound(event.program)
            record.path = _sound(event.path)
            record.writes, record.creates = event.writes, event.creates
            record.address, record.port = _sound(event.address), event.port
            record.protocol = event.protocol
            return record

        self._tell("sentry/policy", task, make)

    # --- what may leave

    def hear_egress(self, egress: Egress) -> None:
        """There is somebody who judges what leaves."""
        self._denials = egress.flows.denials.number
        egress.denied.add(lambda _events: self._denied(egress))
        egress.flows.on_begin = self._allowed
        egress.resolver.forwarder.given.on_answer = self._answered

    def _denied(self, egress: Egress) -> None:
        denials = egress.flows.denials
        for denial in denials.since(self._denials):
            self._tell_flow("sentry/egress_denied", denial, denial.reason, denial.target)
        self._denials = denials.number

    def _allowed(self, flow: Flow) -> None:
        from sentry.net.egress.flows import target_of  # noqa: PLC0415  it is there if flows are

        target = target_of(flow.key)
        self._tell_flow("sentry/egress_allowed", flow, flow.verdict.reason, target)

    def _tell_flow(self, name: str, what: Flow | Denial, reason: str, target: Target) -> None:
        program = what.program

        def make(_: Any) -> m.Record:
            record = m.Egress(None, reason, list(what.names), address_text(target.ip))
            record.protocol, record.port = target.protocol, target.port or 0
            if program is not None:
                record.pid, record.program = program.pid, program.path
            return record

        self._tell_of_sandbox(name, make)

    def _answered(self, ip: bytes, name: str, ttl_ns: int) -> None:
        record = m.DnsAnswer(None, name, address_text(ip), ttl_ns // 10**9)
        self._tell_of_sandbox("sentry/dns_answer", lambda _: record)

    def _tell_of_sandbox(self, name: str, make: Callable[[Any], m.Record]) -> None:
        init = self._kernel.init  # the policy is that of the first container
        if init is not None and init.leader is not None:
            self._tell(name, init.leader, make)


def _sound(found: str) -> str:
    """Of a policy, which keeps what is no UTF-8."""
    return text(found.encode(errors="surrogateescape"))
