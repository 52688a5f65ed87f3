"""`fork`: sandboxes that are copies of one that runs, with names of their own.

Each gets a state on disk, a control socket and an empty file for its memory here; its process is
made by the Sentry that it is a copy of (sentry.fork), in that one's namespaces. So it ends with it,
and has no stand-in and no Gofer of its own.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

import msgspec

from runsc import host
from runsc.containers import lifecycle, listener
from runsc.containers.processes import is_same, pidfd_of, start_time
from runsc.containers.state import NAMESPACE, ORIGIN, TEMPLATE, State
from runsc.errors import NotRunning, RuntimeFailure
from runsc.launch import forked_networks, isolation
from runsc.launch.configure import log_fd
from runsc.launch.forkable import ANNOTATION as FORKABLE
from runsc.launch.forked_networks import EMPTY, Network
from sentry.abi import mount
from sentry.abi.sched import CLONE_NEWNS
from sentry.abi.socket import SCM_CREDENTIALS, SCM_PIDFD, SO_PASSPIDFD
from sentry.control import descriptors
from sentry.control.orders import ForkOrder
from sentry.control.protocol import Event, LineBuffer, Reply, Request, decode

if TYPE_CHECKING:
    from runsc.options import Globals

EGRESS: Final = "dev.runsc.egress"
"""Annotation: a policy, which only a network that is there from the start has."""
MAX_AT_ONCE: Final = 64
"""So many are asked for before the first is waited for."""
READY_S: Final = 30.0
EVENTS: Final = frozenset({"here", "made", "ready"})
CREDENTIALS: Final = struct.Struct("=iii")
PIDFD: Final = struct.Struct("=i")


class Fork:
    """One, from this side."""

    def __init__(
        self, state: State, when_here: Callable[[], object], awaited: str = "here"
    ) -> None:
        self.state = state
        self.when_here = when_here
        """Called when its process is there and waits, or will wait, to be told to go on: once it
        has said what is awaited."""
        self.awaited = awaited
        self.network = Network()
        """That its process is to have."""
        self.lasts = False
        """Beyond the end of this process."""
        self.report, self._theirs = socket.socketpair()
        self.report.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._is_known = self._asks_process = False
        with suppress(OSError):  # before Linux 6.5 its number has to do
            self.report.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)
            self._asks_process = True
        self._lines = LineBuffer()
        self.events: set[str] = set()
        """That have come: "here" when its process is there, "made" when its machine is, "ready"
        before its programs go on."""
        self.failure = ""

    def given(self) -> int:
        """The end that the child gets."""
        return self._theirs.fileno()

    def handed_over(self) -> None:
        self._theirs.close()

    def hear(self) -> None:
        """What the child says. Raises: RuntimeFailure when it has ended, or failed."""
        try:
            room = socket.CMSG_SPACE(CREDENTIALS.size)
            room += socket.CMSG_SPACE(PIDFD.size) * self._asks_process
            data, ancillary, _, _ = self.report.recvmsg(1 << 16, room, socket.MSG_CMSG_CLOEXEC)
            told = {kind: payload for _, kind, payload in ancillary}
            if socket.SCM_RIGHTS in told:  # in the room for a pidfd; a fork has none to give
                _close_those(told)
                raise ValueError("descriptors without a use")
            self._know(told)
            for line in self._lines.feed(data):
                event = decode(line, Event)
                if event.event in EVENTS:
                    self.events.add(event.event)
                if event.event == "error":
                    self.failure = event.message[:4096]
        except (OSError, ValueError):
            data = b""
        if not data or self.failure:
            why = self.failure or "its process has ended"
            raise RuntimeFailure(f'cannot make "{self.state.id}": {why}')

    def _know(self, told: dict[int, bytes]) -> None:
        """Which process it is, of what comes with its words; with the first one a pidfd, so that no
        other process can have its number when that is looked up."""
        if self._is_known or SCM_CREDENTIALS not in told:
            return
        self._is_known = True
        pid, _, _ = CREDENTIALS.unpack(told[SCM_CREDENTIALS])
        began = start_time(pid)
        if SCM_PIDFD in told:
            (pidfd,) = PIDFD.unpack(told[SCM_PIDFD])
            self.report.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 0)
            self._asks_process = False
            if pidfd < 0 or _has_ended(pidfd):
                return
        self.state.pid = self.state.sentry_pid = pid
        self.state.pid_start = self.state.sentry_start = began

    def go(self) -> None:
        """It counts its memory by a file that only we can open, which says "go". If it has ended,
        that is heard next, and nothing is told of who has its number by now."""
        with suppress(OSError), open(f"/proc/{self.state.pid}/statm", "rb", buffering=0) as file:
            if is_same(self.state.pid, self.state.pid_start):  # so it was when that was opened
                socket.send_fds(self.report, [b"\0"], [file.fileno()])

    def close(self) -> None:
        self.report.close()
        self._theirs.close()

    def end(self) -> None:
        """Whatever it does."""
        pidfd = pidfd_of(self.state.pid, self.state.pid_start)
        if pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


class Origin:
    """A sandbox of which there are to be forks."""

    def __init__(self, flags: Globals, origin_id: str, supply: Supply | None = None) -> None:
        """Raises: RuntimeFailure."""
        self._flags = flags
        self._store = flags.store()
        self.state = self._store.load(origin_id)
        """As it was then."""
        self._memory = 0
        self.supply = supply or Supply()

    def fork(
        self, names: Sequence[str], order: ForkOrder, *, foreground: bool = False,
        network: str | None = None, namespaces: Sequence[str] = (),
    ) -> list[State]:  # fmt: skip
        """Make these; all of them or, with what went wrong, none. `foreground`: they are deleted
        when this process is no more. `network`, `namespaces`: see `forked_networks.wanted`.

        Raises: RuntimeFailure.
        """
        lifecycle.require_running(self.state)
        if self.state.annotations.get(FORKABLE) != "true":
            raise RuntimeFailure("the sandbox was not started with --forkable")
        networks = forked_networks.wanted(
            self.state, len(names), network, namespaces, stands=order.stands
        )
        is_judged = self._flags.egress is not None or EGRESS in self.state.annotations
        if is_judged and any(each.kind != "none" for each in networks):
            raise RuntimeFailure("an egress policy does not judge the network of a fork")
        made: list[Fork] = []
        try:
            for first in range(0, len(names), MAX_AT_ONCE):
                lot = names[first : first + MAX_AT_ONCE]
                some = [
                    self._reserved(name, foreground, order, made, each)
                    for name, each in zip(lot, networks[first:], strict=False)
                ]
                behind = [each.state for each in some if each.network.is_behind]
                if behind:
                    forked_networks.check_alone(behind, self._store.all())
                self.make(some, order)
        except BaseException:
            for each in made:
                each.end()
                with suppress(RuntimeFailure):
                    lifecycle.destroy(self._store, each.state, self._flags.log.warning)
            raise
        finally:
            for each in made:
                each.close()
        return [each.state for each in made]

    def _reserved(
        self, name: str, foreground: bool, order: ForkOrder, made: list[Fork], network: Network
    ) -> Fork:
        state = _new_state(self.state, name, foreground, order)
        state.network = network.kind
        if path := EMPTY if network.is_empty else network.namespace:
            state.annotations[NAMESPACE] = path
        self._store.create(state)

        def when_here() -> None:
            state.phase, state.paused = "running", order.stands
            self._store.save(state)

        each = Fork(state, when_here)
        each.lasts = not foreground
        if not order.stands:
            each.network = network
        made.append(each)
        return each

    def make(
        self, some: Sequence[Fork], order: ForkOrder, socket_name: str = "control.sock",
        more: Sequence[int] = (), supply: Supply | None = None,
    ) -> None:  # fmt: skip
        """They go on then; each listens at this name beside its state, and is given more
        descriptors; `supply`: of files for their memory. Raises: RuntimeFailure; there may be some
        of them."""
        order = msgspec.structs.replace(order, own_log=self._flags.debug_log is not None)
        with ExitStack() as until_sent:
            size = self._memory_size()
            files = (supply or self.supply).take(len(some), min(order.memory_limit or size, size))
            log, null = log_fd(self._flags, True), os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            silent = os.pipe2(os.O_CLOEXEC)
            for fd in (*files, log, null, *silent):
                until_sent.callback(os.close, fd)
            try:
                sock = listener.connect(self._store.path(self.state.id, "control.sock"))
            except OSError:
                raise NotRunning(self.state.id) from None
            until_sent.enter_context(sock)
            for each, ram in zip(some, files, strict=True):
                with listener.listen(self._store.path(each.state.id, socket_name)) as listens:
                    given = (ram, listens.fileno(), each.given(), log, null, *silent, *more)
                    wanted = order
                    if each.network.kind != "none":
                        more_fd, wanted = self._with_network(each, order, log)
                        until_sent.callback(os.close, more_fd)
                        given = (*given, more_fd)
                    listener.send(sock, Request("fork", fork=wanted), given)
                each.handed_over()
            _bring_up(some, sock)

    def _with_network(self, each: Fork, order: ForkOrder, log: int) -> tuple[int, ForkOrder]:
        """Its other end, which is ours to close, and the order for it. Raises: RuntimeFailure."""
        if each.network.by_passt:
            link = forked_networks.link(self.state, log, outlives=each.lasts)
            return link.fd, msgspec.structs.replace(order, link=link)
        fd = forked_networks.process(
            self._flags, self.state, each.state.id, each.network, log, outlives=each.lasts
        )
        return fd, msgspec.structs.replace(order, network=True)

    def _memory_size(self) -> int:
        """Bytes that it has, and each of its forks."""
        if not self._memory:
            stats = lifecycle.ask(self._store, self.state, Request("stats")).stats
            if stats is None:
                raise RuntimeFailure("the sandbox does not say how much memory it has")
            self._memory = stats.memory_limit
        return self._memory


def _close_those(told: dict[int, bytes]) -> None:
    """Descriptors that have come."""
    for kind in (socket.SCM_RIGHTS, SCM_PIDFD):
        come = told.get(kind, b"")
        whole = come[: len(come) // PIDFD.size * PIDFD.size]
        descriptors.close_all(fd for (fd,) in PIDFD.iter_unpack(whole))


def _has_ended(pidfd: int) -> bool:
    """The process has; the descriptor is closed."""
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(0))
    finally:
        os.close(pidfd)


def _bring_up(some: Sequence[Fork], sock: socket.socket) -> None:
    """Until all say that they are ready. Raises: RuntimeFailure."""
    deadline = monotonic() + READY_S
    waiting = {each.report.fileno(): each for each in some}
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    refusals = LineBuffer()
    poll.register(sock, select.POLLIN)
    while waiting:
        left_ms = int((deadline - monotonic()) * 1000)
        ready = poll.poll(max(left_ms, 0))
        if not ready:
            raise RuntimeFailure(f"forks were not ready after {READY_S:g} seconds")
        for fd, _ in ready:
            if fd == sock.fileno():
                _heed(sock, refusals)
                continue
            each = waiting[fd]
            began = each.awaited in each.events
            try:
                each.hear()
            except RuntimeFailure:
                if "here" not in each.events:  # why, the answer says
                    sock.settimeout(max(left_ms, 1) / 1000)
                    _heed(sock, refusals)
                raise
            if not began and each.awaited in each.events:
                before = monotonic()
                each.when_here()
                deadline += monotonic() - before  # which is no time of theirs
                each.go()
            if "ready" in each.events:
                poll.unregister(fd)
                del waiting[fd]


def _heed(sock: socket.socket, lines: LineBuffer) -> None:
    """The sandbox's own answers. Raises: RuntimeFailure."""
    try:
        data = sock.recv(1 << 16)
    except OSError:
        data = b""
    if not data:
        raise RuntimeFailure("the sandbox has ended")
    try:
        errors = [decode(line, Reply).error for line in lines.feed(data)]
    except ValueError:
        raise RuntimeFailure("the sandbox said what is no answer") from None
    for error in filter(None, errors):
        raise RuntimeFailure(error)


