"""No rule of a filter is there for nothing: the run that it names makes the call.

The runs are traced, and a process is known by the length of its filter. `docs/host-calls.md` is the
table of them (`python -m runsc.filters.table`).
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gofer import confine
from runsc import filters
from runsc.filters import table
from sentry.abi import unistd
from tests.e2e.bundle import REPOSITORY, Bundle, execute, kvm_is_usable
from tests.e2e.client import Client
from tests.e2e.forced import PROGRAMS as FORCED
from tests.e2e.talker import Talker

pytestmark = [
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
    pytest.mark.skipif(not shutil.which("strace"), reason="needs strace"),
]
NAMES = {n: name for name, n in vars(unistd).items() if isinstance(n, int) and name.islower()}
STRACE = ["strace", "-f", "-qq", "--pidns-translation", "-e", "signal=none", "-o"]
THREAD = re.compile(r"parent_tid=\[(\d+)(?: /\* (\d+) in strace's PID NS \*/)?\]")
FORKED = re.compile(r"clone\b.*\) += (\d+)(?: /\* (\d+) in strace's PID NS \*/)?")
Used = dict[str, set[str]]
"""Names of calls, by role."""
HOST = ("--network=host",)
"""The role "sentry": what is besides with a stack of its own is "uplink"'s."""

START = """
import os, subprocess, tempfile, threading, time
threading.Thread(target=time.sleep, args=(0.01,)).start()
subprocess.run(["/bin/sh", "-c", "ls -lR /etc | sort | tail -1; echo x >/tmp/f; cat /tmp/f"])
os.urandom(8)
data = open("/usr/bin/python3", "rb").read()
with tempfile.TemporaryFile() as file:
    file.write(data)
print(len(bytearray(50 << 20)), resident := open("/proc/self/smaps").read().count("Rss"))
"""
FILES = """
import mmap, os
fd = os.open("/shared/file", os.O_RDWR | os.O_CREAT)
os.write(fd, b"x" * 10000)
os.pwrite(fd, b"y", 5000)
os.ftruncate(fd, 100000)
os.lseek(fd, 0, os.SEEK_DATA)
os.posix_fallocate(fd, 0, 200000)
os.fsync(fd)
with mmap.mmap(fd, 4096) as mapping:
    mapping[0] = 65
    mapping.flush()
out = os.fstat(1)
os.fsync(1)
"""
NETWORK = """
import socket, threading
server = socket.create_server(("127.0.0.1", 99))
def echo():
    peer = server.accept()[0]
    peer.sendall(peer.recv(10))
threading.Thread(target=echo).start()
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("127.0.0.1", 0))
with socket.create_connection(server.getsockname()) as sock:
    sock.getpeername()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.sendall(b"x")
    sock.shutdown(socket.SHUT_WR)
    sock.recv(10)
"""

UPLINK = """
import errno, socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
sock.connect(("10.9.0.1", 9))
sock.send(b"x")
try:
    sock.recv(1)
except OSError as error:
    assert error.errno == errno.EHOSTUNREACH
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.connect(("127.0.0.11", 53))
asker.send(bytes((0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 120, 0, 0, 1, 0, 1)))
try:
    asker.recv(512)
except ConnectionRefusedError:  # nobody is there
    pass
with socket.create_server(("::1", 99), family=socket.AF_INET6).accept()[0] as guest:
    assert guest.recv(100) == b"from the host"
"""
CALLER = """
import socket
while True:
    try:
        with socket.create_connection(("::1", 99)) as sock:
            sock.sendall(b"from the host")
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)
            break
    except ConnectionRefusedError:
        pass
    except ConnectionResetError:
        break
"""
BROKERS = """
import socket
with socket.create_connection(("192.0.2.7", 80)) as sock:
    sock.sendall(b"x")
    assert sock.recv(10) == b"y"
"""
POLICY = """
[[rule]]
action = "allow"
cidrs = ["192.0.2.7"]
broker = "{}"
"""
VETH = (
    "link set lo up",
    "link add eth0 type veth peer name eth1",
    "addr add 10.9.0.2/24 dev eth0",
    "link set eth0 up",
    "link set eth1 up",
)

SOCKETS = """
import socket
made = socket.socket(socket.AF_UNIX)
made.bind("/shared/made")
made.listen()
sock = socket.socket(socket.AF_UNIX)
sock.connect("/shared/service")
sock.sendall(b"x")
sock.shutdown(socket.SHUT_WR)
"""


