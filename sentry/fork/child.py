"""`Child`: what a forked Sentry does until its programs go on.

It has all kernel objects of its parent, and no thread but this one; its descriptors are its
parent's, too. So nothing of the host is changed through them (an epoll set is one for both):
each gets another file under its number, and only then the machine is made again, with a set that
watches those numbers. Then it says that it is there, hears "go" from whoever wanted it, gives up
what the beginning needed (`Forks.seal`), and its programs go on.
"""

from __future__ import annotations

import gc
import os
import socket
from typing import TYPE_CHECKING, Final, NoReturn

from msgspec.structs import replace

from sentry.config import StartError
from sentry.control.descriptors import close_all, receive_one
from sentry.control.protocol import Event, encode
from sentry.fork.notice import tell_programs
from sentry.kernel import pause
from sentry.platform.host_io import THREADS
from sentry.suppress import suppress
from sentry.uuids import random_uuid

if TYPE_CHECKING:
    from sentry.control.orders import ForkOrder
    from sentry.fork.order import Given
    from sentry.fork.parent import Forks

HOST_THREADS: Final = THREADS // 2
VCPUS: Final = 2, 4
"""As many as there are CPUs, within these; each costs the host some memory."""


class Child:
    """One that begins."""

    def __init__(
        self, forks: Forks, asked: ForkOrder, given: Given, sessions: list[int]
    ) -> None:
        self._forks = forks
        self._kernel = forks.kernel
        self._config = forks.config
        self._asked = asked
        self._given = given
        self._sessions = sessions

    def begin(self) -> None:
        """To where the loop goes on. What goes wrong is reported, and this process ends."""
        report = socket.socket(fileno=self._given.report)
        try:
            report.send(encode(Event("here")))
            self._begin(report)
        except BaseException as error:
            self._failed(report, error)

    def _failed(self, report: socket.socket, error: BaseException) -> NoReturn:
        why = str(error)
        with suppress(OSError):
            if not isinstance(error, StartError):
                why = f"the fork failed: {error!r}"
                self._kernel.log.bug("fork", error)
            report.send(encode(Event("error", why)))
        os._exit(1)

    def _begin(self, report: socket.socket) -> None:
        kernel, forks, asked = self._kernel, self._forks, self._asked
        gc.freeze()  # a look at all objects would copy every page of them
        forks.machine.unplug()
        forks.is_fork, forks.stands = True, asked.stands
        forks.forget_orders()
        self._replace_ends()
        self._renew_identity()
        ram = forks.machine.ram
        ram.limit_to(min(self._asked.memory_limit or ram.limit, ram.limit))
        # what is watched has to be the child's own before the machine watches it again
        assert kernel.vfs.host_io is not None
        kernel.vfs.host_io.threads.again(HOST_THREADS)
        least, most = VCPUS
        vcpus = min(max(least, self._config.cpus), most)
        forks.machine.again(self._given.ram, vcpus)
        if forks.outside is not None:
            forks.outside.leave(self._given.null)
        if forks.has_link or asked.link is not None:
            from sentry.net import given  # noqa: PLC0415  few have one

            stack = kernel.first.net.stack
            given.unplug(stack)
            if asked.link is not None:
                given.plug(stack, replace(asked.link, fd=self._given.link))
            forks.has_link = asked.link is not None
        if asked.decided is not None:
            forks.operations.decide(asked.decided)
        if kernel.watch is not None:
            kernel.watch.leave()
        report.send(encode(Event("made")))
        statm = receive_one(report)
        if statm < 0:  # nobody wants it any more
            os._exit(0)
        os.dup2(statm, self._config.statm_fd, inheritable=False)
        close_all((statm, self._given.log, self._given.null))
        if forks.outside is not None and asked.network:
            forks.outside.join(self._given.network, lambda why: self._joined(report, why))
            return
        self._go_on(report)

    def _joined(self, report: socket.socket, why: str) -> None:
        """It has its network, or not."""
        try:
            if why:
                raise StartError(why)
            self._go_on(report)
        except BaseException as error:
            self._failed(report, error)

    def _go_on(self, report: socket.socket) -> None:
        kernel, forks, asked = self._kernel, self._forks, self._asked
        if forks.own_memory is not None:
            forks.own_memory.again()
        forks.operations.look_again()
        forks.is_sealed = not (asked.forkable or asked.stands or asked.succeeds)
        if forks.is_sealed:
            forks.seal()
        report.send(encode(Event("ready")))
        report.close()
        kernel.container.paused = asked.stands
        pause.stand_no_more(kernel.container)
        if not asked.stands:
            tell_programs(kernel)

    def _replace_ends(self) -> None:
        """Each descriptor that leads to somebody keeps its number and leads to the child's own."""
        kernel, config, given, asked = self._kernel, self._config, self._given, self._asked
        keeps = asked.stands or asked.succeeds
        assert self._forks.server is not None
        self._forks.server.again(keeps_starter=keeps, hears_starter=asked.succeeds)
        self._forks.place.take(given.place)
        _replace(config.control_listener_fd, given.listener)
        os.close(given.listener)
        if asked.own_log:
            os.dup2(given.log, config.log_fd, inheritable=False)
            os.dup2(given.log, 2, inheritable=False)
        kernel.services.served.leave()
        for session, fd in zip(kernel.services.gofers, self._sessions, strict=True):
            session.move_to(fd)
        if self._forks.gofer_end >= 0:
            _replace(self._forks.gofer_end, kernel.services.gofers[0].sock.fileno())
        for fd in (config.stand_in_fd, config.victim_fd):
            if fd >= 0:
                kernel.loop.watch(fd, 0)
                _replace(fd, given.null)
        kept = config.stdio if keeps else ()
        for inode in list(kernel.vfs.donated):
            if inode.fd not in kept:
                inode.cut(given.null, given.silent)
        os.close(given.silent)
        self._forks.operations.leave_executions()

    def _renew_identity(self) -> None:
        kernel = self._kernel
        kernel.services.boot_id = random_uuid()
        if self._asked.hostname:
            kernel.container.ns.uts.set_name("nodename", self._asked.hostname)
        self._forks.operations.control_expire(self._asked.expires_ns)


def _replace(number: int, fd: int) -> None:
    os.dup2(fd, number, inheritable=False)
