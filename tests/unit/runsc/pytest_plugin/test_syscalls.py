"""What is made of lines that a sandbox, or who has taken it over, sends."""

from __future__ import annotations

import itertools
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from runsc.api.errors import SandboxError
from runsc.pytest_plugin import syscalls as module
from runsc.pytest_plugin.syscalls import Call, Syscalls
from sentry.control.protocol import Reply, Request, decode, encode

WHO = {"thread_group_id": 7, "process_name": "cat", "cwd": "/srv"}


class _Sandbox:
    """Answers on a control socket, and has the other end of what is listened to."""

    def __init__(self, path: str) -> None:
        self.sent = 0
        self.dropped = 0
        self.names: set[str] = set()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(path)
        self._server.listen()
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            with sock:
                data, fds, _, _ = socket.recv_fds(sock, 1 << 20, 4)
                while not data.endswith(b"\n"):
                    data += sock.recv(1 << 20)
                request = decode(data, Request)
                if request.op == "trace":
                    assert request.session is not None
                    self.names = {point.name for point in request.session.points}
                    self.listener = socket.socket(fileno=fds[0])
                    self.listener.setblocking(True)
                counts = {
                    'trace_records{session="pytest",sink="json",number="0"}': self.sent,
                    'trace_records_dropped{session="pytest",sink="json",number="0"}': self.dropped,
                    'trace_records{session="other",sink="json",number="0"}': 99,
                }
                sock.sendall(encode(Reply(counts=counts)))

    def say(self, *lines: object) -> None:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        self.listener.sendall("".join(f"{text}\n" for text in texts).encode())
        self.sent += len(lines)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.listener.close()
        self._server.close()


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[tuple[_Sandbox, Syscalls]]:
    made = _Sandbox(str(tmp_path / "control.sock"))
    calls = Syscalls(str(tmp_path / "control.sock"))
    yield made, calls
    calls.close()
    made.close()


def _open(path: str, flags: int = 0, errno: int = 0, **more: object) -> dict[str, object]:
    return {"point": "syscall/openat/exit", "record": {
        "context_data": WHO, "exit": {"errorno": errno}, "sysno": 257, "fd": -100,
        "pathname": path, "flags": flags} | more}  # fmt: skip


def test_calls_are_counted_found_and_forgotten(sandbox: tuple[_Sandbox, Syscalls]) -> None:
    inside, calls = sandbox
    assert {"sentry/execve", "syscall/openat/exit", "syscall/getpid/exit"} <= inside.names
    inside.say(
        _open("a"), _open("/etc/x", 0x41), _open("/none", errno=2), _open("b", fd_path="/d"),
        {"point": "sentry/execve", "record": {"argv": ["cat", "a"]}},
        {"point": "syscall/stat/exit", "record": {"context_data": WHO, "args": {"path": "../q"}}},
        {"point": "syscall/connect/exit", "record": {"peer": "[::1]:80"}},
    )
    assert calls.count() == 6
    assert calls.count("open*", failed=True) == 1
    assert "stat" in calls
    assert calls.names(program="cat") == {"openat", "stat"}
    assert [each.path for each in calls.opened()] == ["/srv/a", "/etc/x", "/d/b"]
    assert [each.path for each in calls.opened(to_write=True)] == ["/etc/x"]
    assert calls.of("stat")[0].path == "/q"
    assert calls.executed() == [("cat", "a")]
    assert calls.connected() == ["[::1]:80"]
    assert next(iter(calls)) == Call(
        "openat", "cat", 7, {"fd": -100, "pathname": "a", "flags": 0}, 0, 0, "/srv"
    )
    calls.clear()
    assert (calls.count(), list(calls), calls.executed()) == (0, [], [])


def test_a_question_waits_for_what_was_recorded_before(
    sandbox: tuple[_Sandbox, Syscalls], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, calls = sandbox
    inside.sent = 1  # and it does not come
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    with pytest.raises(SandboxError, match="does not say"):
        calls.count()
    inside.dropped = 1
    assert calls.count() == 0
    assert calls.lost == 1


@pytest.mark.parametrize(
    "line",
    ["no json", "[]", '{"point": 5, "record": {}}', '{"point": "x", "record": []}',
     "x" * (5 << 20), '{"point": "x", "record": {"a": ' + "[" * 100_000,
     '{"point": "sentry/execve", "record": {"argv": [1' + "0" * 5000 + "]}}"],
    ids=range(7),
)  # fmt: skip
def test_a_line_that_is_none_ends_what_is_heard(
    sandbox: tuple[_Sandbox, Syscalls], line: str
) -> None:
    inside, calls = sandbox
    inside.say(_open("a"))
    assert calls.count() == 1
    if len(line) > 1 << 20:
        with pytest.raises(OSError, match=r"."):
            inside.listener.sendall(line.encode() * 2)
            inside.listener.sendall(line.encode())
    else:
        inside.say(line, _open("b"))
    calls._reader.join()
    assert calls.count() == 1


@pytest.mark.parametrize(
    "record",
    [{}, {"context_data": 5, "exit": [], "args": 7, "argv": {}}, {"exit": {"errorno": "x"}},
     {"pathname": 5, "fd_path": [], "context_data": {"cwd": {}, "thread_group_id": "1"}},
     {"peer": 5, "flags": "w", "pathname": "\x00/../.."}],
)  # fmt: skip
def test_strange_values_are_no_error(
    sandbox: tuple[_Sandbox, Syscalls], record: dict[str, object]
) -> None:
    inside, calls = sandbox
    for name in ("sentry/execve", "syscall/openat/exit", "syscall/connect/exit", "", "syscall"):
        inside.say({"point": name, "record": record})
    assert calls.count() == 4
    assert all(each.path in ("", "/") for each in calls)
    assert calls.opened(to_write=True) == []
    assert calls.connected() == []


def test_what_is_kept_is_bounded_in_bytes_and_counted_all_the_same(
    sandbox: tuple[_Sandbox, Syscalls], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, calls = sandbox
    monkeypatch.setattr(module, "KEPT_BYTES", 10_000)
    who = WHO | {"process_name": "x" * 5000}
    inside.say(*(_open(f"{n}" * 4000) for n in range(5)), _open("a" * 20_000, context_data=who))
    assert [len(each.path) for each in calls] == [20_005]
    assert calls.count() == 6
    assert calls.count(program="x*") == 1 and "x" * 65 not in str(calls._counts)


def test_calls_may_come_while_others_are_counted(
    sandbox: tuple[_Sandbox, Syscalls], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, calls = sandbox
    inside.say(_open("a"), {"point": "syscall/stat/exit", "record": {}})
    numbers = itertools.count()

    def fnmatchcase(name: str, pattern: str) -> bool:
        calls._counts[f"new{next(numbers)}", "", False] = 1  # as the thread that hears does
        return name in ("openat", "stat", "cat", "")

    calls.count()
    monkeypatch.setattr(module, "fnmatch", SimpleNamespace(fnmatchcase=fnmatchcase))
    assert calls.count() == 2
    assert calls.names() >= {"openat", "stat"}


def test_nothing_is_left_of_a_session_that_is_refused(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SandboxError):
        Syscalls(str(tmp_path / "none"))
    assert len(os.listdir("/proc/self/fd")) == before
