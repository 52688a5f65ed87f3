"""--network=host: the program's sockets are the host's, made by a process of their own."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sentry.abi.netlink import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
)
from tests.e2e.bundle import REPOSITORY, Bundle, execute, kvm_is_usable
from tests.e2e.client import Client, wait_for_end
from tests.e2e.processes import wait_for_state
from tests.e2e.talker import Talker

pytestmark = [
    pytest.mark.root,
    pytest.mark.kvm,
    pytest.mark.skipif(os.geteuid() != 0 or not kvm_is_usable(), reason="needs root and /dev/kvm"),
]
HOST = ("--network=host",)
KINDS = pytest.mark.parametrize(
    "flags", [(), HOST, ("--network=sandbox",)], ids=["default", "host", "sandbox"]
)
"""What holds for all that have the interfaces of a namespace of the host."""
CLIENT = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as sock:
    name = sock.getpeername()[0]
    sock.sendall(b"x" * 300_000)
    sock.shutdown(socket.SHUT_WR)
    print(len(b"".join(iter(lambda: sock.recv(65536), b""))), name)
"""
WITHIN = """
import errno, selectors, socket, threading
def refused(call, *args):
    try:
        call(*args)
    except OSError as error:
        return errno.errorcode[error.errno]
server = socket.create_server(("127.0.0.1", 0))
def echo(peer):
    with peer:
        while data := peer.recv(4096):
            peer.sendall(data)
def serve():
    for _ in range(3):
        threading.Thread(target=echo, args=(server.accept()[0],)).start()
threading.Thread(target=serve).start()
sockets = [socket.create_connection(server.getsockname()) for _ in range(3)]
with selectors.EpollSelector() as selector:
    for index, sock in enumerate(sockets):
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, index)
        sock.send(b"%d" % index)
    got = {}
    while len(got) < 3:
        for key, _ in selector.select():
            got[key.data] = key.fileobj.recv(9)
print(sorted(got.items()))
for sock in sockets:
    sock.close()
late = socket.socket()
late.setblocking(False)
print(late.connect_ex(server.getsockname()) in (0, errno.EINPROGRESS))
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.bind(("::1", 0))
udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
udp.sendto(b"datagram", udp.getsockname())
data, control, flags, sender = udp.recvmsg(3, 100)
print(data, [kind for _, kind, _ in control], flags == socket.MSG_TRUNC, sender[0])
udp.setblocking(False)
print(refused(udp.recv, 1))
print(refused(socket.create_connection, ("127.0.0.1", 1)))
print(refused(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1))
print(refused(socket.socket, socket.AF_INET, socket.SOCK_STREAM, 17))
print(refused(socket.socketpair, socket.AF_INET))
print(refused(server.setsockopt, socket.SOL_SOCKET, 26, bytes(16)))
print(server.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), socket.if_nameindex())
"""
PRINTED = """\
[(0, b'0'), (1, b'1'), (2, b'2')]
True
b'dat' [50] True ::1
EAGAIN
ECONNREFUSED
EPERM
EPROTONOSUPPORT
ENOTSUP
ENOPROTOOPT
1 [(1, 'lo')]
"""

RAW = """
import errno, socket
try:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    print("made")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
AS_ROOT_OF_A_NAMESPACE = """
import os, sys
from runsc import host
from sentry.abi.sched import CLONE_NEWUSER
is_there, may_go = os.pipe(), os.pipe()
pid = os.fork()
if not pid:
    host.unshare(CLONE_NEWUSER)
    os.write(is_there[1], b"x")
    os.read(may_go[0], 1)
    os.execvp(sys.argv[1], sys.argv[1:])
os.read(is_there[0], 1)
for name in ("uid_map", "gid_map"):
    with open(f"/proc/{pid}/{name}", "w") as file:
        file.write("0 0 70000")
