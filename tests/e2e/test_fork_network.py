"""Forks that have networks of their own: each by a passt(1) of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runsc.launch import passt
from tests.e2e.bundle import REPOSITORY, RUNSC, TIMEOUT_S, Bundle, execute, kvm_is_usable
from tests.e2e.own_stack import ip, outside_of, plug
from tests.e2e.processes import cgroups
from tests.e2e.sandboxes import FLAGS, noted
from tests.e2e.talker import Talker
from tests.e2e.test_passt import processes, until_none_is_left, user_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
    pytest.mark.skipif(not passt.find(), reason="passt is not installed"),
]
OUTSIDE = """
import socket, sys, threading
def answer(listener):
    while True:
        sock, peer = listener.accept()
        sock.sendall(b"hello " + peer[0].encode())
        sock.close()
def serve():
    listener = socket.create_server(("10.9.0.1", 80))
    threading.Thread(target=answer, args=(listener,), daemon=True).start()
    return "serves"
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
"""
CONNECTS = """
import socket
try:
    with socket.create_connection(("10.9.0.1", 80), 30) as sock:
        print(sock.recv(100).decode())
except OSError as error:
    print(error.strerror)
"""
MAKER = f"""
import sys
from runsc import Sandbox
root, state, flag = sys.argv[1:]
def said(sandbox):
    return sandbox.commands.run(["python3", "-c", {CONNECTS!r}]).stdout.strip()
with Sandbox.create(root=root, state=state, forkable=True, flags=[flag]) as sandbox:
    template = sandbox.create_template()
    linked = [*sandbox.fork(2, network="sandbox"), *template.fork(network="sandbox")]
    (alone,) = sandbox.fork()
    print(*[said(each) for each in (*linked, alone, sandbox)], sep=", ", flush=True)
    linked.pop().kill()
    print(*[said(each) for each in linked], sep=", ", flush=True)
    try:
        sandbox.fork(network="host")
    except ValueError as error:
        print(error, flush=True)
    (maker,) = sandbox.fork(network="sandbox", forkable=True)
    (copy,) = maker.fork()
    print(said(maker), said(copy), sep=", ", flush=True)
"""


def test_each_fork_has_a_way_out_of_its_own(tmp_path: Path, debian: Path) -> None:
    with outside_of(OUTSIDE) as outside:
        holder = Talker(["unshare", "--net", "sh", "-c", "echo; read end"])
        holder.hear()
        pid = holder.process.pid
        plug(pid, outside.pid)
        ip(pid, "link set lo up", "route add default via 10.9.0.1")
        assert outside.do("serve()") == "serves"
        words = [sys.executable, "-c", MAKER, str(debian), f"{tmp_path}/state", FLAGS[0]]
        done = subprocess.run(
            ["nsenter", f"--target={pid}", "--net", *words],
            cwd=REPOSITORY, text=True, capture_output=True, timeout=4 * TIMEOUT_S, check=False,
        )  # fmt: skip
        assert not done.returncode, done.stderr
        until_none_is_left(pid)
        holder.end()
    hello, nothing = "hello 10.9.0.2", "Network is unreachable"
    assert done.stdout.splitlines() == [
        f"{hello}, {hello}, {hello}, {nothing}, {nothing}",
        f"{hello}, {hello}",
        "network of a fork: host",
        f"{hello}, {hello}",
    ]
    assert noted(tmp_path) == []


HOLDS = """
import socket, sys, threading
held = []
def take():
    while True:
        sock, peer = listener.accept()
        sock.sendall(b"hello " + peer[0].encode())
        held.append(sock)
def serve():
    global listener
    listener = socket.create_server(("10.9.0.1", 80))
    threading.Thread(target=take, daemon=True).start()
    return "serves"
def more():
    for each in held:
        each.sendall(b"more")
    return "sent"
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
"""
IS_CONNECTED = """
import errno, os, socket, time
sock = socket.create_connection(("10.9.0.1", 80))
sock.recv(100)
def tell(name, word):
    with open("/tmp/new", "w") as file:
        file.write(word)
    os.rename("/tmp/new", name)
