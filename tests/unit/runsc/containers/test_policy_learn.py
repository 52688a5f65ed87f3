"""From facts to a policy, and back: what was recorded is let happen, other things are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runsc.containers import policy_learn, policy_test
from runsc.containers.watching import MAGIC, framed
from runsc.errors import RuntimeFailure
from runsc.launch.policy import of_text
from sentry.config import PolicyConfig
from sentry.protobuf import encode
from sentry.watch import messages as m
from sentry.watch.sinks import HEADER


def _open(path: str, writes: bool = False, creates: bool = False) -> dict[str, Any]:
    return {"kind": "open", "call": "openat", "path": path, "writes": writes, "creates": creates}


def _address(address: str, port: int = 0, call: str = "connect", **more: str) -> dict[str, Any]:
    return {"kind": "address", "call": call, "address": address, "port": port, **more}


FACTS = [
    {"kind": "call", "call": "read"},
    {"kind": "path", "call": "rename", "path": "/home/new", "writes": True},
    _open("/etc/passwd"),
    _open("/tmp/x1234", True, True),
    _open("/proc/77/stat"),
    _open("/literal/**"),
    _open("/odd/\x7f"),
    _open('/odd "name"\n\u2028'),
    *(_open(f"/src/{n}.o", True, True) for n in range(9)),
    {"kind": "exec", "call": "execve", "path": "/bin/sh"},
    _address("127.0.0.1", 80),
    _address("/run/socket"),
    _address("::1", 8080, "bind"),
    _address("", 0, "bind", protocol="0"),
]
OTHERS = [
    {"kind": "call", "call": "mkdir"},
    {"kind": "path", "call": "rename", "path": "/home/other", "writes": True},
    {"kind": "path", "call": "link", "path": "/etc/passwd", "writes": True},
    _open("/etc/shadow"),
    _open("/literal/other"),
    _open("/etc/passwd", True),
    _open("/src/deep/x.o"),
    {"kind": "exec", "call": "execve", "path": "/bin/cat"},
    _address("127.0.0.1", 81),
    _address("127.0.0.2", 80),
    _address("/run/other"),
    _address("::1", 8080),
]


def _seen(path: Path, facts: list[dict[str, Any]]) -> str:
    lines = [json.dumps({"point": "sentry/policy", "record": fact}) for fact in facts]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture
def learnt(tmp_path: Path) -> PolicyConfig:
    return of_text("x.toml", policy_learn.policy(_seen(tmp_path / "seen", FACTS)))


def test_what_was_seen_is_let_happen_again(tmp_path: Path, learnt: PolicyConfig) -> None:
    again = [*FACTS, _open("/tmp/other/name", True, True), _open("/proc/1/stat"),
             _open("/src/10.o", True, True), {"kind": "call", "call": "exit_group"}]  # fmt: skip
    assert list(policy_test.denials(learnt, _seen(tmp_path / "again", again))) == []


@pytest.mark.parametrize("fact", OTHERS, ids=range(len(OTHERS)))
def test_what_was_not_seen_is_denied(
    tmp_path: Path, learnt: PolicyConfig, fact: dict[str, Any]
) -> None:
    [line] = policy_test.denials(learnt, _seen(tmp_path / "other", [fact]))
    assert ": deny E" in line


def test_lost_records_are_no_policy(tmp_path: Path) -> None:
    path = tmp_path / "seen"
    path.write_text(json.dumps({"point": "sentry/policy", "record": {}, "dropped": 3}))
    with pytest.raises(ValueError, match="3 records were lost"):
        policy_learn.policy(str(path))


@pytest.mark.parametrize(
    "said",
    [
        "[]", '{"point": "sentry/policy"}', '{"point": "sentry/policy", "record": []}',
        '{"point": "sentry/policy", "record": {"kind": "open", "path": []}}',
        '{"point": "sentry/policy", "record": {"kind": "address", "address": "a", "port": "b"}}',
        '{"dropped": []}', '{"point": "sen', "[" * 500_000,
    ],
)  # fmt: skip
def test_what_no_sandbox_records_is_no_policy(tmp_path: Path, said: str) -> None:
    path = tmp_path / "seen"
    path.write_text(said + "\n")
    with pytest.raises(ValueError, match=r"[a-z]"):
        policy_learn.policy(str(path))


def _recording(path: Path, *records: tuple[int, m.Record]) -> str:
    data = b""
    for kind, record in records:
        data += framed(HEADER.pack(HEADER.size, kind, 0) + encode(record))
    path.write_bytes(MAGIC + data)
    return str(path)


def test_a_recording_with_a_number_of_no_call_is_read_on(
    tmp_path: Path, learnt: PolicyConfig
) -> None:
    opened = m.Open(None, m.Exit(3), 1 << 40, -100, "/", "etc/shadow", 0)
    path = _recording(
        tmp_path / "recording", (m.MessageType.SYSCALL_OPEN, opened),
        (m.MessageType.SENTRY_EXEC, m.ExecveInfo(None, "/bin/cat")),
    )  # fmt: skip
    assert len(list(policy_test.denials(learnt, path))) == 1


def test_a_recording_of_system_calls_is_looked_at_by_the_paths_that_were_given(
    tmp_path: Path,
) -> None:
    opened = m.Open(None, m.Exit(3), 257, -100, "/etc", "../etc/passwd", 1)
    failed = m.Open(None, m.Exit(0, 2), 257, -100, "", "/etc/passwd", 1)
    to = b"\2\0\0\x50\x7f\0\0\1" + bytes(8)
    connected = m.Connect(None, m.Exit(), 42, 3, "", to)
    path = _recording(
        tmp_path / "recording", (m.MessageType.SYSCALL_OPEN, opened),
        (m.MessageType.SYSCALL_OPEN, failed), (m.MessageType.SYSCALL_CONNECT, connected),
        (m.MessageType.SENTRY_EXEC, m.ExecveInfo(None, "/bin/sh")),
    )  # fmt: skip
    text = """if True:
        from runsc.policy import *

        @on.open(path='/etc/*')
        @on.execve
        @on.connect(port=80)
        async def f(event):
            await ask()
            return DENY(13 if event.call == 'connect' else 1)
    """
    policy = of_text("p.py", text)
    assert list(policy_test.denials(policy, path)) == [
        "openat /etc/passwd by : deny EPERM (f)",
        "connect 127.0.0.1:80 by : deny EACCES (f)",
        "execve /bin/sh by : deny EPERM (f)",
    ]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"no recording", "Expecting value"),
        (MAGIC + b"\1", "in the middle"),
        (b'{"point": "sentry/policy", "record": {"path": 3}}', "path is 3"),
        (b'{"point": "sentry/policy"}', "no record of a policy: None"),
        (b"[" * 500_000, "nested too deeply"),
    ],
)
def test_what_is_no_recording_is_said(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "recording"
    path.write_bytes(data)
    with pytest.raises(RuntimeFailure, match=why):
        list(policy_test.denials(PolicyConfig("p", ""), str(path)))


def test_a_handler_that_fails_is_said(tmp_path: Path) -> None:
    policy = PolicyConfig("p", "from runsc.policy import on\n@on.open\ndef f(e): 1 / 0\n")
    with pytest.raises(RuntimeFailure, match="f: ZeroDivisionError"):
        list(policy_test.denials(policy, _seen(tmp_path / "seen", FACTS)))