os.write(may_go[1], b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
WATCHED = """
import os, socket, struct
watch = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
watch.bind((0, 1 | 1 << 4 | 1 << 6))  # links, addresses and routes of IPv4
def heard():
    data = watch.recv(65536)
    return struct.unpack_from("H", data, 4)[0]
def rows(name):
    with open(f"/proc/net/{name}") as file:
        return [line.split() for line in file]
def shown():
    names = [name for _, name in socket.if_nameindex()]
    counted = [row[0].rstrip(":") for row in rows("dev")[2:]]
    assert counted == names and sorted(names) == sorted(os.listdir("/sys/class/net"))
    return sorted(names), [row[:3] for row in rows("route")[1:]]
print(shown())
for line in iter(input, "end"):
    while heard() != int(line):
        pass
    print(shown())
"""


@pytest.fixture
def bundle(tmp_path: Path, debian: Path) -> Bundle:
    """Python, in a new network namespace unless the test says otherwise."""
    return Bundle(tmp_path / "bundle", debian)


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server of the host that sends back what it gets."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server.accept()[0] as peer:
            peer.sendall(b"".join(iter(lambda: peer.recv(65536), b"")))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield server.getsockname()[1]
    server.close()


def in_namespace(pid: int, *commands: str) -> None:
    """What ip(8) does in the network namespace of a process."""
    for command in commands:
        subprocess.run(["nsenter", f"--target={pid}", "--net", "ip", *command.split()], check=True)


def _namespaces(bundle: Bundle, network: dict[str, str] | None) -> None:
    linux = bundle.document["linux"]
    others = [each for each in linux["namespaces"] if each["type"] != "network"]
    linux["namespaces"] = others + ([network] if network is not None else [])


def _capabilities(bundle: Bundle, names: list[str]) -> None:
    sets = ("bounding", "effective", "permitted")
    bundle.document["process"]["capabilities"] = dict.fromkeys(sets, names)


def test_program_talks_to_a_server_of_the_host(bundle: Bundle, echo_port: int) -> None:
    _namespaces(bundle, None)

    result = bundle.args("python3", "-c", CLIENT, str(echo_port)).run(flags=HOST)

    assert (result.stdout, result.stderr, result.returncode) == ("300000 127.0.0.1\n", "", 0)


def test_sockets_of_a_new_namespace_behave_as_on_linux(bundle: Bundle) -> None:
    result = bundle.args("python3", "-c", WITHIN).run(flags=HOST)

    assert (result.stdout, result.stderr, result.returncode) == (PRINTED, "", 0)


def test_namespace_with_a_path_is_joined(bundle: Bundle) -> None:
    script = "ip link add v0 type veth peer name v1; ip addr add 10.9.8.7/24 dev v0; echo; read end"
    holder = Talker(["unshare", "--net", "sh", "-c", script])
    holder.hear()
    _namespaces(bundle, {"type": "network", "path": f"/proc/{holder.process.pid}/ns/net"})
    code = "import socket; s = socket.socket(); s.bind(('10.9.8.7', 0)); print(s.getsockname()[0])"
    names = "print(sorted(name for _, name in socket.if_nameindex()))"
    try:
        result = bundle.args("python3", "-c", f"{code}; {names}").run(flags=HOST)
    finally:
        holder.end()

    assert (result.stdout, result.stderr) == ("10.9.8.7\n['lo', 'v0', 'v1']\n", "")


@KINDS
def test_what_is_plugged_into_a_namespace_that_is_listed_is_the_network(
    bundle: Bundle, flags: tuple[str, ...]
) -> None:
    code = "import socket; s = socket.socket(); s.bind(('10.9.8.7', 0)); print(s.getsockname()[0])"
    client = Client(bundle.args("python3", "-c", f"{code}; print(socket.if_nameindex())"))
    client.flags += flags
    pid = client.create("c")
    ended = os.pidfd_open(json.loads((client.root / "c" / "state.json").read_text())["sentryPid"])

    in_namespace(pid, "link add v0 index 70000 type veth peer name v1 index 70001")
    in_namespace(pid, "link set v0 name eth0 up", "addr add 10.9.8.7/24 dev eth0")
    client.ok("start", "c")
    wait_for_end(ended)

    assert client.output("c") == "10.9.8.7\n[(1, 'lo'), (70000, 'eth0'), (70001, 'v1')]\n"
    client.ok("delete", "c")


@KINDS
def test_containers_that_are_plugged_together_talk(
    bundle: Bundle, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    code = "import socket; p = socket.create_server(('10.1.1.1', 9)).accept()[0]; p.send(b'hello')"
    server = Client(bundle.args("python3", "-c", code))
    code = (
        "import socket\nwhile True:\n  s = socket.socket()\n"
        "  if not s.connect_ex(('10.1.1.1', 9)): break\nprint(s.recv(9).decode())"
    )
    client = Client(Bundle(tmp_path / "client", bundle.rootfs).args("python3", "-c", code))
    server.flags += flags
    client.flags += flags
    pids = server.create("s"), client.create("c")
    peer = f"link add eth0 type veth peer name eth0 netns {pids[1]}"
    in_namespace(pids[0], peer, "link set eth0 up", "addr add 10.1.1.1/24 dev eth0")
    in_namespace(pids[1], "link set eth0 up", "addr add 10.1.1.2/24 dev eth0")
    ended = [os.pidfd_open(pid) for pid in pids]

    server.ok("start", "s")
    client.ok("start", "c")
    for pidfd in ended:
        wait_for_end(pidfd)

    assert (server.output("s"), client.output("c")) == ("", "hello\n")
    server.ok("delete", "s")
    client.ok("delete", "c")


@KINDS
def test_changes_are_seen_by_who_does_not_listen(bundle: Bundle, flags: tuple[str, ...]) -> None:
    code = (
        "import os, socket\n"
        "for line in iter(input, 'end'):\n"
        "  names = sorted(name for _, name in socket.if_nameindex())\n"
        "  print(names, sorted(os.listdir('/sys/class/net')), os.path.exists(line))"
    )
    client = Client(bundle.args("python3", "-uc", code))
    talker = Talker(client.command(*flags, "run", f"--bundle={bundle.write()}", "c"))
    talker.say("/sys/class/net/eth0/mtu")
    said = [talker.hear()]
    for command in ("link add eth0 type veth peer name v1", "link set eth0 name eth1"):
        in_namespace(wait_for_state(client.root, "c")["pid"], command)
        talker.say("/sys/class/net/eth0/mtu")
        said.append(talker.hear())
    talker.say("end")
    talker.end()

    assert said == [
        f"{names} {names} {there}"
        for names, there in (
            (["lo"], False), (["eth0", "lo", "v1"], True), (["eth1", "lo", "v1"], False)
        )
    ]  # fmt: skip


def test_changes_while_it_runs_are_seen_and_told(bundle: Bundle) -> None:
    client = Client(bundle.args("python3", "-uc", WATCHED))
    talker = Talker(client.command(*HOST, "run", f"--bundle={bundle.write()}", "c"))
    assert talker.hear() == "(['lo'], [])"
    pid = wait_for_state(client.root, "c")["pid"]
    near, default = "['eth0', '0008090A', '00000000']", "['eth0', '00000000', '0108090A']"
    said = []

    for kind, command in (
        (RTM_NEWLINK, "link add eth0 up type veth peer name v1"),
        (RTM_NEWADDR, "addr add 10.9.8.7/24 dev eth0"),
        (RTM_NEWROUTE, "route add default via 10.9.8.1"),
        (RTM_NEWLINK, "link set eth0 name eth1"),
        (RTM_DELROUTE, "route del default"),
        (RTM_DELADDR, "addr del 10.9.8.7/24 dev eth1"),
        (RTM_DELLINK, "link del eth1"),
    ):
        in_namespace(pid, command)
        talker.say(str(kind))
        said.append(talker.hear())
    talker.say("end")
    talker.end()

    assert said == [
        "(['eth0', 'lo', 'v1'], [])",
        f"(['eth0', 'lo', 'v1'], [{near}])",
        f"(['eth0', 'lo', 'v1'], [{default}, {near}])",
        f"(['eth0', 'lo', 'v1'], [{default}, {near}])".replace("eth0", "eth1"),
        f"(['eth1', 'lo', 'v1'], [{near.replace('eth0', 'eth1')}])",
        "(['eth1', 'lo', 'v1'], [])",
        "(['lo'], [])",
    ]


def test_default_is_a_stack_of_the_sandboxs_own(bundle: Bundle) -> None:
    _capabilities(bundle.args("python3", "-c", RAW), ["CAP_NET_RAW"])

    assert [bundle.run(flags=flags).stdout for flags in ((), HOST)] == ["made\n", "EPERM\n"]


def test_who_may_not_silence_a_namespace_has_sockets_of_the_host_and_is_told(
    bundle: Bundle,
) -> None:
    """Root of a user namespace, as with engines that need no root: the network is another's."""
    _capabilities(bundle.args("python3", "-c", RAW), ["CAP_NET_RAW"])

    result = execute([sys.executable, "-c", AS_ROOT_OF_A_NAMESPACE, *bundle.command()])

    assert (result.stdout, result.returncode) == ("EPERM\n", 0), result.stderr
    assert "--network=host: nftables of the host: operation not permitted" in result.stderr


def test_default_is_none_where_no_namespace_is_listed(bundle: Bundle) -> None:
    _namespaces(bundle, None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; print(socket.socket().connect_ex(('127.0.0.1', {port})))"
        result = bundle.args("python3", "-c", code).run()

    assert result.stdout == f"{errno.ECONNREFUSED}\n"


@pytest.mark.parametrize("network", ["host", "sandbox"])
def test_sysctls_hold_for_sockets_of_the_namespace(bundle: Bundle, network: str) -> None:
    code = (
        "import socket\ns = socket.socket()\ns.bind(('', 80)); print(s.getsockname()[1])\n"
        "socket.socket(type=socket.SOCK_DGRAM, proto=1)\n"
        "u = socket.socket(type=socket.SOCK_DGRAM); u.bind(('', 0)); print(u.getsockname()[1])"
    )
    _capabilities(bundle.args("python3", "-c", code), [])
    bundle.document["linux"]["sysctl"] = {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
        "net.ipv4.ip_local_port_range": "40000 40000",
    }

    result = bundle.run(flags=[f"--network={network}"])

    assert (result.stdout, result.stderr) == ("80\n40000\n", "")


def test_namespace_of_the_host_is_changed_by_nobody_inside(bundle: Bundle) -> None:
    code = (
        "import errno, fcntl, socket, struct\ns = socket.socket()\n"
        "try:\n  fcntl.ioctl(s, 0x8914, struct.pack('16sH22x', b'lo', 0))\n"
        "except OSError as e: print(errno.errorcode[e.errno])"
    )
    _capabilities(bundle.args("python3", "-c", code), ["CAP_NET_ADMIN"])

    assert bundle.run(flags=HOST).stdout == "EPERM\n"


def test_namespace_that_is_not_there_is_refused(bundle: Bundle) -> None:
    _namespaces(bundle, {"type": "network", "path": "/no/such/namespace"})

    result = bundle.args("true").run(flags=HOST)

    assert result.returncode == 1
    assert "network namespace /no/such/namespace: no such file or directory" in result.stderr


@pytest.mark.parametrize(
    ("capabilities", "expected"), [(["CAP_NET_BIND_SERVICE"], "80\n"), ([], "EACCES\n")]
)
def test_privileged_port_needs_the_capability(
    bundle: Bundle, capabilities: list[str], expected: str
) -> None:
    code = (
        "import errno, socket\ns = socket.socket()\n"
        "try:\n  s.bind(('', 80)); print(s.getsockname()[1])\n"
        "except OSError as e: print(errno.errorcode[e.errno])"
    )
    _capabilities(bundle.args("python3", "-c", code), capabilities)

    assert bundle.run(flags=HOST).stdout == expected


def test_nothing_is_left_when_the_network_process_is_killed(bundle: Bundle) -> None:
    code = (
        "import errno, socket\nold = socket.create_server(('', 0))\nprint('ready')\ninput()\n"
        "try:\n  socket.socket()\nexcept OSError as e: print(errno.errorcode[e.errno])\n"
        "socket.socketpair(); print(old.getsockname()[0])"
    )
    command = bundle.args("python3", "-uc", code).command(flags=[*HOST, "--zygote=off"])
    cli = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert cli.stdout is not None
    assert cli.stdout.readline() == "ready\n"
    status = {}
    for entry in Path("/proc").glob("[0-9]*"):  # `children` misses some while one ends: proc(5)
        with suppress(OSError):
            text = (entry / "status").read_text()
            if f"PPid:\t{cli.pid}\n" in text:
                status[entry.name] = text
    (network,) = (pid for pid, text in status.items() if "CapEff:\t0000000000000400" in text)
    assert "Seccomp:\t2" in status[network]
    ended = os.pidfd_open(int(network))
    os.kill(int(network), signal.SIGKILL)
    select.select([ended], [], [])
    os.close(ended)

    out, _ = cli.communicate("\n", timeout=60)

    assert (out, cli.returncode) == ("ENETDOWN\n0.0.0.0\n", 0)
    assert [pid for pid in status if Path(f"/proc/{pid}").exists()] == []


@pytest.mark.parametrize(
    ("flags", "named", "warns"),
    [((), False, True), (("--network=none",), False, False), ((), True, False)],
)
def test_who_asks_for_the_network_of_the_host_is_told_how_to_get_it(
    bundle: Bundle, flags: tuple[str, ...], named: bool, warns: bool
) -> None:
    """`--network=host` of engines, hostNetwork of pods."""
    _namespaces(bundle, {"type": "network"} if named else None)

    result = bundle.args("ls", "/sys/class/net").run(flags=flags)

    assert (result.returncode, result.stdout) == (0, "lo\n")
    told = "a loopback interface alone, unless runsc is told --network=host" in result.stderr
    assert told == warns