tell("/tmp/ready", "")
try:
    word = sock.recv(100).decode()
except OSError as error:
    word = errno.errorcode[error.errno]
tell("/tmp/heard", word)
time.sleep(1000)
"""
HEARD = "until test -e /tmp/{}; do sleep 0.05; done; cat /tmp/{}"


def test_copies_of_a_sandbox_with_a_network_have_others(debian: Path) -> None:
    with outside_of(HOLDS) as outside, user_of(debian, outside) as user:
        assert outside.do("serve()") == "serves"
        config = user.bundle / "config.json"
        document = json.loads(config.read_text())
        document["process"]["args"] = ["python3", "-c", IS_CONNECTED]
        config.write_text(json.dumps(document))

        def done(*args: str) -> str:
            command = user.command(*args)
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=TIMEOUT_S, check=False)  # fmt: skip
            assert not done.returncode, done.stderr
            return done.stdout.strip()

        def heard(name: str, what: str = "heard") -> str:
            return done("exec", name, "sh", "-c", HEARD.format(what, what))

        def connects(name: str) -> str:
            return done("exec", name, "python3", "-c", CONNECTS)

        with (user.folder / "out").open("w") as out:
            run = user.command("run", "--detach", "--forkable", f"--bundle={user.bundle}", "warm")
            subprocess.run(run, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True)
            heard("warm", "ready")
            (first,) = processes(user.pid)
            for words in (
                ["warm", "one"], ["--network=none", "warm", "alone"], ["--forkable", "warm", "two"],
                ["two", "three"], ["--template", "warm", "still"], ["still", "four"],
            ):  # fmt: skip
                subprocess.run(user.command("fork", *words), stdout=out, stderr=out, check=True)
        linked = ["warm", "one", "two", "three", "four"]
        assert len(processes(user.pid)) == len(linked)
        assert [connects(each) for each in linked] == ["hello 10.9.0.2"] * len(linked)
        assert connects("alone") == "Network is unreachable"
        copies = [*linked[1:], "alone"]
        assert [heard(each) for each in copies] == ["ECONNRESET"] * len(copies)
        assert outside.do("more()") == "sent"
        assert heard("warm") == "more"
        os.kill(first, signal.SIGKILL)  # it may have ended before
        done("rollback", "warm", "still")
        assert heard("warm") == "ECONNRESET"
        assert connects("warm") == "hello 10.9.0.2"
        assert len(processes(user.pid)) == len(linked)
        for each in (*copies, "still", "warm"):
            done("delete", "--force", each)


@pytest.mark.skipif(not passt.ways().leads, reason="the host has no default route")
def test_what_carries_its_network_is_in_the_containers_cgroup(
    tmp_path: Path, busybox: Path
) -> None:
    """What it does for a program counts as the program's own."""
    name = f"runsc-test-{os.getpid()}-fork"
    bundle = Bundle(tmp_path / "bundle", busybox).args("sleep", "1000")
    bundle.document["linux"]["cgroupsPath"] = f"/{name}"
    runsc = [*RUNSC, f"--root={tmp_path}/state", "--overlay2=root:memory", "--network=none"]
    run = ["run", "--detach", "--forkable", f"--bundle={bundle.write()}", "warm"]
    subprocess.run([*runsc, *run], stdout=subprocess.DEVNULL, check=True, cwd=REPOSITORY)
    try:
        done = execute([*runsc, "fork", "--network=sandbox", "warm", "copy"])
        assert done.returncode == 0, done.stderr
        found = []
        for path in Path("/proc").glob("[0-9]*/comm"):
            try:
                if path.read_text().startswith("passt"):
                    found.append((path.parent / "cgroup").read_text())
            except OSError:  # it has just ended
                continue
        assert [text for text in found if name in text]
    finally:
        for each in ("copy", "warm"):
            execute([*runsc, "delete", "--force", each])
    assert cgroups(name) == []
