"""What a fork of the zygote is asked, and by whom."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsc.zygote import forked, place, protocol
from runsc.zygote.traits import Unlike
from tests.patience import TIMEOUT_S

SO_SNDBUFFORCE = 32


def test_a_request_is_read_as_it_was_made() -> None:
    words = ["run", "", "--bundle=/ü", "c\udcff"]
    environment = {b"A": b"1=2", b"EMPTY": b""}

    packet = protocol.pack("runsc", words, [0, 1, 2, 9], environment, protocol.STANDS)

    request = forked.Request("runsc", protocol.STANDS, (0, 1, 2, 9), words, environment)
    assert forked.read(packet) == request


def test_a_request_of_another_installation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packet = protocol.pack("runsc", [], [], {})
    monkeypatch.setattr(place, "HOME", "/elsewhere")

    with pytest.raises(Unlike, match="another program"):
        forked.read(packet)


@pytest.mark.parametrize("program", ["", "sh", "runsc.cli"])
def test_only_our_own_programs_are_run(program: str) -> None:
    with pytest.raises(Unlike):
        forked.read(protocol.pack(program, [], [], {}))


@given(st.binary(max_size=200) | st.lists(st.binary(max_size=9), max_size=12).map(b"\0".join))
def test_what_is_no_request_is_refused(packet: bytes) -> None:
    for prefix in (b"", place.program() + b"\0runsc\0\0"):
        try:
            request = forked.read(prefix + packet)
        except Unlike:
            continue
        assert request.program in forked.PROGRAMS


@pytest.mark.parametrize(("numbers", "fds"), [((0, 1), [5]), ((1 << 30,), [5, 6]), ((), [])])
def test_descriptors_that_do_not_fit_are_refused(numbers: tuple[int, ...], fds: list[int]) -> None:
    request = forked.Request("runsc", protocol.BOUND, numbers, [], {})

    with pytest.raises(Unlike):
        forked._check(request, fds)


def test_a_packet_that_was_cut_is_no_request() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        if os.geteuid() == 0:
            ours.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 20)
        ours.settimeout(TIMEOUT_S)
        try:
            ours.send(protocol.pack("runsc", [], [], {b"A": b"x" * forked.REQUEST_MAX}))
        except OSError as error:
            pytest.skip(f"the kernel sends no packets of that size: {error}")
        assert forked._received(theirs)[0] == b""


def test_another_process_with_the_pid_of_who_connected_is_not_it() -> None:
    """Where the kernel tells of the process itself."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(b"")
        listener.listen()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(listener.getsockname())
            conn, _ = listener.accept()
            socket.send_fds(ours, [b"x"], [conn.fileno(), sock.fileno()])
        os._exit(0)
    _, (number, other), _, _ = socket.recv_fds(theirs, 1, 2)
    os.waitpid(pid, 0)
    os.close(other)
    with socket.socket(fileno=number) as conn:
        who = forked._caller(
            conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, forked.CREDENTIALS.size)
        )
        assert who.pid == pid
        again = with_pid(pid)
        try:
            with pytest.raises((ProcessLookupError, *([] if again else [FileNotFoundError]))):
                forked._connected(conn, who)
        finally:
            if again:
                os.kill(again, signal.SIGKILL)
                os.waitpid(again, 0)
    ours.close()
    theirs.close()


def with_pid(number: int) -> int:
    """A process with this pid, if it can be had; else 0."""
    try:
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(number - 1))
    except OSError:
        return 0
    pid = os.fork()
    if pid == 0:
        signal.pause()
    if pid == number:
        return pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 0