def _new_state(origin: State, name: str, foreground: bool, order: ForkOrder) -> State:
    annotations = {**origin.annotations, ORIGIN: origin.id}
    for key in (TEMPLATE, NAMESPACE):
        annotations.pop(key, None)
    if order.stands:
        annotations[TEMPLATE] = "true"
    return State(
        oci_version=origin.oci_version,
        id=name,
        bundle=origin.bundle,
        annotations=annotations,
        rootfs=origin.rootfs,
        low_ports=origin.low_ports,
        foreground=foreground,
        creator_pid=os.getpid(),
        creator_start=start_time(os.getpid()),
    )


class Supply:
    """Empty files for RAM, each of which holds so many bytes at most. They lie on mounts that
    nobody sees, made by a process that ends.

    `huge`: of huge pages, as a sandbox has; a fork has few of its own.
    """

    def __init__(self, *, huge: bool = False) -> None:
        self._huge = huge
        self._size = 0
        self._spare: list[int] = []

    def take(self, count: int, size: int) -> list[int]:
        """They are the caller's. Raises: RuntimeFailure."""
        if size != self._size:
            self.close()
            self._size = size
        missing = count - len(self._spare)
        if missing > 0:
            self._make(missing)
        taken, self._spare = self._spare[:count], self._spare[count:]
        return taken

    def fill(self, count: int) -> None:
        """Have so many for the next time, if it is known how large. Raises: RuntimeFailure."""
        if self._size and len(self._spare) < count:
            self._make(count - len(self._spare))

    def close(self) -> None:
        """Those that nobody has taken."""
        for fd in self._spare:
            os.close(fd)
        self._spare.clear()

    def _make(self, count: int) -> None:
        ours, theirs = socket.socketpair()

        def make() -> int:
            host.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
            for _ in range(count):
                fd = isolation.open_ram(self._size, huge=self._huge)
                socket.send_fds(theirs, [b"\0"], [fd])
                os.close(fd)
            return 0

        pid = isolation.spawn(make, CLONE_NEWNS)
        theirs.close()
        made = 0
        with ours:
            while made < count:
                _, fds, _, _ = socket.recv_fds(ours, 1, 1)
                if not fds:
                    break
                self._spare += fds
                made += 1
        os.waitpid(pid, 0)
        if made < count:
            raise RuntimeFailure("no files for the memory of forks could be made")
