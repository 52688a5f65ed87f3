"""The network of an ordinary user: a stack of its own, whose frames go to passt(1)."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from runsc.launch import passt
from tests.e2e import own_stack
from tests.e2e.bundle import Bundle, kvm_is_usable
from tests.e2e.nameserver import PROGRAM as NAMESERVER
from tests.e2e.own_stack import TOLD, Outside, ip, outside_of, plug
from tests.e2e.pod import CRI
from tests.e2e.processes import wait_for_state
from tests.e2e.talker import Talker
from tests.e2e.test_ordinary_user import AS_USER, OPEN_TO_ALL, UID

pytestmark = [
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
    pytest.mark.skipif(not passt.find(), reason="passt is not installed"),
]
INSIDE = TOLD + """
import hashlib, time
def read(path):
    with open(path) as file:
        return file.read()
def shown():
    table = [line.split() for line in read("/proc/net/route").splitlines()[1:]]
    default = [each[2] for each in table if each[1] == "00000000"]
    return [socket.inet_ntoa(bytes.fromhex(each)[::-1]) for each in default]
def addresses(name):
    found = told(socket.getaddrinfo, name, 80, 0, socket.SOCK_STREAM)
    return found if isinstance(found, str) else sorted({each[4][0] for each in found})
def own(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((address, 9))
        return sock.getsockname()[0]
def routers():
    while True:
        rows = [line.split() for line in read("/proc/net/ipv6_route").splitlines()]
        found = [each for each in rows if each[9] == "eth0" and int(each[1], 16) == 0
                 and int(each[8], 16) & 2]
        if found:
            return len(found)
        time.sleep(0.01)
def fetch(address, port, size):
    with socket.create_connection((address, port), 60) as sock:
        sock.sendall(b"%d\\n" % size)
        data, sent = b"x" * size, 0
        sock.setblocking(False)
        import select
        got = 0
        while sent < size or got < size:
            want = [sock] if sent < size else []
            readable, writable, _ = select.select([sock], want, [], 60)
            if not readable and not writable:
                return "nothing moves"
            if writable:
                sent += sock.send(data[sent : sent + 300000])
            if readable:
                more = sock.recv(1 << 20)
                if not more:
                    break
                got += len(more)
        return sent, got
def udp(address, port, size):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(60)
        sock.sendto(bytes(size), (address, port))
        return len(sock.recv(70000))
def ping(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(60)
        sock.sendto(b"\\x08\\0\\0\\0\\0\\0\\0\\1" + b"p" * 8, (address, 0))
        return len(sock.recv(100))
def connects(address, port):
    def go():
        with socket.create_connection((address, port), 30) as sock:
            return sock.recv(100).decode()
    return told(go)
def carrier():
    return told(read, "/sys/class/net/eth0/carrier").strip()
print("ready")
for line in sys.stdin:
    try:
        print(eval(line), flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"""
OUTSIDE = NAMESERVER + """
def tcp(address, port):
    def go(sock):
        size, data = b"", b"y" * 300000
        while not size.endswith(b"\\n"):
            size += sock.recv(1)
        left = come = int(size)
        def read():
            nonlocal come
            while come:
                come -= len(sock.recv(1 << 20))
        reader = threading.Thread(target=read)
        reader.start()
        while left:
            left -= sock.send(data[:left])
        reader.join()
        sock.close()
    def take():
        while True:
            threading.Thread(target=go, args=(listener.accept()[0],)).start()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family)
    threading.Thread(target=take, daemon=True).start()
def echo(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((address, port))
    def go():
        while True:
            data, sender = sock.recvfrom(70000)
            sock.sendto(data, sender)
    threading.Thread(target=go, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
"""


class Inside(own_stack.Inside):
    """A container of an ordinary user, whose host is `pid`'s network namespace."""

    folder: Path


BIND = 'mount --bind "$1" "$2" && shift 2 && '


class User:
    """An ordinary user with a bundle, in `pid`'s network namespace."""

    def __init__(self, pid: int, folder: Path, rootfs: Path, nameservers: Sequence[str]) -> None:
        self.pid, self.folder = pid, folder
        (folder / "rootfs").mkdir()
        bundle = Bundle(folder / "bundle", folder / "rootfs").args("python3", "-uc", INSIDE)
        bundle.document["linux"]["sysctl"] = {"net.ipv4.ping_group_range": "0 0"}
        names = ["CAP_NET_ADMIN", "CAP_NET_RAW"]
        sets = ("bounding", "effective", "permitted")
        bundle.document["process"]["capabilities"] = dict.fromkeys(sets, names)
        listed = folder / "resolv.conf"
        listed.write_text("".join(f"nameserver {each}\n" for each in nameservers))
        bundle.document["mounts"].append({
            "destination": "/etc/resolv.conf", "type": "bind", "source": str(listed),
            "options": ["bind", "ro"],
        })  # fmt: skip
        self.bundle = bundle.write()
        for each in (folder, *folder.rglob("*")):
            os.chown(each, UID, UID)
        folder.chmod(0o755)
        self._rootfs = rootfs

    def command(self, *args: str) -> list[str]:
        return [
            "nsenter", f"--target={self.pid}", "--net",
            "unshare", "--mount", "sh", "-c", BIND + OPEN_TO_ALL.lstrip(), "sh",
            str(self._rootfs), str(self.folder / "rootfs"),
            sys.executable, str(AS_USER), str(UID), f"--root={self.folder}/state",
            f"--debug-log={self.folder}/log", "--network=sandbox", "--overlay2=root:memory", *args,
        ]  # fmt: skip


@contextmanager
def user_of(
    rootfs: Path, outside: Outside, nameservers: Sequence[str] = ()
) -> Iterator[User]:
    """Behind a veth. In the end no passt is left."""
    folder = Path(tempfile.mkdtemp(prefix="runsc-test-"))
    holder = Talker(["unshare", "--net", "sh", "-c", "echo; read end"])
    holder.hear()
    pid = holder.process.pid
    plug(pid, outside.pid)
    for each in (pid, outside.pid):
        ip(each, "link set lo up")
    ip(pid, "route add default via 10.9.0.1", "-6 route add default via fd09:0::1")
    enter = ["nsenter", f"--target={pid}", "--net"]
    subprocess.run([*enter, "sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"], check=True)
    yield User(pid, folder, rootfs, nameservers)
    until_none_is_left(pid)
    holder.end()
    shutil.rmtree(folder)


@contextmanager
def inside_of(
    rootfs: Path, outside: Outside, *flags: str, nameservers: Sequence[str] = ()
) -> Iterator[Inside]:
    with user_of(rootfs, outside, nameservers) as user, inside_for(user, *flags) as made:
        yield made


@contextmanager
def inside_for(user: User, *flags: str) -> Iterator[Inside]:
    made = Inside(user.command(*flags, "run", f"--bundle={user.bundle}", "c"))
    made.pid, made.folder = user.pid, user.folder
    assert made.hear() == "ready", (user.folder / "log").read_text()
    yield made
    made.end()


def processes(pid: int) -> list[int]:
    """passt, in the network namespace of `pid`."""
    found, where = [], os.readlink(f"/proc/{pid}/ns/net")
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            comm = Path(f"/proc/{name}/comm").read_text()
            if comm.startswith("passt") and os.readlink(f"/proc/{name}/ns/net") == where:
                found.append(int(name))
        except OSError:
            continue
    return found


@pytest.fixture
def outside() -> Iterator[Outside]:
    with outside_of(OUTSIDE) as made:
        yield made


@pytest.fixture
def inside(debian: Path, outside: Outside) -> Iterator[Inside]:
    with inside_of(debian, outside) as made:
        yield made


def test_addresses_and_routes_are_those_of_the_host(inside: Inside) -> None:
    assert inside.do("shown()") == "['10.9.0.1']"
    assert inside.do("own(socket.AF_INET, '10.9.0.1')") == "10.9.0.2"
    assert inside.do("routers()") == "1"
    assert inside.do("own(socket.AF_INET6, 'fd09:0::1')") == "fd09::2"
    assert inside.do("carrier()") == "1"


def test_default_route_without_a_router_leads_to_neighbours(
    debian: Path, outside: Outside
) -> None:
    outside.begin("tcp('10.9.0.1', 80)")
    outside.do("1")
    with user_of(debian, outside) as user:
        ip(user.pid, "route replace default dev eth0", "-6 route del default")
        with inside_for(user) as inside:
            assert inside.do("shown()") == "['0.0.0.0']"
            assert inside.do("fetch('10.9.0.1', 80, 10)") == "(10, 10)"
            assert inside.do("told(own, socket.AF_INET6, 'fd09:0::1')") == "ENETUNREACH"


def test_bytes_go_both_ways_by_both_families(inside: Inside, outside: Outside) -> None:
    outside.begin("tcp('10.9.0.1', 80), tcp('fd09:0::1', 80)")
    outside.begin("echo('10.9.0.1', 7), echo('fd09:0::1', 7)")
    outside.do("1")
    size = 3_000_000
    assert inside.do(f"fetch('10.9.0.1', 80, {size})") == f"({size}, {size})"
    assert inside.do("routers()") == "1"
    assert inside.do(f"fetch('fd09:0::1', 80, {size})") == f"({size}, {size})"
    for size in (1, 60_000):
        assert inside.do(f"udp('10.9.0.1', 7, {size})") == str(size)
        assert inside.do(f"udp('fd09:0::1', 7, {size})") == str(size)
    assert inside.do("ping('10.9.0.1')") == "16"
    assert inside.do("connects('10.9.0.1', 81)") == "ECONNREFUSED"


def test_host_itself_is_not_reached(inside: Inside, outside: Outside) -> None:
    """Not by its own address, which is the sandbox's, nor by that of the router."""
    bound = "socket.create_server(('::', 90), family=socket.AF_INET6, dualstack_ipv6=True)"
    served = f"import socket; s = {bound}; print(flush=True); input()"
    enter = ["nsenter", f"--target={inside.pid}", "--net", sys.executable, "-uc", served]
    host = Talker(enter)
    host.hear()
    assert inside.do("connects('10.9.0.2', 90)") == "ECONNREFUSED"
    assert inside.do("connects('10.9.0.1', 90)") == "ECONNREFUSED"
    assert inside.do("connects('127.0.0.1', 90)") == "ECONNREFUSED"
    assert inside.do("routers()") == "1"
    assert inside.do("connects('fd09:0::2', 90)") == "ECONNREFUSED"
    host.say("")
    host.end()


def test_card_is_moved_nowhere_and_not_deleted(inside: Inside) -> None:
    assert inside.do("os.system('ip link del eth0 2>/dev/null') != 0") == "True"
    moved = "os.system('unshare -n sleep 9 & ip link set eth0 netns $! 2>/dev/null') != 0"
    assert inside.do(moved) == "True"
    assert inside.do("carrier()") == "1"


def test_end_of_passt_is_a_pulled_cable(inside: Inside) -> None:
    (pid,) = processes(inside.pid)
    os.kill(pid, signal.SIGKILL)
    while inside.do("carrier()") != "0":
        pass
    assert "the other end" in (inside.folder / "log").read_text()


def test_names_are_asked_where_the_user_is(debian: Path, outside: Outside) -> None:
    """As systemd-resolved has it: at an address of the host's loopback."""
    with inside_of(debian, outside, nameservers=["127.0.0.53"]) as inside:
        enter = ["nsenter", f"--target={inside.pid}", "--net", sys.executable, "-uc"]
        server = Talker([*enter, OUTSIDE])
        assert server.hear() == "ready"
        server.say("answers['good.org'] = 60, ['10.9.0.1'], False")
        server.say("serve('127.0.0.53') or print('serves', flush=True)")
        assert server.hear() == "serves"
        assert inside.do("addresses('good.org')") == "['10.9.0.1']"
        server.process.kill()
        server.end()


def test_policy_judges_what_leaves(tmp_path: Path, debian: Path, outside: Outside) -> None:
    outside.begin("tcp('10.9.0.1', 80), tcp('10.9.0.1', 81)")
    outside.do("1")
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write('[[rule]]\naction = "allow"\ncidrs = ["10.9.0.1/32"]\nports = [80]\n')
        file.flush()
        os.chmod(file.name, 0o644)
        with inside_of(debian, outside, f"--egress={file.name}") as inside:
            assert inside.do("fetch('10.9.0.1', 80, 10)") == "(10, 10)"
            assert inside.do("told(fetch, '10.9.0.1', 81, 10)") == "ECONNREFUSED"


def test_sentry_that_is_killed_leaves_no_passt(debian: Path, outside: Outside) -> None:
    with inside_of(debian, outside) as inside:
        (pid,) = processes(inside.pid)
        state = wait_for_state(inside.folder / "state", "c")
        os.kill(state["sentryPid"], signal.SIGKILL)
        until_ended(pid)


def test_passt_outlives_create_and_ends_with_the_container(debian: Path, outside: Outside) -> None:
    asks, held = os.pipe()  # the program ends with its standard input
    with user_of(debian, outside) as user, (user.folder / "out").open("w") as output:

        def ok(*args: str) -> None:
            subprocess.run(user.command(*args), stdin=asks, stdout=output, check=True)

        ok("create", f"--bundle={user.bundle}", "c")
        (pid,) = processes(user.pid)
        ok("start", "c")
        assert processes(user.pid) == [pid]
        ok("delete", "--force", "c")
        until_ended(pid)
    os.close(asks)
    os.close(held)


def test_it_is_what_an_ordinary_user_has_by_default(debian: Path, outside: Outside) -> None:
    with user_of(debian, outside) as user:
        command = [each for each in user.command() if each != "--network=sandbox"]
        talker = own_stack.Inside([*command, "run", f"--bundle={user.bundle}", "c"])
        assert talker.hear() == "ready"
        assert talker.do("shown()") == "['10.9.0.1']"
        talker.end()


def test_second_container_of_a_sandbox_has_a_passt_of_its_own(
    debian: Path, outside: Outside
) -> None:
    with user_of(debian, outside) as user, (user.folder / "out").open("w") as output:

        def ok(*args: str) -> None:
            command = user.command(*args)
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, check=True)

        outside.begin("tcp('10.9.0.1', 80)")
        outside.do("1")
        ok("create", f"--bundle={user.bundle}", "c")
        (first,) = processes(user.pid)
        second = user.folder / "second"
        second.mkdir()
        document = json.loads((user.bundle / "config.json").read_text())
        document["annotations"] = {f"{CRI}container-type": "container", f"{CRI}sandbox-id": "c"}
        code = INSIDE.partition('print("ready")')[0] + "print(fetch('10.9.0.1', 80, 10))"
        document["process"]["args"] = ["python3", "-uc", code]
        (second / "config.json").write_text(json.dumps(document))
        for each in (second, second / "config.json"):
            os.chown(each, UID, UID)
        ok("create", f"--bundle={second}", "d")
        (other,) = set(processes(user.pid)) - {first}
        ok("start", "d")
        until_ended(other)
        assert (user.folder / "out").read_text() == "(10, 10)\n"
        assert processes(user.pid) == [first]
        ok("delete", "d")
        ok("delete", "--force", "c")
        until_ended(first)


def test_command_over_ones_own_files_has_it_if_asked_for(debian: Path, outside: Outside) -> None:
    outside.begin("tcp('10.9.0.1', 80)")
    outside.do("1")
    code = INSIDE.partition('print("ready")')[0] + "print(fetch('10.9.0.1', 80, 10))"
    with user_of(debian, outside) as user:
        root = f"--root={user.folder}/rootfs"
        command = user.command("do", "--quiet", root, "python3", "-uc", code)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert (done.stdout, done.returncode) == (b"(10, 10)\n", 0), done.stderr


def until_none_is_left(pid: int) -> None:
    """In the network namespace of `pid`: one ends a moment after who is on its socket, or has
    begun it."""
    for each in processes(pid):
        until_ended(each)
    assert processes(pid) == []


def until_ended(pid: int) -> None:
    """It may have ended already."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(60_000)
    os.close(fd)