def _lengths() -> dict[int, str]:
    """Role by number of instructions."""
    programs = (
        ("sentry", filters.sentry_program("kvm", "none")),
        ("sentry", filters.sentry_program("kvm", "host")),
        ("uplink", filters.sentry_program("kvm", "sandbox")),
        ("forkable", filters.forkable_program()),
        ("forkable", filters.forkable_program(is_sealed=True)),
        ("gofer", filters.gofer_program()),
        ("gofer", filters.gofer_program(more=confine.SOCKETS + confine.CONNECT)),
        ("gofer", filters.gofer_program(more=confine.SOCKETS + confine.CONNECT + confine.BIND)),
        ("network", filters.network_program()),
        ("nameserver", filters.network_program(uplinks=True, listens=True)),
        ("dialer", filters.dialer_program()),
    )
    lengths = {len(program) // 8: role for role, program in programs}
    assert len(lengths) == len(programs)
    return lengths


def read_trace(text: str, lengths: dict[int, str]) -> Used:
    """What processes and their threads called after seccomp(2) had put them under a filter."""
    roles: dict[str, str] = {}
    threads: dict[str, set[str]] = defaultdict(set)
    early: dict[str, set[str]] = defaultdict(set)  # a thread may call before clone has told of it
    used: Used = defaultdict(set)
    for line in text.splitlines():
        pid, _, call = line.partition(" ")
        call = call.strip()
        found = re.match(r"(?:<\.\.\. )?(\w+)(?:\(| resumed)", call)
        if not found:
            continue
        if thread := THREAD.search(call):
            made = thread[2] or thread[1]
            threads[pid].add(made)
            if role := roles.get(pid):
                roles[made] = role
                used[role] |= early.pop(made, set())
        if (role := roles.get(pid)) and (forked := FORKED.search(call)):
            made = forked[2] or forked[1]
            roles[made] = role
            used[role] |= early.pop(made, set())
        (used[role] if role else early[pid]).add(found[1])
        if filtered := re.match(r"seccomp\(SECCOMP_SET_MODE_FILTER.*\{len=(\d+)", call):
            role = lengths.get(int(filtered[1]), "")
            roles |= dict.fromkeys((pid, *threads[pid]), role)
    return used


def _traced(folder: Path, command: Sequence[str]) -> Used:
    trace = folder / "trace"
    done = execute([*STRACE, str(trace), *command])
    assert done.returncode == 0, done.stdout + done.stderr
    return read_trace(trace.read_text(), _lengths())


def _start(folder: Path, debian: Path) -> Used:
    bundle = Bundle(folder / "bundle", debian).args("python3", "-c", START)
    return _traced(folder, bundle.command(flags=HOST))


def _files(folder: Path, debian: Path) -> Used:
    (folder / "shared").mkdir()
    bundle = Bundle(folder / "bundle", debian).args("python3", "-c", FILES)
    bundle.document["mounts"] += [
        {"destination": "/shared", "type": "bind", "source": str(folder / "shared")}
    ]
    with open(folder / "out", "wb") as out:
        trace = folder / "trace"
        command = [*STRACE, str(trace), *bundle.command(flags=HOST)]
        subprocess.run(command, stdout=out, check=True, cwd=REPOSITORY)
    return read_trace(trace.read_text(), _lengths())


def _exec(folder: Path, debian: Path) -> Used:
    """A container that outlives its command line, and others come."""
    words = [*HOST, "run"]
    run = ["exec", "c", "true"]
    return _detached(folder, debian, "sleep 1000", words, lambda client: client.ok(*run))


def _fork(folder: Path, debian: Path) -> Used:
    """A container that is copied while its program runs, which is kicked out for that."""

    def copy(client: Client) -> None:
        client.ok("exec", "c", "sh", "-c", "until test -e /tmp/runs; do :; done")
        client.ok("fork", "c", "d")
        client.ok("exec", "d", "true")
        client.ok("delete", "--force", "d")

    words = ["--overlay2=root:memory", "--network=none", "run", "--forkable"]
    return _detached(folder, debian, ": >/tmp/runs; while :; do :; done", words, copy)


def _detached(
    folder: Path, debian: Path, runs: str, words: Sequence[str], use: Callable[[Client], object]
) -> Used:
    client = Client(Bundle(folder / "bundle", debian).args("sh", "-c", runs))
    trace = folder / "trace"
    path = client.bundle.write()
    command = client.command(*words, "--detach", f"--bundle={path}", "c")
    reader, writer = os.pipe()
    detached = [STRACE[0], "-D", *STRACE[1:], str(trace), *command]
    null = subprocess.DEVNULL
    subprocess.run(detached, stdin=null, stdout=null, stderr=writer, check=True, cwd=REPOSITORY)
    os.close(writer)
    use(client)
    client.ok("delete", "--force", "c")
    with open(reader, "rb") as end:  # strace has it, too
        end.read()
    return read_trace(trace.read_text(), _lengths())


def _one_cpu(folder: Path, debian: Path) -> Used:
    """The kernel thread runs programs itself."""
    bundle = Bundle(folder / "bundle", debian).args("python3", "-c", START)
    return _traced(folder, ["taskset", "-c", "0", *bundle.command(flags=HOST)])


def _network(folder: Path, debian: Path) -> Used:
    bundle = Bundle(folder / "bundle", debian).args("python3", "-c", NETWORK)
    return _traced(folder, bundle.command(flags=HOST))


def _uplink(folder: Path, debian: Path) -> Used:
    """Both ends of a veth: what asks for a neighbour at one comes in at the other."""
    bundle = Bundle(folder / "bundle", debian).args("python3", "-c", UPLINK)
    holder = Talker(["unshare", "--net", "sh", "-c", "echo; read end"])
    holder.hear()
    inside = ["nsenter", f"--target={holder.process.pid}", "--net", "ip"]
    for command in VETH:
        subprocess.run([*inside, *command.split()], check=True)
    namespaces = bundle.document["linux"]["namespaces"]
    others = [each for each in namespaces if each["type"] != "network"]
    path = f"/proc/{holder.process.pid}/ns/net"
    bundle.document["linux"]["namespaces"] = [*others, {"type": "network", "path": path}]
    caller = subprocess.Popen([*inside[:-1], sys.executable, "-c", CALLER])
    try:
        used = _traced(folder, bundle.command(flags=["--network=sandbox"]))
        assert not caller.wait(60)
    finally:
        caller.kill()
        caller.wait()
        holder.end()
    return used


def _sockets(folder: Path, debian: Path) -> Used:
    """One of the host that a program connects to, one that it makes, as nobody else than itself."""
    shared = folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(shared / "service"))
        (shared / "service").chmod(0o666)
        service.listen()
        bundle = Bundle(folder / "bundle", debian).args("python3", "-c", SOCKETS)
        bundle.document["process"]["user"] = {"uid": 7, "gid": 8}
        bundle.document["mounts"].append(
            {"destination": "/shared", "source": str(shared), "options": ["bind"]}
        )
        return _traced(folder, bundle.command(flags=[*HOST, "--host-uds=all"]))


