"""The process that makes forks of a sandbox for the Python API and stays with them.

It begins with the first fork, and has everything imported for the next. Its socket, the second
argument (the first is the folder of states), brings a connection for each wish. When the socket
closes all its forks end, however the caller ended; when this process is killed, the next command
that looks removes what is left. Single-threaded, as `keeper.py`.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from contextlib import suppress

import msgspec

from runsc import cli
from runsc.api.keeper import read_line
from runsc.api.order import ForkWish, Word
from runsc.containers import lifecycle, signals
from runsc.containers.processes import pidfd_of
from runsc.containers.state import ORIGIN, State
from runsc.errors import RuntimeFailure
from runsc.launch import forking, succession
from sentry.control.orders import ForkOrder

SPARE = 4
"""Files for the memory of forks that are made before they are wanted."""


class Forker:
    """The forks of one sandbox, and theirs."""

    def __init__(self, state_root: str, wishes: socket.socket) -> None:
        self._flags = cli.global_flags([f"--root={state_root}"])
        self._store = self._flags.store()
        self._supply = forking.Supply()
        self._successors = forking.Supply(huge=True)
        self._origins: dict[str, forking.Origin] = {}
        self._wishes = wishes
        self._forks: dict[int, State] = {}
        """By pidfd."""
        self._poll = select.poll()
        self._poll.register(wishes, select.POLLIN)

    def serve(self) -> None:
        """Until nobody wishes for anything any more."""
        try:
            while True:
                for fd, _ in self._poll.poll():
                    if fd in self._forks:
                        self._ended(fd)
                    elif fd == self._wishes.fileno() and not self._wish():
                        return
        finally:
            for fd in list(self._forks):
                self._remove(fd)

    def _wish(self) -> bool:
        """Take one and carry it out; False when there is nobody."""
        data, fds, _, _ = socket.recv_fds(self._wishes, 1, 1)
        if not data:
            return False
        with socket.socket(fileno=fds[0]) as sock:
            word = Word("ready")
            try:
                line = read_line(sock)
                if line is not None:
                    self._carry_out(msgspec.json.decode(line, type=ForkWish))
            except (RuntimeFailure, OSError) as error:
                word = Word("error", str(error))
            with suppress(OSError):  # who has asked may be gone
                sock.sendall(msgspec.json.encode(word) + b"\n", socket.MSG_NOSIGNAL)
        with suppress(RuntimeFailure):  # the next fork says it, if it has to wait for them
            self._supply.fill(SPARE)
            self._successors.fill(1)
        return True

    def _carry_out(self, wish: ForkWish) -> None:
        """Raises: RuntimeFailure."""
        if wish.ends:
            for name in wish.names:
                self._end(name)
            return
        origin = self._origins.get(wish.of)
        if origin is None:
            origin = forking.Origin(self._flags, wish.of, self._supply)
            self._origins[wish.of] = origin
        if wish.succeeds:
            for name in wish.names:
                self._roll_back(name, origin)
            return
        order = ForkOrder(
            wish.hostname.encode(), wish.expires_ns, wish.memory,
            forkable=wish.forkable, stands=wish.stands,
        )  # fmt: skip
        made = origin.fork(
            wish.names, order, foreground=True, network=wish.network, namespaces=wish.namespaces
        )
        for state in made:
            self._keep(state)

    def _keep(self, state: State) -> None:
        pidfd = pidfd_of(state.sentry_pid, state.sentry_start)
        if pidfd < 0:
            lifecycle.destroy(self._store, state, self._flags.log.warning)
            return
        self._forks[pidfd] = state
        self._poll.register(pidfd, select.POLLIN)

    def _end(self, name: str) -> None:
        """A fork, and all that are copies of it."""
        copies: dict[str, list[str]] = {}
        by_name = {}
        for fd, state in self._forks.items():
            by_name[state.id] = fd
            copies.setdefault(state.annotations[ORIGIN], []).append(state.id)
        ends = [name]
        for each in ends:
            ends += copies.pop(each, ())
            if each in by_name:
                self._remove(by_name[each])

    def _roll_back(self, name: str, template: forking.Origin) -> None:
        """Its process, if it is a fork, is another one then. Raises: RuntimeFailure."""
        kept = {fd: state for fd, state in self._forks.items() if state.id == name}
        for fd in kept:
            self._forget(fd)
        try:
            now = succession.roll_back(self._store, name, template, self._successors)
            kept = dict.fromkeys(kept, now)
        finally:
            for state in kept.values():
                self._keep(state)

    def _ended(self, pidfd: int) -> None:
        """Its process has: of it nothing stays, unless somebody else has had it go back to a
        template, so that it is another process now."""
        before = self._forget(pidfd)
        with suppress(RuntimeFailure), self._store.held(before.id) as state:
            if state.sentry_pid != before.sentry_pid or state.sentry_start != before.sentry_start:
                self._keep(state)
            else:
                lifecycle.destroy(self._store, state, self._flags.log.warning)

    def _remove(self, pidfd: int) -> None:
        """It ends now, whichever process it is."""
        state = self._forget(pidfd)
        with suppress(RuntimeFailure):
            state = self._store.load(state.id)
        with suppress(RuntimeFailure):
            lifecycle.destroy(self._store, state, self._flags.log.warning)

    def _forget(self, pidfd: int) -> State:
        state = self._forks.pop(pidfd)
        self._origins.pop(state.id, None)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        with suppress(ChildProcessError):  # passt has ended with a fork before
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        return state


def main() -> None:
    """The program."""
    root, fd = sys.argv[1:3]
    os.set_inheritable(int(fd), False)
    signals.end_by_exception()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    code = 1
    try:
        Forker(root, socket.socket(fileno=int(fd))).serve()
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
