"""exec, ps, pause, resume, events: what a client of the OCI command line sees."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bundle import REPOSITORY, TIMEOUT_S, Bundle, kvm_is_usable
from tests.e2e.client import Client, ConsoleSocket, wait_for_end
from tests.e2e.test_terminal import Person

needs_kvm = pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be opened")


def eventually(condition: Callable[[], Any]) -> Any:
    """What the condition gives once it is true."""
    end = time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.001)
    return found


def running(client: Client, *args: str) -> Client:
    """A container "c" that sleeps, or does something else."""
    client.bundle.args(*(args or ("sleep", "1000")))
    client.create("c", "--detach", command="run")
    return client


@pytest.fixture
def both(bundle: Bundle, platform: str) -> Iterator[Client]:
    """On each platform."""
    client = running(Client(bundle, platform))
    yield client
    client.ok("delete", "--force", "c")


@pytest.fixture
def client(bundle: Bundle) -> Iterator[Client]:
    """On kvm."""
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    client = running(Client(bundle))
    yield client
    client.ok("delete", "--force", "c")


def failure(client: Client, *args: str) -> str:
    """An exec that must fail: its message, without the prefix."""
    before = len(client.log.read_bytes()) if client.log.exists() else 0
    result = client.call("exec", *args)
    assert result.returncode == 255, (args, result)
    entry = json.loads(client.log.read_bytes()[before:].splitlines()[-1])
    assert entry["msg"].startswith("exec failed: ")
    return str(entry["msg"].removeprefix("exec failed: "))


def commands(client: Client) -> list[str]:
    """The command lines of the container's processes."""
    lines = client.ok("ps", "c").splitlines()
    assert lines[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    return [line.split(maxsplit=7)[7] for line in lines[1:]]


def detach(client: Client, *args: str) -> None:
    """exec --detach; the process keeps its standard streams, so they are none of ours."""
    command = client.command("exec", "--detach", *args)
    quiet = subprocess.DEVNULL
    code = subprocess.call(
        command, stdin=quiet, stdout=quiet, stderr=quiet, cwd=REPOSITORY, timeout=TIMEOUT_S
    )
    assert code == 0, command


def open_descriptors(client: Client) -> int:
    return len(os.listdir(f"/proc/{client.state('c')['pid']}/fd"))


# --- what runs


def test_exit_code_output_and_input_are_the_programs(both: Client) -> None:
    result = both.call("exec", "c", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (result.returncode, result.stdout, result.stderr) == (42, "out\n", "err\n")
    assert both.call("exec", "c", "sh", "-c", "kill -9 $$").returncode == 137
    assert both.call("exec", "c", "sh", "-c", "kill -TERM $$").returncode == 143
    echoed = subprocess.run(
        both.command("exec", "c", "sh", "-c", "cat; cat /dev/stdin | wc -c"),
        input="x" * 200_000,
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        timeout=TIMEOUT_S,
    )
    assert echoed.stdout == "x" * 200_000 + "0\n"


def test_flags_change_what_the_container_has(client: Client) -> None:
    show = "id; echo $A; pwd; umask; grep -e CapBnd -e CapPrm -e NoNewPrivs /proc/self/status"
    plain = client.ok("exec", "c", "sh", "-c", show).splitlines()
    assert plain[:3] == ["uid=0(root) gid=0(root)", "", "/"]
    assert plain[4:] == ["CapPrm:\t0000000020000420", "CapBnd:\t0000000020000420", "NoNewPrivs:\t1"]

    # an ordinary user's capabilities do not survive execve(2): none is ambient
    flags = ["--user=5:6", "-g", "7", "-e", "A=b=c", "--cwd", "/tmp", "--cap", "CAP_SYS_ADMIN"]
    changed = client.ok("exec", *flags, "c", "sh", "-c", show).splitlines()
    assert changed[0].startswith("uid=5") and "gid=6" in changed[0] and "7" in changed[0]
    assert changed[1:3] == ["b=c", "/tmp"]
    assert changed[4:6] == ["CapPrm:\t0000000000000000", "CapBnd:\t0000000020200420"]


def test_process_is_nobodys_child_with_a_session_of_its_own(client: Client) -> None:
    stat = client.ok("exec", "c", "sh", "-c", "read line < /proc/$$/stat; echo $line; ls /proc/1")
    pid, _, _, ppid, pgrp, session = stat.split()[:6]
    assert (ppid, pgrp, session) == ("0", pid, pid)


def test_process_file_says_all(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "process.json"

    def with_document(**document: Any) -> list[str]:
        file.write_text(json.dumps(document))
        return ["--process", str(file), "c"]

    args = ["sh", "-c", "env; id -u; ulimit -n; grep CapBnd /proc/self/status"]
    limits = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    user = {"uid": 3, "gid": 4}
    document = {"args": args, "cwd": "/", "env": ["PATH=/bin", "HOME=/x"], "rlimits": limits}
    output = client.ok("exec", *with_document(**document, user=user)).splitlines()
    assert set(output) >= {"PATH=/bin", "HOME=/x", "3", "100", "CapBnd:\t0000000020000420"}
    assert failure(client, *with_document(args=["true"])) == "Cwd property must not be empty"
    assert failure(client, *with_document(cwd="/")) == "args must not be empty"
    assert failure(client, "-p", "/nowhere", "c") == "open /nowhere: no such file or directory"


def test_preserved_descriptors_come_along(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    command = client.command(
        "exec", "--preserve-fds", "1", "c", "sh", "-c", "cat <&3; ls /proc/$$/fd; :"
    )
    done = subprocess.run(
        ["sh", "-c", 'exec 3< "$0"; exec "$@"', str(tmp_path / "file"), *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        timeout=TIMEOUT_S,
    )
    assert done.stdout.split() == ["from", "the", "host", "0", "1", "2", "3"], done


def test_seccomp_profile_holds(bundle: Bundle) -> None:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [rule],
    }
    bundle.document["linux"]["seccomp"] = profile
    client = running(Client(bundle))

    assert "not permitted" in client.call("exec", "c", "mkdir", "/tmp/x").stderr
    client.ok("delete", "--force", "c")


# --- what does not


def test_failures_are_in_runcs_words(both: Client) -> None:
    start = "unable to start container process: "
    assert failure(both, "c", "nosuch") == (
        f'{start}exec: "nosuch": executable file not found in $PATH'
    )
    assert failure(both, "c", "/etc/passwd") == f'{start}exec: "/etc/passwd": permission denied'
    assert (
        failure(both, "c", "/none")
        == f'{start}exec: "/none": stat /none: no such file or directory'
    )
    assert failure(both, "--cwd", "/none", "c", "true") == (
        f'{start}chdir to cwd ("/none") set in config.json failed: no such file or directory'
    )


def test_contradictions_are_in_runcs_words(client: Client) -> None:
    assert failure(client, "nobody", "true") == 'container "nobody" does not exist'
    assert failure(client, "c") .startswith("process args cannot be empty")
    assert failure(client, "--cwd", "tmp", "c", "true") == "Cwd must be an absolute path"
    assert failure(client, "-u", "x", "c", "true").startswith("parsing x as int for uid failed")
    assert failure(client, "-t", "-d", "c", "true") == (
        "cannot allocate tty if runc will detach without setting console socket"
    )
    assert failure(client, "--console-socket", "s", "c", "true") == (
        "cannot use console socket if runc will not detach or allocate tty"
    )
    assert "missing '='" in failure(client, "-e", "A", "c", "true")
    assert client.call("exec").returncode == 1
    before = open_descriptors(client)
    failure(client, "c", "nosuch")
    client.ok("exec", "c", "true")
    assert eventually(lambda: open_descriptors(client) == before)


def test_container_that_has_stopped_or_not_started(bundle: Bundle) -> None:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    client = Client(bundle)
    bundle.args("true")
    pidfd = os.pidfd_open(client.create("c"))
    assert client.ok("exec", "c", "echo", "early") == "early\n"
    client.ok("start", "c")
    wait_for_end(pidfd)
    assert failure(client, "c", "true") == 'cannot exec in a stopped container: "c"'
    client.ok("delete", "c")


# --- who stands for it on the host


class Detached:
    """An exec --detach whose stand-in on the host is our child, of a `reaper`."""

    def __init__(self, client: Client, tmp_path: Path, *args: str) -> None:
        pid_file = tmp_path / "exec.pid"
        detach(client, "--pid-file", str(pid_file), *args)
        self.pid = int(pid_file.read_text())

    def ended(self) -> int:
        """Wait for it; its exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_stand_in_lives_as_long_and_ends_alike(
    client: Client, reaper: None, tmp_path: Path
) -> None:
    args = ("sh", "-c", "trap 'exit 9' TERM; touch /tmp/up; while :; do sleep 0.01; done")
    detached = Detached(client, tmp_path, "c", *args)

    names = {os.readlink(f"/proc/{detached.pid}/fd/{fd}") for fd in (0, 1, 2)}
    assert names == {"/dev/null"}
    eventually(lambda: client.call("exec", "c", "test", "-e", "/tmp/up").returncode == 0)
    os.kill(detached.pid, signal.SIGTERM)
    assert detached.ended() == 9


def test_end_of_the_stand_in_is_the_end_of_the_process(
    client: Client, reaper: None, tmp_path: Path
) -> None:
    detached = Detached(client, tmp_path, "c", "sleep", "999")
    assert "sleep 999" in commands(client)
    os.kill(detached.pid, signal.SIGKILL)
    assert detached.ended() == -signal.SIGKILL
    eventually(lambda: "sleep 999" not in commands(client))


def test_end_of_the_container_is_the_end_of_the_process(
    client: Client, reaper: None, tmp_path: Path
) -> None:
    detached = Detached(client, tmp_path, "c", "sleep", "999")
    client.ok("kill", "c", "KILL")
    assert detached.ended() == 137


def test_signals_in_the_foreground_are_forwarded(client: Client) -> None:
    args = ("sh", "-c", "trap 'exit 4' INT; echo up; while :; do sleep 0.01; done")
    with subprocess.Popen(
        client.command("exec", "c", *args), stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 4


# --- terminals


def test_terminal_of_a_console_socket(client: Client, reaper: None, tmp_path: Path) -> None:
    console = ConsoleSocket(tmp_path / "console.sock")
    show = "stty size; tty; trap 'stty size' WINCH; echo up; while :; do sleep 0.05; done"
    process = {"args": ["sh", "-c", show], "cwd": "/", "env": ["PATH=/bin"], "terminal": True}
    process["consoleSize"] = {"height": 11, "width": 22}
    (tmp_path / "p.json").write_text(json.dumps(process))
    flags = ["--process", str(tmp_path / "p.json"), f"--console-socket={console.path}"]
    detached = Detached(client, tmp_path, *flags, "c")
    master = console.take()

    screen = b""
    while b"up\r\n" not in screen:
        screen += os.read(master, 4096)
    assert screen.startswith(b"11 22\r\n/dev/pts/0\r\n")
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 33, 44, 0, 0))
    screen = b""
    while b"33 44\r\n" not in screen:
        screen += os.read(master, 4096)
    os.write(master, b"\x03")
    assert detached.ended() == 130
    os.close(master)


@needs_kvm
def test_terminal_of_the_caller(client: Client) -> None:
    person = Person(client.command("exec", "-t", "-e", "PS1=ready> ", "c", "sh"))
    before = termios.tcgetattr(person.fd)
    person.see(b"ready> ")
    person.type(b"tty; exit 6\n")
    person.see(b"/dev/pts/0\r\n")
    assert person.leave() == 6
    assert before[3] & termios.ECHO


@needs_kvm
def test_closed_terminal_ends_the_process(client: Client) -> None:
    person = Person(client.command("exec", "-t", "-e", "PS1=ready> ", "c", "sh"))
    person.see(b"ready> ")
    person.type(b"echo be''gun; sleep 1234\n")
    person.see(b"begun\r\n")

    os.close(person.fd)

    os.waitpid(person.pid, 0)
    eventually(lambda: not {"sh", "sleep 1234"} & set(commands(client)))


# --- pause and resume


def test_nothing_runs_in_a_paused_container(both: Client) -> None:
    detach(both, "c", "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > /tmp/spin; done")
    detach(both, "c", "sh", "-c", "while sleep 0.01; do echo x >> /tmp/tick; done")
    read = ("exec", "c", "cat", "/tmp/spin", "/tmp/tick")
    eventually(lambda: "x" in both.call(*read).stdout)

    both.ok("pause", "c")
    assert both.state("c")["status"] == "paused"
    assert "paused" in both.ok("list")
    used = [both.ok("events", "--stats", "c") for _ in range(2)]
    total = [json.loads(text)["data"]["cpu"]["usage"]["user"] for text in used]
    assert total[0] == total[1]
    assert both.error("pause", "c") == 'container not running: "c"'
    assert failure(both, "c", "true") == (
        "cannot exec in a paused container (use --ignore-paused to override)"
    )
    both.ok("resume", "c")
    assert both.state("c")["status"] == "running"
    assert both.error("resume", "c") == 'container not paused: "c"'
    first = both.ok(*read)
    eventually(lambda: both.ok(*read) != first)


def test_signals_wait_in_a_paused_container_and_kill_does_not(
    client: Client, reaper: None, tmp_path: Path
) -> None:
    args = ("sh", "-c", "trap 'exit 7' TERM; touch /tmp/up; while :; do sleep 0.01; done")
    detached = Detached(client, tmp_path, "c", *args)
    eventually(lambda: client.call("exec", "c", "test", "-e", "/tmp/up").returncode == 0)
    client.ok("pause", "c")
    os.kill(detached.pid, signal.SIGTERM)
    late = Detached(client, tmp_path, "--ignore-paused", "c", "sh", "-c", "exit 5")
    assert os.waitpid(detached.pid, os.WNOHANG) == (0, 0)
    assert os.waitpid(late.pid, os.WNOHANG) == (0, 0)
    client.ok("resume", "c")
    assert detached.ended() == 7
    assert late.ended() == 5
    client.ok("pause", "c")
    pidfd = os.pidfd_open(client.state("c")["pid"])
    client.ok("kill", "c", "KILL")
    wait_for_end(pidfd)


# --- ps and events


def test_ps_lists_the_containers_processes(both: Client) -> None:
    assert commands(both) == ["sleep 1000"]
    assert json.loads(both.ok("ps", "--format", "json", "c")) == [both.state("c")["pid"]]
    assert both.error("ps", "-f", "yaml", "c").startswith("invalid format option")
    assert both.error("ps", "nobody") == 'container "nobody" does not exist'


def test_ps_of_a_container_that_has_stopped_shows_none(client: Client) -> None:
    """As runc 1.1."""
    pidfd = os.pidfd_open(client.state("c")["pid"])
    client.ok("kill", "c", "KILL")
    wait_for_end(pidfd)

    assert commands(client) == []
    assert client.ok("ps", "--format=json", "c") == "null\n"


def test_events_count_what_the_container_uses(client: Client) -> None:
    client.ok("exec", "c", "sh", "-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done")
    event = json.loads(client.ok("events", "--stats", "c"))
    assert (event["type"], event["id"]) == ("stats", "c")
    usage = event["data"]["cpu"]["usage"]
    assert usage["total"] >= usage["user"] > 0
    assert event["data"]["pids"]["current"] == 1
    assert 0 < event["data"]["memory"]["usage"]["usage"] < 1 << 30
    with subprocess.Popen(
        client.command("events", "--interval", "1ms", "c"), stdout=subprocess.PIPE, cwd=REPOSITORY
    ) as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["type"] for _ in range(2)] == ["stats"] * 2
        client.ok("kill", "c", "KILL")
        process.stdout.read()
        assert process.wait(TIMEOUT_S) == 0


# --- who else knocks at the socket


def test_nonsense_on_the_control_socket_costs_nobody_else(client: Client) -> None:
    path = str(client.root / "c" / "control.sock")
    before = open_descriptors(client)
    reader, writer = os.pipe()
    for data, count in (
        (b"\xff" * 70_000 + b"\n", 0),
        (b"{", 253),
        (b'{"op":"state"}\n', 100),
        (b'{"op":"exec","process":{"args":["L2Jpbi9zaA=="]}}\n', 2),
        (b'{"op":"exec","process":{"args":["L2Jpbi9zaA=="],"terminal":true}}\n', 3),
        (b'{"op":"exec","process":{"args":["AA=="]}}\n', 3),
        (b'{"op":"signal","signal":9}\n{"op":"kill","pid":-5,"signal":99}\n', 0),
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(path)
            socket.send_fds(sock, [data], [reader] * count)
            if data.endswith(b"\n"):
                assert b"error" in sock.recv(4096) or b"status" in data
    os.close(reader)
    os.close(writer)

    assert client.ok("exec", "c", "echo", "well") == "well\n"
    assert eventually(lambda: open_descriptors(client) == before)
