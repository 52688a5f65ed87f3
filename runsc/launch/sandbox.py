"""Start a sandbox and stay with it to its end: the parent's side of runsc/launch/boot.py.

Nothing of the sandbox outlives this process (PR_SET_PDEATHSIG in the children, and a janitor for
the state on disk), nor each other: the end of either child ends the other.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from runsc import filters
from runsc.containers.asking import Outbox
from runsc.containers.lifecycle import DRAINED_MS, HELD_UP_MS
from runsc.containers.processes import is_held_up
from runsc.containers.signals import TERMINAL, stop_as_told
from runsc.errors import RuntimeFailure
from runsc.launch import boot, isolation
from runsc.launch.gofer_start import GoferStart
from runsc.launch.programs import Programs
from runsc.oci.exports import Export
from sentry.config import SandboxConfig
from sentry.control.protocol import Event, LineBuffer, Request, decode, encode

if TYPE_CHECKING:
    from runsc.launch.network import Network
    from runsc.launch.stand_in import StandIn

GRACE_MS = 500
"""How long either process may take to end by itself once the other is gone."""

READY_S = 300.0
"""So long a sandbox may take to be ready: it may be slow, but not silent for ever."""

LOOK_MS = 200
EVENTS = frozenset({"error", "kept", "ready"})
MESSAGE_MAX = 4096
"""Characters of an error that are told."""


class Sandbox:
    """A sandbox, seen from the process that starts it.

    In this order: `release` where it is held back, `await_ready` where somebody wants to know,
    then `keep`, or `begin` and `wait`; `abandon` at any time.
    """

    def __init__(
        self,
        pid: int,
        gofer_pid: int,
        control: socket.socket,
        hold: socket.socket | None,
        stand_in: StandIn | None = None,
        network_pid: int = 0,
        gofer_grace_ms: int = GRACE_MS,
        gofer_told: socket.socket | None = None,
    ):
        self.pid = pid
        self.gofer_pid = gofer_pid
        """0: there is none."""
        self._network_pid = network_pid
        self.beside: dict[int, str] = {}
        """Processes besides, which end with it, and what each is: passt, a dialer."""
        self.warn: Callable[[str], object] = lambda message: None
        """Hears of one of those, or of the network process, that broke."""
        self._gofer_grace_ms = gofer_grace_ms
        self._gofer_told = gofer_told
        self._stand_in = stand_in
        self._control = control
        self._outbox = Outbox(control)
        self._hold = hold
        self.on_resize: Callable[[], object] = lambda: None
        """Before the Sentry hears of a new size of the caller's terminal."""
        self.as_program = False
        """The first process is a program at the caller's terminal, and may have children there."""
        self.looks: Callable[[bool], object] | None = None
        """Called now and then until the program may run, and then with True: somebody sees how far
        it is."""
        self.lifeline = -1
        """When this can be read from, nobody wants the sandbox any more."""
        self._lines = LineBuffer()
        self._events: set[str] = set()
        self._late_at: float | None = None
        """When `await_ready` and `keep` give up; the end of a program has no such time."""
        self._failure = ""
        self._others: dict[int, int] = {}
        """The network process and those beside that are looked after: pidfd → pid."""
        self._sentry = os.pidfd_open(pid)
        self._gofer = os.pidfd_open(gofer_pid) if gofer_pid else -1
        self._standing = os.pidfd_open(stand_in.pid) if stand_in is not None else -1

    @property
    def others(self) -> tuple[int, ...]:
        """The network process, and those beside."""
        return tuple(pid for pid in (self._network_pid, *self.beside) if pid)

    def forward(self, number: int) -> None:
        """A signal of ours for the container's first process. It may be gone; that is no error.

        Of a program at the caller's terminal it is its process group's, where a terminal would
        have sent it to that.
        """
        if number == signal.SIGWINCH:
            self.on_resize()
            self._send(Request("resize"))
            return
        if number == signal.SIGTSTP:  # the program stands still as long as the command line
            self._send(Request("pause"))
            stop_as_told()
            self._send(Request("resume"))
            return
        group = self.as_program and number in TERMINAL
        self._send(Request("kill", signal=number, pid=-1 if group else 1))

    def _send(self, request: Request) -> None:
        self._outbox.tell(encode(request))

    def release(self) -> None:
        """Let both go on. Raises: RuntimeFailure with what went wrong in the Gofer's namespaces."""
        if self._hold is not None:
            with suppress(OSError):
                self._hold.send(b"go", socket.MSG_NOSIGNAL)
            try:
                problem = self._hold.recv(1 << 17)
            except ConnectionResetError:
                problem = b""
            self._hold.close()
            if problem != b"\0":
                text = problem.decode(errors="replace")
                raise RuntimeFailure(text or "the gofer process has ended")
        self._send(Request("go"))

    def await_ready(self) -> None:
        """Until the program may run. Raises: RuntimeFailure, also if that takes READY_S."""
        self._late_at = monotonic() + READY_S
        if not self._until("ready"):
            self._reap()
            raise RuntimeFailure("the sandbox process has ended")
        if self._stand_in is not None:
            self._stand_in.check()

    def begin(self) -> None:
        """The program may run as soon as it can: nothing is waited for."""
        self._send(Request("begin"))

    def keep(self) -> None:
        """The sandbox outlives this process from now on. Raises: RuntimeFailure."""
        self._send(Request("keep"))
        if not self._until("kept"):
            self._reap()
            raise RuntimeFailure("the sandbox process has ended")
        self._close()

    def wait(self, wakeup: socket.socket | None = None) -> int:
        """Stay until both children have ended, however long; the exit code of the container.

        Bytes that come in on `wakeup` are numbers of signals to forward.
        Raises: RuntimeFailure if the container could not start or the sandbox broke.
        """
        self._late_at = None
        self._others = {os.pidfd_open(pid): pid for pid in self.others}
        self._until("", wakeup)
        return self._reap()

    def abandon(self) -> None:
        """End it, whatever it does; harmless if it has ended."""
        for pid, pidfd in ((self.pid, self._sentry), (self.gofer_pid, self._gofer)):
            if pidfd < 0:
                continue
            with suppress(OSError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            with suppress(ChildProcessError):
                reaped(pid, pidfd)
        self._reap_others()
        if self._stand_in is not None:
            self._stand_in.end()
        self._close()

    def _close(self) -> None:
        for fd in (self._sentry, self._gofer, self._standing, *self._others):
            with suppress(OSError):
                os.close(fd)
        self._others = {}
        self._sentry = self._gofer = self._standing = -1
        self._control.close()
        if self._gofer_told is not None:
            self._gofer_told.close()

    def _reap_others(self) -> None:
        """They have nothing to do any more: the Sentry has ended."""
        pids, self._network_pid, self.beside = self.others, 0, {}
        for pid in pids:
            end_child(pid)

    def _lost(self, pidfd: int) -> None:
        """One of them has ended. That is told if it broke, and not as a part of the whole's end."""
        pid = self._others.pop(pidfd)
        status = reaped(pid, pidfd)
        os.close(pidfd)
        name = self.beside.pop(pid, "network")
        if name == "network":
            self._network_pid = 0
        poll = select.poll()
        poll.register(self._sentry, select.POLLIN)
        if status and not poll.poll(GRACE_MS):
            how = _describe(status)
            self.warn(f"the {name} process {how}: the container goes on, and reaches nobody by it")

    def _until(self, event: str, wakeup: socket.socket | None = None) -> bool:
        """Look after everything until the event has come (True) or a child has ended (False).

        Once the program runs, the stand-in is one of them: it is told of the end of the container
        before the Sentry ends, if that can.

        Raises: RuntimeFailure if that is late.
        """
        poll = select.poll()
        control, signals = self._control.fileno(), wakeup.fileno() if wakeup else -1
        children = {self._sentry, self._gofer, -1 if event else self._standing}
        for fd in (*children, *self._others, control, signals, self.lifeline):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        while event not in self._events:
            if control >= 0:
                poll.modify(control, select.POLLIN | (select.POLLOUT if self._outbox.owed else 0))
            ready = {fd for fd, _ in poll.poll(self._left_ms())}
            if self.looks is not None:
                self.looks(False)
            if self.lifeline in ready:
                poll.unregister(self.lifeline)
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._sentry, signal.SIGKILL)
            if wakeup is not None and signals in ready:
                for number in wakeup.recv(64):
                    self.forward(number)
            if control in ready and not self._talk():
                poll.unregister(control)
                control = -1
            if ready & children:
                return event in self._events
            for pidfd in ready & self._others.keys():
                poll.unregister(pidfd)
                self._lost(pidfd)
        return True

    def _left_ms(self) -> int | None:
        look_ms = LOOK_MS if self.looks is not None else None
        if self._late_at is None:
            return look_ms
        left_s = self._late_at - monotonic()
        if left_s <= 0:
            raise RuntimeFailure(f"the sandbox was not ready after {READY_S:g} seconds")
        left_ms = int(left_s * 1000) + 1
        return left_ms if look_ms is None else min(left_ms, look_ms)

    def _talk(self) -> bool:
        self._outbox.flush()
        return self._read_events()

    def _read_events(self) -> bool:
        """What the Sentry says; False when it has closed its end."""
        try:
            data = self._control.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        try:
            for line in self._lines.feed(data):
                if b'"event"' in line:
                    self._heard(decode(line, Event))
        except ValueError:
            self._failure = self._failure or "the sandbox said what is no message"
            with suppress(OSError):
                signal.pidfd_send_signal(self._sentry, signal.SIGKILL)
            return False
        return bool(data)

    def _heard(self, event: Event) -> None:
        if event.event in EVENTS:
            self._events.add(event.event)
            if self.looks is not None:
                self.looks(True)
                self.looks = None
        if event.event == "error":
            self._failure = event.message[:MESSAGE_MAX]

    def _reap(self) -> int:
        """Collect both, one of which has ended: the other sees its socket close, and ends too.

        Which one was the first does not show here, for descriptors close before a process can be
        waited for; how each ended does.
        """
        ended = _await_end(self._sentry, GRACE_MS)
        has_gofer = self._gofer >= 0
        gofer_ended = has_gofer and _await_end(self._gofer, self._gofer_grace_ms)
        status = reaped(self.pid, self._sentry)
        ended |= not os.WIFSIGNALED(status)  # it was about to, and is late
        gofer_status = reaped(self.gofer_pid, self._gofer) if has_gofer else 0
        self._reap_others()
        if self._stand_in is not None:
            is_told = ended and (gofer_ended or not has_gofer)  # else somebody may have its way
            told = self._stand_in.reap() if is_told else self._stand_in.end()
            status = status if ended else boot.exit_code(told) << 8
        self._read_events()
        if self._gofer_told is not None:
            self._failure = words_of(self._gofer_told) or self._failure
        self._close()
        gofer_killed = gofer_ended and os.WIFSIGNALED(gofer_status)
        if ended and os.WIFSIGNALED(status):
            gofer_killed = False
        if self._failure and not gofer_killed:
            raise RuntimeFailure(f"unable to start container process: {self._failure}")
        if gofer_killed:
            how = _describe(gofer_status)
            raise RuntimeFailure(f"the gofer process {how}: the sandbox has ended")
        if os.WIFSIGNALED(status):
            raise RuntimeFailure(f"the sandbox process {_describe(status)}")
        return os.WEXITSTATUS(status)


