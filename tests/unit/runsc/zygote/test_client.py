"""The caller's side without a zygote, and beside one that does not do what it should."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc.zygote import client, place, protocol
from runsc.zygote.client import Unserved


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = tmp_path / "socket"
    monkeypatch.setattr(place, "socket_path", lambda: str(path))
    monkeypatch.setattr(client, "_has_terminal", lambda: False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(path))
        sock.listen()
        yield sock


def answered(conn: socket.socket, fork: int) -> None:
    """As a fork does that has taken on what its caller has."""
    pidfd = os.pidfd_open(fork)
    with conn:
        socket.send_fds(conn, [protocol.TAKEN], [pidfd])
    os.close(pidfd)


def test_nobody_listens_is_unserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "socket_path", lambda: str(tmp_path / "absent"))

    with pytest.raises(Unserved, match="No such file"):
        client.run("runsc", ["run", "c"], stands=False)


def test_a_folder_of_others_is_not_asked(listener: socket.socket, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    with pytest.raises(Unserved, match="own"):
        client.run("runsc", ["run", "c"], stands=False)


def test_without_proc_the_caller_goes_on_alone(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(path: str) -> list[str]:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(os, "listdir", absent)

    with pytest.raises(Unserved, match="No such file"):
        client.run("runsc", ["run", "c"], stands=False)


def test_a_terminal_stays_with_its_session(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_has_terminal", lambda: True)

    with pytest.raises(Unserved, match="terminal"):
        client.run("runsc", ["run", "c"], stands=False)


def test_what_a_service_manager_has_opened_is_for_one_process(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")

    with pytest.raises(Unserved, match="service manager"):
        client.run("runsc", ["run", "c"], stands=False)


@pytest.mark.parametrize(
    ("said", "reason"), [(b"-a label", "a label"), (b"", "ended"), (b"+", "ended"), (b"x", "ended")]
)
def test_what_is_refused_leaves_the_caller_as_it_was(
    said: bytes, reason: str, listener: socket.socket
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    pid = os.fork()
    if pid == 0:
        conn, _ = listener.accept()
        conn.recv(1 << 18)
        conn.send(said)
        os._exit(0)

    with pytest.raises(Unserved, match=reason):
        client.run("runsc", ["run", "c"], stands=False)

    os.waitpid(pid, 0)
    assert set(os.listdir("/proc/self/fd")) == before


def test_one_that_accepts_nobody_any_more_holds_nobody_up(listener: socket.socket) -> None:
    listener.listen(0)
    client.ask(b"first", ()).close()

    with pytest.raises(Unserved, match="unavailable"):
        client.ask(b"second", ())


def test_a_fork_that_is_killed_takes_its_caller_with_it(listener: socket.socket) -> None:
    caller = os.fork()
    if caller == 0:
        try:
            client.run("runsc", ["run", "c"], stands=False)
        finally:
            os._exit(1)
    conn, _ = listener.accept()
    conn.recv(1 << 18)
    fork = os.fork()
    if fork == 0:
        conn.recv(16)
        os._exit(0)  # without a word
    answered(conn, fork)

    assert os.waitpid(caller, 0)[1] == 9
    os.waitpid(fork, 0)


def test_the_code_of_a_fork_is_the_callers(listener: socket.socket) -> None:
    caller = os.fork()
    if caller == 0:
        os._exit(client.run("runsc", ["run", "c"], stands=False))
    conn, _ = listener.accept()
    conn.recv(1 << 18)
    fork = os.fork()
    if fork == 0:
        conn.recv(16)
        conn.send(protocol.ENDED + b"7")
        os._exit(0)
    answered(conn, fork)

    assert os.waitstatus_to_exitcode(os.waitpid(caller, 0)[1]) == 7
    os.waitpid(fork, 0)
