"""Forks that have networks of their own: each by a passt(1) of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runsc.launch import passt
from tests.e2e.bundle import REPOSITORY, RUNSC, TIMEOUT_S, Bundle, execute, kvm_is_usable
from tests.e2e.own_stack import ip, outside_of, plug
from tests.e2e.sandboxes import FLAGS, noted
from tests.e2e.talker import Talker
from tests.e2e.test_passt import processes

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
from runsc import Sandbox, SandboxError
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
    for given in {{"network": "host"}}, {{"network": "sandbox", "forkable": True}}:
        try:
            sandbox.fork(**given)
        except (ValueError, SandboxError) as error:
            print(error, flush=True)
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
        assert processes(pid) == []
        holder.end()
    hello, nothing = "hello 10.9.0.2", "Network is unreachable"
    assert done.stdout.splitlines() == [
        f"{hello}, {hello}, {hello}, {nothing}, {nothing}",
        f"{hello}, {hello}",
        "network of a fork: host",
        "what has a network of its own cannot be forked",
    ]
    assert noted(tmp_path) == []


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
    assert not list(Path("/sys/fs/cgroup").rglob(name))
