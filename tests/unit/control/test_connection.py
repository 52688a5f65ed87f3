"""One client of a control socket: what comes with descriptors, what waits, what ends with it."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import pytest

from sentry.config import EgressConfig, JobUse
from sentry.control.answers import CapturedFrame, EgressState, Packets, ProcessInfo
from sentry.control.connection import FAULT
from sentry.control.descriptors import close_all
from sentry.control.orders import ExecProcess, FileOrder, Trace
from sentry.control.protocol import MAX_LINE, Event, Reply, Request, decode, encode
from sentry.control.server import ControlServer
from sentry.loop import HostOnly, Loop
from tests.unit.control.controlling import (
    Kernel,
    ask,
    open_descriptors,
    send_fds,
)


def test_long_answer_is_sent_as_the_client_reads_it(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    kernel.processes = [ProcessInfo(pid, 1, 0, "x" * 100, "S") for pid in range(1, 30001)]
    sock.send(encode(Request("ps")))
    sock.send(encode(Request("state")))
    sock.setblocking(False)
    received = b""
    while received.count(b"\n") < 2:
        loop.turn()
        with suppress(BlockingIOError):
            received += sock.recv(1 << 18)
    first, second, _ = received.split(b"\n")
    assert decode(first, Reply).processes == kernel.processes
    assert decode(second, Reply).status == "running"


def test_client_that_reads_nothing_loses_its_connection(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    kernel.processes = [ProcessInfo(1, 1, 0, "x" * 3_000_000, "S")]
    for _ in range(7):
        with suppress(BrokenPipeError):
            sock.send(encode(Request("ps")))
            loop.turn()
    with pytest.raises(BrokenPipeError):
        sock.send(encode(Request("state")))


def test_exec_brings_descriptors_and_hears_of_the_end(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    process = ExecProcess((b"program", b"x" * 100_000), extra_env=(b"A=b",), terminal=True)
    data = encode(Request("exec", process=process))
    send_fds(sock, data[:1], 3)
    loop.turn()
    assert kernel.execs == []
    for at in range(1, len(data), 1 << 15):
        sock.sendall(data[at : at + (1 << 15)])
        loop.turn()

    (made,) = kernel.execs
    assert made.request == process
    assert len(made.fds) == 3
    assert all(os.get_inheritable(fd) is False for fd in made.fds)
    made.client.started(12)
    assert decode(sock.recv(1 << 16), Reply).pid == 12
    assert ask(loop, sock, Request("signal", signal=15)) == Reply()
    assert ask(loop, sock, Request("signal", signal=9, all=True)) == Reply()
    assert made.signals == [15, -9]
    assert "one process" in ask(loop, sock, Request("exec", process=ExecProcess((b"p",)))).error
    made.client.ended(256, JobUse(written=5), "cpu")
    event = decode(sock.recv(1 << 16), Event)
    assert (event.event, event.status, event.exceeded) == ("exited", 256, "cpu")
    assert event.use == JobUse(written=5)
    assert ask(loop, sock, Request("signal", signal=15)).error
    close_all(made.fds)


def test_process_of_a_client_that_goes_away_is_abandoned(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    before = open_descriptors()
    send_fds(sock, encode(Request("exec", process=ExecProcess((b"p",)))), 3)
    loop.turn()
    sock.shutdown(socket.SHUT_RDWR)
    loop.turn()

    assert kernel.execs[0].abandoned
    assert open_descriptors() == before - 1


@pytest.mark.parametrize(
    "data",
    [
        encode(Request("state")),
        encode(Request("exec", process=ExecProcess((b"refused",)))),
        b"nonsense\n",
        b'{"op":"exec","process":{"args":"x"}}\n',
        b'{"op":"exec"}\n',
    ],
)
def test_descriptors_without_a_use_do_not_stay(
    served: tuple[Loop, Kernel, socket.socket], data: bytes
) -> None:
    loop, kernel, sock = served
    before = open_descriptors()
    send_fds(sock, data, 200)
    loop.turn()

    assert open_descriptors() <= before
    assert decode(sock.recv(1 << 16).split(b"\n")[0], Reply).error
    assert kernel.execs == []


def test_descriptors_of_two_messages_end_the_connection(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, _, sock = served
    before = open_descriptors()
    for _ in range(2):
        send_fds(sock, b"{", 253)
        loop.turn()

    assert open_descriptors() == before - 1
    assert decode(sock.recv(1 << 16), Reply).error


def test_strace_may_bring_one_descriptor(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, kernel, sock = served
    before = open_descriptors()
    send_fds(sock, encode(Request("strace", trace=Trace(limit=7))), 1)
    loop.turn()

    assert decode(sock.recv(1 << 16), Reply) == Reply()
    assert ask(loop, sock, Request("strace", trace=Trace(on=False))) == Reply()
    assert kernel.traced == [(Trace(limit=7), 1), (Trace(on=False), 0)]
    assert "what to trace" in ask(loop, sock, Request("strace")).error
    assert open_descriptors() == before


def test_wait_answers_at_the_end_and_is_given_up_with_the_connection(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    assert ask(loop, sock, Request("wait", pid=99)).error == "no process 99"
    sock.send(encode(Request("wait")))
    loop.turn()
    (wait,) = kernel.waits
    assert wait.looked
    assert ask(loop, sock, Request("wait")).error == "one wait for each connection"
    wait.done(0x700)
    assert decode(sock.recv(1 << 16), Reply).wait_status == 0x700

    sock.send(encode(Request("wait")))
    loop.turn()
    sock.shutdown(socket.SHUT_RDWR)
    loop.turn()
    assert not wait.abandoned
    assert kernel.waits[1].abandoned


def test_forward_brings_two_descriptors_and_ends_with_the_connection(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    before = open_descriptors()
    send_fds(sock, encode(Request("forward", port=7)), 2)
    loop.turn()
    assert decode(sock.recv(1 << 16), Reply).error == "no such port"
    send_fds(sock, encode(Request("forward", port=80)), 2)
    loop.turn()
    kernel.waits[0].done(0)
    assert decode(sock.recv(1 << 16), Reply) == Reply()
    sock.shutdown(socket.SHUT_RDWR)
    loop.turn()

    assert kernel.waits[0].abandoned
    assert open_descriptors() == before - 1


def test_read_brings_a_descriptor_and_answers_at_the_end(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    send_fds(sock, encode(Request("read", path=b"/x", size=3)), 1)
    loop.turn()
    kernel.waits[0].done(0)

    assert decode(sock.recv(1 << 16), Reply).error == "b'/x' 3"


def test_file_orders_bring_a_pipe_or_none_and_are_abandoned(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    assert ask(loop, sock, Request("file")).error == "what to do?"
    assert ask(loop, sock, Request("file", file=FileOrder("wrong"))).error == "no such order"
    send_fds(sock, encode(Request("file", file=FileOrder("list", b"/x"))), 1)
    loop.turn()
    kernel.waits[0].done(0)
    assert decode(sock.recv(1 << 16), Reply).error == "list 1"

    sock.shutdown(socket.SHUT_RDWR)
    loop.turn()
    assert kernel.waits[0].abandoned


def test_egress_is_told_changed_and_waited_for(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    for request in (
        Request("egress", after=-1),
        Request("egress", egress=EgressConfig('default = "deny"', ("192.0.2.1",))),
    ):
        sock.send(encode(request))
        loop.turn()
        told = decode(sock.recv(1 << 16), Reply).egress
        assert told == EgressState("", {"after": request.after, "ways": 0})
    assert kernel.policies == ['default = "deny"']
    send_fds(sock, encode(Request("egress", egress=EgressConfig("x"))), 1)
    loop.turn()
    told = decode(sock.recv(1 << 16), Reply).egress
    assert told == EgressState("", {"after": 0, "ways": 1})
    sock.send(encode(Request("denials", after=5)))
    loop.turn()
    kernel.waits[-1].done(0)
    told = decode(sock.recv(1 << 16), Reply).egress
    assert told == EgressState("", {"after": 5, "ways": 0})


def test_packets_are_looked_at_as_long_as_the_connection_lasts(
    served: tuple[Loop, Kernel, socket.socket],
) -> None:
    loop, kernel, sock = served
    assert ask(loop, sock, Request("packets", interface="eth9")).error == "interface eth9"
    for ends in (False, True):
        sock.send(encode(Request("packets", interface="eth0", ends=ends)))
        loop.turn()
    (look,) = kernel.looks
    assert (look.interface, look.asked) == ("eth0", [False, True])
    packets = Packets([], [CapturedFrame(2, 5, b"\0\xff")])
    look.told(packets)
    assert decode(sock.recv(1 << 16), Reply).packets == packets
    sock.shutdown(socket.SHUT_RDWR)
    loop.turn()
    assert look.ended


def test_oom_answers_with_stats(served: tuple[Loop, Kernel, socket.socket]) -> None:
    loop, kernel, sock = served
    sock.send(encode(Request("oom", oom_kills=5)))
    loop.turn()
    kernel.waits[0].done(0)

    assert decode(sock.recv(1 << 16), Reply).stats == kernel.control_stats()


@pytest.mark.parametrize(
    "line", [b"{}\n", b"\xff\n", b'{"op": 3}\n', b"x" * (MAX_LINE + 2), b"x" * 5_000_000 + b"\n"]
)
def test_nonsense_ends_the_connection(
    served: tuple[Loop, Kernel, socket.socket], line: bytes
) -> None:
    loop, kernel, sock = served

    sock.setblocking(False)
    received, closed = b"", False
    while not closed:
        with suppress(BlockingIOError, BrokenPipeError):
            line = line[sock.send(line) :]
        loop.call_soon(int)  # so that the turn does not wait
        loop.turn()
        try:
            chunk = sock.recv(1 << 16)
            received, closed = received + chunk, not chunk
        except BlockingIOError:
            pass
        except ConnectionResetError:
            closed = True

    assert not received or decode(received, Reply).error
    assert kernel.killed == []


class Faulty(Kernel):
    """It has a fault."""

    def control_status(self) -> str:
        raise AttributeError("no attribute")


def test_exception_of_our_own_is_an_answer() -> None:
    ours, theirs = socket.socketpair()
    told: list[str] = []
    loop = Loop(HostOnly(), lambda name, error: told.append(str(error)))
    server = ControlServer(loop, Faulty(), theirs.detach())
    with ours:
        ours.send(encode(Request("state")))
        loop.turn()
        assert decode(ours.recv(1 << 16), Reply).error == FAULT
        assert ours.recv(1) == b""
        assert told == ["no attribute"]
    server.close()
