"""`run --publish`: ports of the host that lead to ports inside, for who has no engine.

The command line listens before there is a container, so that a port that is taken is told; then a
process of its own, a fork of it, copies bytes as `port-forward` does, whatever network the
container has, until that has ended. No socket of the host gets into the sandbox.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from runsc import host
from runsc.containers.forwarding import Forwarding
from runsc.errors import RuntimeFailure
from runsc.launch import isolation
from runsc.launch.sandbox import end_child
from runsc.launch.title import set_title

if TYPE_CHECKING:
    from runsc.containers.container import Store
    from runsc.containers.state import State

LOOPBACK: Final = "127.0.0.1"
BACKLOG: Final = 128
Listening = Mapping[socket.socket, int]
"""Sockets that do not block, and the ports inside that they lead to."""


class Port(NamedTuple):
    """One that is published."""

    address: str
    outside: int
    inside: int


def parse(text: str) -> Port:
    """[IP:]PORT:PORT, an IP of version 6 in brackets, perhaps with /tcp. Raises: RuntimeFailure."""
    if text.endswith(("/udp", "/sctp")):
        raise RuntimeFailure(f"--publish {text!r}: only TCP can be published")
    rest, _, inside = text.removesuffix("/tcp").rpartition(":")
    address, _, outside = rest.rpartition(":")
    try:
        port = Port(_address(address), _number(outside), _number(inside))
    except ValueError:
        form = "[IP:]PORT:PORT, with a port of the host and one inside"
        raise RuntimeFailure(f"--publish {text!r}: {form}") from None
    return port


def _address(text: str) -> str:
    if not text:
        return LOOPBACK
    plain = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    return str(ipaddress.ip_address(plain))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 1 << 16):
        raise ValueError(text)
    return int(text)


@contextmanager
def listening(words: Sequence[str]) -> Iterator[Listening]:
    """At these ports of the host. Raises: RuntimeFailure."""
    ports = [parse(word) for word in words]
    with ExitStack() as held:
        found: dict[socket.socket, int] = {}
        for address, outside, inside in ports:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            try:
                sock = socket.create_server((address, outside), family=family, backlog=BACKLOG)
            except OSError as error:
                why = os.strerror(error.errno or 0).lower()
                raise RuntimeFailure(f"--publish: port {outside} of {address}: {why}") from None
            sock.setblocking(False)
            found[held.enter_context(sock)] = inside
        yield found


@contextmanager
def serving(
    store: Store, words: Sequence[str], *, outlives: bool
) -> Iterator[Callable[[State], None]]:
    """What is given is called once the container runs. `outlives`: its ports stay published when
    this process has ended. Raises: OSError, RuntimeFailure."""
    pids: list[int] = []
    with listening(words) as sockets:

        def serve(state: State) -> None:
            path, tie = store.path(state.id, "control.sock"), 0 if outlives else signal.SIGKILL
            try:
                over = os.pidfd_open(state.pid)
            except ProcessLookupError:  # it was a short one
                return
            try:
                made = isolation.spawn_here(lambda: _body(sockets, path, state.id, over, tie), 0)
            finally:
                os.close(over)
            pids.append(made)

        try:
            yield serve
        finally:
            for pid in () if outlives else pids:
                end_child(pid)


def _body(sockets: Listening, path: str, container_id: str, over: int, tie: int) -> int:
    isolation.tie_to_parent(tie)
    isolation.leave_session()
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    set_title("runsc-ports", container_id)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    host.close_all_but({0, 1, 2, over, *(each.fileno() for each in sockets)})
    forwarding = Forwarding(path, over, lambda text: None)
    forwarding.run(sockets)
    forwarding.close()
    return 0