def _brokers(folder: Path, debian: Path) -> Used:
    """A connection that a broker has, where there is no link."""
    path, policy = folder / "broker.sock", folder / "egress.toml"
    policy.write_text(POLICY.format(path))
    with socket.socket(socket.AF_UNIX) as broker:
        broker.bind(str(path))
        broker.listen()

        def serve() -> None:
            with broker.accept()[0] as came, came.makefile("rb") as lines:
                lines.readline()
                came.sendall(lines.read(1).replace(b"x", b"y"))

        broker.settimeout(60)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        bundle = Bundle(folder / "bundle", debian).args("python3", "-c", BROKERS)
        flags = ["--network=sandbox", f"--egress={policy}"]
        used = _traced(folder, bundle.command(flags=flags))
        thread.join()
    return used


def _requests(folder: Path, debian: Path) -> Used:
    """Every request of the Gofer's protocol."""
    test = "tests/unit/gofer/test_confine.py::test_every_request_is_served_under_the_filter"
    command = ["env", "-u", "RUNSC_TEST_AGAIN", "-u", "RUNSC_TEST_THIRD"]  # this one in any case
    command += [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    own = f"--basetemp={folder}/tests"  # else it removes what earlier runs have left, and is traced
    return _traced(folder, [*command, own, f"{test}_and_with_few_rights"])


def _forced(folder: Path, debian: Path) -> Used:
    used: Used = {}
    for role in FORCED:
        used |= _traced(folder, [sys.executable, "-m", "tests.e2e.forced", role])
    return used


RUNS: dict[str, Callable[[Path, Path], Used]] = {
    "start": _start,
    "files": _files,
    "exec": _exec,
    "fork": _fork,
    "one CPU": _one_cpu,
    "network": _network,
    "uplink": _uplink,
    "sockets": _sockets,
    "brokers": _brokers,
    "requests": _requests,
    "forced": _forced,
}


@pytest.mark.parametrize("name", RUNS)
def test_every_rule_is_used_by_the_run_that_it_names(
    tmp_path: Path, debian: Path, name: str
) -> None:
    used = RUNS[name](tmp_path, debian)

    unused = {
        role: sorted({NAMES[rule.number] for rule in rules if rule.use == name} - used[role])
        for role, rules in table.ROLES.items()
        if any(rule.use == name for rule in rules)
    }
    assert not any(unused.values()), unused


def test_every_rule_names_a_run() -> None:
    assert {rule.use for rules in table.ROLES.values() for rule in rules} == set(RUNS)
