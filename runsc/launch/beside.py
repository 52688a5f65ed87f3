"""The processes of a container that joins a sandbox, but its stand-in: Gofers, a network process,
passt.

Each is forked with one end of a socket; the Sentry, which runs already, gets the other.
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import msgspec

from runsc.containers.processes import start_time
from runsc.errors import RuntimeFailure
from runsc.launch import boot, boot_gofer, isolation, users
from runsc.launch.gofer_start import GoferStart
from runsc.launch.network_choice import network_of
from runsc.launch.programs import gofer
from runsc.launch.sandbox import reaped, words_of

if TYPE_CHECKING:
    from runsc.containers.state import State
    from runsc.launch.joining import Joint
    from runsc.oci.convert import Container
    from runsc.oci.exports import Export
    from runsc.options import Globals
    from sentry.config import LinkConfig


class Processes:
    """Those of one container, seen from the command line."""

    def __init__(
        self, flags: Globals, state: State, container: Container, joint: Joint, outlives: bool
    ) -> None:
        self._flags = flags
        self._state = state
        self._container = container
        self._joint = joint
        self.terms = boot.Terms(outlives=outlives)
        """Complete before the first process is made."""
        self._children: list[int] = []
        self._volumes = 0
        """The second Gofer, if there is one."""
        self._told: list[socket.socket] = []
        """Where Gofers say what is wrong with a tree."""
        self.entrance: users.Entrance | None = None
        """To the user namespace that they share with the sandbox, where it has one."""
        self.closing = ExitStack()
        """What the Sentry has when it has answered."""

    def held(self, fds: tuple[int, ...]) -> tuple[int, ...]:
        """Closed in the end."""
        for fd in fds:
            self.closing.callback(os.close, fd)
        return fds

    def end(self) -> None:
        """All of them, whatever they do."""
        for pid in self._children:
            with suppress(ProcessLookupError, ChildProcessError):
                pidfd = os.pidfd_open(pid)
                os.kill(pid, signal.SIGKILL)
                reaped(pid, pidfd)
                os.close(pidfd)
        self._children = []

    def are_there(self) -> None:
        """The container is. Others may have what the second Gofer serves: it ends by itself."""
        if self._volumes:
            self._children.remove(self._volumes)

    def gofer(
        self, exports: tuple[Export, ...], log_fd: int, first: int, life: int = -1
    ) -> int:
        """A Gofer; the Sentry's end of its socket. `life`: see `GoferStart`."""
        ours, theirs = socket.socketpair()
        self.closing.enter_context(ours)
        told, theirs_told = socket.socketpair()
        self._told.append(self.closing.enter_context(told))
        terms = self.terms
        given, hold = [theirs, theirs_told], -1
        if first:  # it may outlive this container: it is where the Sentry is
            joins = self._sandbox_joins()
            terms = msgspec.structs.replace(terms, outlives=True, joins=joins, before_gofer=None)
        elif terms.before_gofer is not None:
            self._hold, theirs_hold = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.closing.enter_context(self._hold)
            given.append(self.closing.enter_context(theirs_hold))
            hold = theirs_hold.fileno()
        start = GoferStart(
            theirs.fileno(),
            exports,
            log_fd,
            not isolation.is_privileged(),
            self._state.id,
            entrance=self.entrance,
            hold=hold,
            first=first,
            told=theirs_told.fileno(),
            life=life,
        )
        serve, switches = gofer(), self._flags.switches
        isolation.freeze_heap()
        pid = isolation.spawn(lambda: boot_gofer.gofer_main(start, serve, switches, terms))
        for each in given:  # who waits for a word of it hears of its end
            each.close()
        self._children.append(pid)
        if first:
            self._volumes = pid
        else:
            self._state.gofer_pid, self._state.gofer_start = pid, start_time(pid)
            self._state.written_behind = life >= 0
        return ours.fileno()

    def what_is_wrong(self) -> str:
        """With a tree; empty if no Gofer has said anything."""
        return next(filter(None, map(words_of, self._told)), "")

    def _sandbox_joins(self) -> tuple[int, ...]:
        """The cgroup of the container that made the sandbox."""
        record = self._joint.sandbox.cgroups
        if not record.directories:
            return ()
        from runsc.cgroups.recorded import of  # noqa: PLC0415  few containers have one

        return self.held(of(record).open_joins())

    def own_network(self) -> str:
        """Of the kind that the sandbox's first container has, where it has one that it shares with
        nobody; else "none"."""
        maker = self._joint.sandbox
        if "network" in dict(self._joint.shares):
            return "none"
        wanted = network_of(self._flags, self._container)
        if wanted == "none":
            return "none"
        why = ""
        if maker.network not in ("host", "sandbox"):
            why = "has a loopback interface alone"
        elif maker.judged:
            why = "has an egress policy, which is for the network of its first container"
        if why:
            self._flags.log.warning(
                f'the sandbox "{maker.id}" {why}: "{self._state.id}" has a loopback interface alone'
            )
            return "none"
        if wanted != maker.network:
            self._flags.log.warning(
                f'"{self._state.id}" has --network={maker.network}, as the sandbox "{maker.id}"'
            )
        return maker.network

    def network(self, kind: str, log_fd: int, stand_in_pid: int) -> int:
        """The way to a network process of its own."""
        container, flags = self._container, self._flags
        from runsc.launch import network  # noqa: PLC0415  few have one of their own

        is_linked = kind == "sandbox" and not isolation.is_privileged()
        prepared = network.prepare(
            container, self._state.id, log_fd, stand_in_pid,
            uplinks=kind == "sandbox" and not is_linked, names_only=is_linked,
        )  # fmt: skip
        if prepared.namespace_fd >= 0:
            self.held((prepared.namespace_fd,))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.closing.enter_context(ours)
        terms = msgspec.structs.replace(self.terms, before_gofer=None)
        pid = network.spawn(prepared, theirs.fileno(), flags.switches, terms)
        self._children.append(pid)
        theirs.close()
        return ours.fileno()

    def link(self, log_fd: int) -> LinkConfig:
        """An interface whose frames go to a passt of its own."""
        from runsc.launch import passt  # noqa: PLC0415  few have it

        terms = msgspec.structs.replace(self.terms, before_gofer=None)
        link, pid = passt.start(passt.find(), terms, log_fd)
        self._children.append(pid)
        self.held((link.fd,))
        return link

    def let_go_on(self) -> None:
        """The Gofer may run its hooks and open its trees. Raises: RuntimeFailure."""
        if self.terms.before_gofer is None:
            return
        with suppress(OSError):
            self._hold.send(b"go", socket.MSG_NOSIGNAL)
        try:
            problem = self._hold.recv(1 << 17)
        except ConnectionResetError:
            problem = b""
        if problem != b"\0":
            raise RuntimeFailure(
                problem.decode(errors="replace") or "the gofer process has ended"
            )
