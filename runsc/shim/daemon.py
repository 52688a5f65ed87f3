"""The shim itself: what `start` leaves behind, one for each pod."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import msgspec

from runsc import host
from runsc.shim import messages
from runsc.shim.loop import Loop, Promise
from runsc.shim.publisher import Publisher, Way
from runsc.shim.sandbox import SandboxService
from runsc.shim.server import Server
from runsc.shim.service import TaskService
from runsc.shim.workers import Outcome, Report, Workers
from sentry.abi import prctl

LOG = "log"
"""A named pipe in the bundle, which containerd copies into its own log."""
LEFT_S = 5.0
"""How long the last answers, and then the last events, may take when the shim ends."""


class Terms(msgspec.Struct, frozen=True):
    """What the shim is started with."""

    id: str
    bundle: str
    way: Way
    options: messages.Any | None = None
    is_of_many: bool = False
    """More containers are to be expected, as in a pod."""


def serve(listener: socket.socket, address: str, terms: Terms) -> None:
    """Be the shim, to its end. Preconditions: one thread; descriptors 0 to 2 are open."""
    host.prctl(prctl.PR_SET_CHILD_SUBREAPER, 1)
    _leave_caller(terms.bundle, listener.fileno())
    shim = Shim(listener, terms)
    try:
        shim.loop.run()
    finally:
        with suppress(OSError):
            os.unlink(address)


def _leave_caller(bundle: str, kept: int) -> None:
    """Nothing of it stays open: it reads a pipe until its end."""
    host.close_all_but({0, 1, 2, kept})
    paths = (os.devnull, os.devnull, os.path.join(bundle, LOG))
    for fd, path in enumerate(paths):
        try:
            made = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            made = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(made, fd)
        os.close(made)
    os.chdir("/")


def complain(text: str) -> None:
    """Into containerd's log; where nobody reads it is lost."""
    with suppress(OSError):
        os.write(2, f"containerd-shim-runsc-v1: {text.rstrip()}\n".encode())


class Shim:
    """All of it, put together."""

    def __init__(self, listener: socket.socket, terms: Terms) -> None:
        self.loop = Loop(self._reaped)
        self._workers = Workers(self.loop)
        self._is_of_many = terms.is_of_many
        self._prepared: tuple[int, socket.socket] | None = self._workers.fork(_prepare)
        gc.freeze()
        self._publisher = Publisher(self.loop, self._workers, terms.way, complain)
        self.tasks = TaskService(
            self.loop, self._workers, self._publisher, terms.way.namespace, self._claim
        )
        self.tasks.id, self.tasks.options = terms.id, terms.options
        self.tasks.on_shutdown = self._shut_down
        methods = self.tasks.methods()
        sandbox = SandboxService(self.tasks)
        services = {
            "containerd.task.v2.Task": methods,
            "containerd.task.v3.Task": methods,
            "containerd.runtime.sandbox.v1.Sandbox": sandbox.methods(),
        }
        self._server = Server(self.loop, listener, services, complain)
        self.loop.on_end = self._end
        self.loop.watch_signals()

    def _reaped(self, pid: int, status: int) -> None:
        self.tasks.exits.reaped(pid, status)

    def _claim(self, job: bytes) -> Promise[Outcome] | None:
        """Give the first container to the worker that has waited for it."""
        if self._prepared is None:
            return None
        pid, sock = self._prepared
        self._prepared = None
        try:
            sock.sendall(job)
            sock.shutdown(socket.SHUT_WR)
        except OSError:  # it has ended
            sock.close()
            return None
        self.loop.after(0.0, _import_jobs)
        if self._is_of_many:
            self.loop.after(0.0, _import_create)
        return self._workers.hear(pid, sock)

    def _shut_down(self) -> None:
        """Once everybody who asks has an answer."""
        self._server.when_answered(self._end)
        self.loop.after(LEFT_S, self._end)

    def _end(self) -> None:
        """Once what has happened has been told."""
        if self._prepared is not None:
            self._prepared[1].close()
        stop: Callable[[], None] = self.loop.stop
        if not self._publisher.empty:
            self._publisher.on_empty = stop
        self.loop.after(LEFT_S if not self._publisher.empty else 0.0, stop)


def _import_jobs() -> None:
    """What workers need they have then already: they are forks of this process."""
    from runsc.containers import execspec, execution, signals  # noqa: F401, PLC0415
    from runsc.oci import convert, spec  # noqa: F401, PLC0415
    from runsc.shim import jobs, metrics  # noqa: F401, PLC0415

    gc.freeze()


def _import_create() -> None:
    """And what those need that add a container to a sandbox."""
    from gofer import main  # noqa: F401, PLC0415
    from runsc import cli  # noqa: F401, PLC0415
    from runsc.cgroups import guest, recorded, v1, v2  # noqa: F401, PLC0415
    from runsc.filters import gofer  # noqa: F401, PLC0415
    from runsc.launch import adding, beside, bundle, further, overlap  # noqa: F401, PLC0415
    from runsc.oci import resources  # noqa: F401, PLC0415

    gc.freeze()


def _prepare(report: Report) -> None:
    """Wait for the first container, with everything imported and the Sentry on its way."""
    from runsc.launch import finder  # noqa: PLC0415

    finder.install()
    from runsc.launch import early  # noqa: PLC0415

    early.begin()
    from runsc import cli  # noqa: F401, PLC0415
    from runsc.launch import bundle  # noqa: F401, PLC0415
    from runsc.shim import jobs  # noqa: PLC0415

    job = report.wait()
    if job:
        jobs.create(msgspec.msgpack.decode(job, type=jobs.Create), report)
    early.discard()
    sys.stderr.flush()
