"""A kernel that notes what a control server asks of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from sentry.control.answers import EgressState, Packets, ProcessInfo, Stack, Stacks, Stats
from sentry.control.descriptors import close_all
from sentry.control.orders import ExecProcess, FileOrder, Trace
from sentry.control.protocol import Reply, Request, decode, encode
from sentry.control.server import Connection
from sentry.errors import EBUSY, EINVAL, ENODEV, ESRCH
from sentry.loop import Loop


class Exec:
    """A process that runs as long as the test says."""

    def __init__(self, request: ExecProcess, fds: list[int], client: Connection) -> None:
        self.request = request
        self.fds = fds
        self.client = client
        self.signals: list[int] = []
        self.abandoned = False

    def signal(self, number: int, everyone: bool) -> None:
        self.signals.append(-number if everyone else number)

    def abandon(self) -> None:
        self.abandoned = True
        close_all(self.fds)


class Wait:
    """A wait whose end the test tells."""

    def __init__(self, done: Callable[[int], object]) -> None:
        self.done = done
        self.looked = self.abandoned = False

    def look(self) -> None:
        self.looked = True

    def abandon(self) -> None:
        self.abandoned = True


class Look:
    """Somebody who looks at packets."""

    def __init__(self, interface: str, told: Callable[[Packets], object]) -> None:
        self.interface = interface
        self.told = told
        self.asked: list[bool] = []
        self.ended = False

    def ask(self, *, ends: bool) -> None:
        self.asked.append(ends)

    def end(self) -> None:
        self.ended = True


class Kernel:
    """Records what it is asked for."""

    def __init__(self) -> None:
        self.killed: list[tuple[int, int, bool]] = []
        self.limits: tuple[int | None, int | None] = (None, None)
        self.paused: list[Callable[[], object]] = []
        self.synced: list[Callable[[str], object]] = []
        self.execs: list[Exec] = []
        self.waits: list[Wait] = []
        self.looks: list[Look] = []
        self.policies: list[str] = []
        self.traced: list[tuple[Trace, int]] = []
        self.processes = [ProcessInfo(1, 0, 0, "sh", "S")]
        self.expires_ns = 0

    def control_forward(self, port: int, fds: list[int], told: Callable[[str], object]) -> Wait:
        close_all(fds)
        if port != 80:
            raise EINVAL("no such port")
        self.waits.append(Wait(lambda _: told("")))
        return self.waits[-1]

    def control_read(
        self, request: Request, fds: list[int], told: Callable[[str], object]
    ) -> Wait:
        close_all(fds)
        self.waits.append(Wait(lambda _: told(f"{request.path!r} {request.size}")))
        return self.waits[-1]

    def control_file(
        self, order: FileOrder, fds: list[int], told: Callable[[Reply], object]
    ) -> Wait:
        if order.do == "wrong":
            close_all(fds)
            raise EINVAL("no such order")
        close_all(fds)
        self.waits.append(Wait(lambda _: told(Reply(error=f"{order.do} {len(fds)}"))))
        return self.waits[-1]

    def control_oom(self, known: int, done: Callable[[], None]) -> Wait:
        self.waits.append(Wait(lambda _: done()))
        return self.waits[-1]

    def control_egress(self, request: Request, fds: list[int]) -> EgressState:
        close_all(fds)
        if request.egress is not None:
            self.policies.append(request.egress.policy)
        return EgressState("", {"after": request.after, "ways": len(fds)})

    def control_denials(self, after: int, done: Callable[[], None]) -> Wait:
        self.waits.append(Wait(lambda _: done()))
        return self.waits[-1]

    def control_packets(self, interface: str, told: Callable[[Packets], object]) -> Look:
        if interface == "eth9":
            raise ENODEV("interface eth9")
        self.looks.append(Look(interface, told))
        return self.looks[-1]

    def control_stats(self) -> Stats:
        return Stats(1, 2, 3, 4, 5, 6, 7, 8)

    def control_strace(self, trace: Trace, fds: list[int], done: Callable[[str], object]) -> None:
        self.traced.append((trace, len(fds)))
        close_all(fds)
        done("")

    def control_log(self, debug: bool, done: Callable[[str], object]) -> None:
        done("no log" if debug else "")

    def control_stacks(self, after: int) -> Stacks:
        return Stacks(tasks=[Stack("sh", "runs", tid=after + 1)])

    def control_wait(self, pid: int, done: Callable[[int], object]) -> Wait:
        if pid == 99:
            raise ESRCH("no process 99")
        self.waits.append(Wait(done))
        return self.waits[-1]

    def control_exec(self, request: ExecProcess, fds: list[int], client: Connection) -> Exec:
        if request.args == (b"refused",):
            close_all(fds)
            raise EBUSY("no")
        self.execs.append(Exec(request, fds, client))
        return self.execs[-1]

    def control_pause(self, done: Callable[[], object]) -> None:
        self.paused.append(done)

    def control_sync(self, told: Callable[[str], object]) -> None:
        self.synced.append(told)

    control_share = control_sync

    def control_resume(self) -> None:
        raise EBUSY("container not paused")

    def control_kill(self, pid: int, signal: int, everyone: bool) -> None:
        if pid == 99:
            raise ESRCH("no process 99")
        self.killed.append((pid, signal, everyone))

    def control_update(self, request: Request) -> None:
        self.limits = (request.pids_limit, request.memory_limit)

    def control_expire(self, time_ns: int) -> None:
        if time_ns < 0:
            raise EINVAL("no time")
        self.expires_ns = time_ns

    def control_expires_ns(self) -> int:
        return self.expires_ns

    def control_processes(self, told: Callable[[list[ProcessInfo]], object]) -> None:
        told(self.processes)

    def control_status(self) -> str:
        return "running"


def fail(name: str, error: BaseException) -> None:
    raise error


def ask(loop: Loop, sock: socket.socket, request: Request) -> Reply:
    sock.send(encode(request))
    loop.turn()
    return decode(sock.recv(1 << 16), Reply)


def send_fds(sock: socket.socket, data: bytes, count: int) -> None:
    """With so many descriptors of a pipe; none of them stays here."""
    ends = os.pipe()
    socket.send_fds(sock, [data], [ends[0]] * count)
    close_all(ends)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
