"""Faults by rules: calls that fail, are short or late; the Gofer; a database on a flaky disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc import Sandbox, SandboxError
from tests.e2e.bundle import Bundle, kvm_is_usable
from tests.e2e.client import Client
from tests.e2e.sandboxes import made, noted
from tests.patience import TIMEOUT_S

needs_kvm = pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")


@pytest.fixture
def sandbox(tmp_path: Path, busybox: Path, platform: str) -> Iterator[Sandbox]:
    with made(tmp_path, busybox, platform) as found:
        yield found
    assert noted(tmp_path) == []


def test_calls_fail_and_are_short_by_path_program_and_count(sandbox: Sandbox) -> None:
    run = sandbox.commands.run
    run("mkdir /data; echo abcdef > /data/f; echo abcdef > /other")
    sandbox.inject("openat: errno=EACCES, path=/data/*, after=1, count=2")
    assert run("cd /data; for i in 1 2 3 4; do cat f; done").stdout == "abcdef\nabcdef\n"
    sandbox.inject("read: short=2, path=/data/**; write: errno=ENOSPC, path=/data/**")
    assert run("dd if=/data/f bs=100 count=1 2>/dev/null").stdout == "ab"
    assert run("dd if=/other bs=100 count=1 2>/dev/null").stdout == "abcdef\n"
    assert "No space" in run("echo x > /data/g || echo failed").stderr
    sandbox.inject("openat: errno=EIO, path=/other, program=/bin/nobody")
    assert run("cat /other").exit_code == 0
    assert sandbox.faults()[0].fitted == 0
    sandbox.inject()
    assert run("cat /data/f").stdout == "abcdef\n"
    assert sandbox.faults() == []


SHORT = """
import os, socket
new = lambda: os.open("/tmp/new", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
f, pieces = os.open("/tmp/f", os.O_RDWR | os.O_CREAT), [b"ab", b"cd", b"ef"]
mine, other = socket.socketpair()
reading, writing = os.pipe()
room = lambda: [bytearray(2), bytearray(2), bytearray(2)]
def shown(buffers): return b"".join(buffers)
print(os.writev(f, pieces), os.pwritev(f, pieces, 10), os.pwritev(f, pieces, 20, os.RWF_SYNC))
os.truncate(f, 0), os.truncate("/tmp/f", 0), os.pwrite(f, b"abcdef", 0), os.lseek(f, 0, 0)
one, two, three = room(), room(), room()
print(os.readv(f, one), shown(one), os.preadv(f, two, 1), shown(two))
print(os.preadv(f, three, 2, os.RWF_HIPRI), shown(three))
print(mine.sendmsg(pieces), other.recv(9), mine.send(b"abcdef"), other.recvmsg(9)[0], other.recv(9))
print(os.sendfile(new(), f, 0, 6), os.copy_file_range(f, new(), 6, 0))
print(os.splice(f, writing, 6, offset_src=0), os.read(reading, 9))
"""
SHORTENED = """3 3 3
3 b'abc\\x00\\x00\\x00' 3 b'bcd\\x00\\x00\\x00'
3 b'cde\\x00\\x00\\x00'
3 b'abc' 6 b'abc' b'def'
3 3
3 b'abc'
"""


@pytest.mark.kvm
@needs_kvm
def test_calls_with_several_buffers_and_those_that_move_bytes_are_short(
    tmp_path: Path, debian: Path
) -> None:
    calls = "readv, writev, preadv, pwritev, preadv2, pwritev2, sendmsg, recvmsg, sendfile"
    with made(tmp_path, debian) as sandbox:
        sandbox.inject(f"{calls}, copy_file_range, splice: short=3")
        result = sandbox.commands.run(["python3", "-c", SHORT])
        assert (result.stdout, result.stderr) == (SHORTENED, "")
        with pytest.raises(SandboxError, match="number of bytes"):
            sandbox.inject("process_madvise: short=3")


def test_same_seed_hits_the_same_calls(sandbox: Sandbox) -> None:
    rule = "openat: errno=EIO, path=/etc/passwd, probability=0.5, seed=%d"
    loop = "for i in $(seq 20); do (: < /etc/passwd) 2>/dev/null && printf 1 || printf 0; done"
    found = []
    for seed in (3, 3, 4):
        sandbox.inject(rule % seed)
        found.append(sandbox.commands.run(loop).stdout)
    assert found[0] == found[1] != found[2]
    assert {"0", "1"} == set(found[0])


@pytest.mark.kvm
@needs_kvm
def test_late_calls_are_late_once_and_can_be_killed(tmp_path: Path, busybox: Path) -> None:
    with made(tmp_path, busybox) as sandbox:
        sandbox.inject("getdents64: delay=200ms")
        result = sandbox.commands.run("ls /bin/ > /dev/null")
        fitted = sandbox.faults()[0].fitted
        assert result.usage.wall >= 0.2 * fitted > 0
        sandbox.inject("getdents64: delay=1h")
        with sandbox.commands.run("ls /bin", background=True) as late:
            while not sandbox.faults()[0].injected:
                pass
            late.kill()
            assert late.wait().exit_code == 137


def test_late_call_may_have_to_wait_besides(sandbox: Sandbox) -> None:
    sandbox.inject("read: delay=5ms, program=/bin/*")
    assert sandbox.commands.run("(sleep 0.3; echo text) | /bin/cat").stdout == "text\n"


@pytest.mark.kvm
@needs_kvm
def test_gofer_refuses_and_is_late(tmp_path: Path, debian: Path) -> None:
    with made(tmp_path, debian) as sandbox:
        run = sandbox.commands.run
        run("ls -lR /opt")  # what all programs need is known
        sandbox.inject("gofer: errno=EIO")
        result = run("ls -lR /usr/share/doc /var/lib")
        assert "Input/output error" in result.stderr
        sandbox.inject("gofer: delay=5ms")
        assert run("ls -l /usr/lib/x86_64-linux-gnu | head -n 1").exit_code == 0
        assert sandbox.faults()[0].injected
        sandbox.inject()
        assert run("ls -lR /usr/share/doc /var/lib > /dev/null").stderr == ""


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("getpid: errno=EIO", "getpid"), ("exit_group: errno=EIO", "exit_group"),
        ("nope: errno=EIO", "nope"), ("read: errno=EWHAT", "EWHAT"), ("read: path=/x", "errno"),
        ("openat: short=1", "openat"), ("network: errno=EIO", "network"),
        ("network: loss", "network"), ("gofer,read: errno=EIO", "gofer"),
        ("read: loss", "frames"), ("read: errno=EIO, path=/*/*/*", "wildcards"),
        ("gofer: errno=EIO, path=/x", "paths"),
    ],
)  # fmt: skip
def test_rule_that_makes_no_sense_is_refused_and_the_others_stay(
    idle: Sandbox, rule: str, said: str
) -> None:
    before = idle.faults()
    with pytest.raises(SandboxError, match=said):
        idle.inject(rule)
    assert idle.faults() == before
    assert len(before) == 1


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Iterator[Sandbox]:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    with made(tmp_path_factory.mktemp("idle"), busybox) as found:
        found.inject("socket: errno=EACCES")
        yield found


@pytest.mark.kvm
@needs_kvm
def test_faults_of_the_command_line(tmp_path: Path, busybox: Path) -> None:
    rules = tmp_path / "faults.toml"
    rules.write_text('[[rule]]\ncalls = ["openat"]\nerrno = "EPERM"\npath = "/etc/passwd"\n')
    script = "cat /etc/passwd; echo $?; while :; do sleep 1; done"
    client = Client(Bundle(tmp_path / "bundle", busybox).args("sh", "-c", script))
    client.flags.append(f"--inject={rules}")
    client.create("c")
    client.ok("start", "c")
    deadline = time.monotonic() + TIMEOUT_S
    while "\n" not in client.output("c"):  # the rules are for its first cat
        assert time.monotonic() < deadline
    shown = client.ok("inject", "show", "c")
    assert shown.startswith("openat: errno=EPERM, path=/etc/passwd\n# fitted ")
    client.ok("inject", "set", "c", "openat: errno=EIO, path=/etc/**", str(rules))
    assert "error" in client.call("exec", "c", "cat", "/etc/group").stderr.lower()
    assert "no errno" in client.error("inject", "set", "c", "read: errno=E")
    client.ok("inject", "clear", "c")
    assert client.ok("inject", "show", "c") == ""
    assert client.ok("exec", "c", "cat", "/etc/group")
    assert "not permitted" in client.output("c")
    client.ok("delete", "--force", "c")
    client.flags[-1] = "--inject=read: errno=ENOSUCH"
    assert "ENOSUCH" in client.error("run", f"--bundle={client.bundle.path}", "d")
    assert client.remains() == []