def words_of(told: socket.socket) -> str:
    """What is wrong with a tree, if a Gofer has said so, which ends then."""
    try:
        return told.recv(MESSAGE_MAX, socket.MSG_DONTWAIT).decode(errors="replace")
    except OSError:
        return ""


def _await_end(pidfd: int, timeout_ms: int) -> bool:
    """Wait for the end of a process, and bring it about when the time is over (then False)."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if poll.poll(timeout_ms):
        return True
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return False


def reaped(pid: int, pidfd: int) -> int:
    """The wait(2) status of a child that ends; SIGKILL where the host keeps a killed one."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(HELD_UP_MS) and is_held_up(pid):
        return signal.SIGKILL
    return os.waitpid(pid, 0)[1]


def _spawn_network(
    network: Network, sock: int, switches: filters.Switches, terms: boot.Terms
) -> int:
    from runsc.launch import network as room  # noqa: PLC0415  only with --network=host

    return room.spawn(network, sock, switches, terms)


def end_child(pid: int) -> None:
    """Whatever it does. Preconditions: nobody else has its number by now."""
    with suppress(ChildProcessError, ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        why = " (a system call that its filter forbids)" if number == signal.SIGSYS else ""
        return f"was killed by signal {number}{why}"
    return f"exited with {os.WEXITSTATUS(status)}"


def start(
    config: SandboxConfig,
    exports: Sequence[Export],
    programs: Programs,
    switches: filters.Switches,
    terms: boot.Terms,
    stand_in: StandIn,
    network: Network | None = None,
) -> Sandbox:
    """Start the Sentry and fork the Gofer, unless the root is one file that is open already.
    `config` lacks only the sockets that are made here."""
    gofer_ours = gofer_theirs = None
    told_ours = told_theirs = None
    if config.root.image_fd < 0:
        gofer_ours, gofer_theirs = socket.socketpair()
        told_ours, told_theirs = socket.socketpair()
    control_ours, control_theirs = socket.socketpair()
    hold_ours = hold_theirs = None
    if terms.before_gofer is not None:
        hold_ours, hold_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    config = msgspec.structs.replace(
        config,
        gofer_fd=gofer_ours.fileno() if gofer_ours is not None else -1,
        control_fd=control_theirs.fileno(),
        stand_in_fd=stand_in.life.fileno(),
        victim_fd=stand_in.victim.told.fileno() if stand_in.victim is not None else -1,
    )
    network_theirs = None
    if network is not None:
        network_ours, network_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        config = msgspec.structs.replace(config, network_fd=network_ours.detach())
    given = (control_theirs, gofer_ours, gofer_theirs, hold_theirs, network_theirs, told_theirs)
    pid = programs.start_sentry(config, switches, terms)
    gofer_pid = network_pid = 0
    try:
        isolation.freeze_heap()
        if stand_in.comes_first:
            stand_in.await_ready()
        if gofer_theirs is not None and told_theirs is not None:
            gofer = GoferStart(
                gofer_theirs.fileno(),
                exports,
                config.log_fd,
                not isolation.is_privileged(),
                config.container_id,
                stand_in.entrance,
                hold_theirs.fileno() if hold_theirs is not None else -1,
                told=told_theirs.fileno(),
                life=stand_in.life.fileno() if config.root.written_behind else -1,
            )
            gofer_pid = programs.start_gofer(gofer, switches, terms)
        if network is not None and network_theirs is not None:
            network_pid = _spawn_network(network, network_theirs.fileno(), switches, terms)
        stand_in.await_ready()
    except BaseException:  # also a signal, while the stand-in is waited for
        for each in filter(None, (pid, gofer_pid, network_pid)):
            end_child(each)
        for sock in (control_ours, hold_ours, told_ours, *given):
            if sock is not None:
                sock.close()
        raise
    for sock in given:
        if sock is not None:
            sock.close()
    if config.network_fd >= 0:
        os.close(config.network_fd)
    stand_in.close()
    grace_ms = DRAINED_MS if config.root.written_behind else GRACE_MS
    return Sandbox(
        pid, gofer_pid, control_ours, hold_ours, stand_in, network_pid, grace_ms, told_ours
    )
