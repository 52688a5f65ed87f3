"""Several containers in one sandbox: by annotation, and by the paths of namespaces."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.abi.test_abi import compile_program, with_everything
from tests.e2e.bundle import Bundle, Document
from tests.e2e.client import Client, ConsoleSocket, wait_for_end

CRI = "io.kubernetes.cri."
WAIT = "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done"


class Pod:
    """Containers of one state root, each with a bundle of its own."""

    def __init__(self, folder: Path, rootfs: Path, platform: str) -> None:
        self.folder = folder
        self.rootfs = rootfs
        self.platform = platform
        self.pids: dict[str, int] = {}
        self.clients: dict[str, Client] = {}

    def client(self, name: str) -> Client:
        """Where the container lies."""
        if name not in self.clients:
            made = Client(Bundle(self.folder / name, self.rootfs), self.platform)
            made.root = self.folder / "state"
            made.flags[0] = f"--root={made.root}"
            made.flags.append(f"--debug-log={self.folder}/debug.log")
            self.clients[name] = made
        return self.clients[name]

    def create(
        self,
        name: str,
        script: str = WAIT,
        *,
        change: Callable[[Document], object] = lambda _: None,
        sandbox: str = "pause",
    ) -> Client:
        """A container of the pod whose sandbox is that of `sandbox`."""
        client = self.client(name)
        kind = "sandbox" if name == sandbox else "container"
        client.bundle.document["annotations"] = {
            f"{CRI}container-type": kind,
            f"{CRI}sandbox-id": sandbox,
        }
        client.bundle.args("sh", "-c", script)
        client.bundle.configure(change)
        self.pids[name] = client.create(name)
        return client

    def run(self, name: str, script: str = WAIT, **named: object) -> Client:
        """The same, started."""
        client = self.create(name, script, **named)  # type: ignore[arg-type]
        client.ok("start", name)
        return client

    def path(self, name: str, kind: str) -> str:
        """A namespace of a container, as engines name it."""
        return f"/proc/{self.pids[name]}/ns/{kind}"

    def end(self) -> None:
        for name, client in reversed(self.clients.items()):
            client.ok("delete", "--force", name)
        for client in self.clients.values():
            assert client.remains() == []
            break


@pytest.fixture
def pod(tmp_path: Path, busybox: Path, platform: str) -> object:
    made = Pod(tmp_path, busybox, platform)
    yield made
    made.end()


def joins(**paths: str) -> Callable[[Document], None]:
    """Name namespaces by path; what is not named is new."""

    def change(document: Document) -> None:
        for namespace in document["linux"]["namespaces"]:
            if namespace["type"] in paths:
                namespace["path"] = paths[namespace["type"]]

    return change


def said(client: Client, name: str, text: str) -> None:
    """Until the container has written this."""
    while text not in client.output(name):
        os.sched_yield()


def test_second_container_has_its_own_life(pod: Pod) -> None:
    first = pod.run("pause")
    second = pod.create("app", "echo hello; cat /proc/1/comm; exit 7")

    sentry = json.loads((first.root / "pause" / "state.json").read_text())["sentryPid"]
    own = json.loads((second.root / "app" / "state.json").read_text())
    assert (own["sandbox"], own.get("sentryPid", 0)) == ("pause", 0)
    assert second.state("app")["status"] == "created"
    assert second.output("app") == ""
    pidfd = os.pidfd_open(pod.pids["app"])
    second.ok("start", "app")
    wait_for_end(pidfd)

    assert second.output("app") == "hello\nsh\n"
    assert second.state("app")["status"] == "stopped"
    assert first.state("pause")["status"] == "running"
    second.ok("delete", "app")
    assert Path(f"/proc/{sentry}").exists()
    del pod.clients["app"]


def test_commands_are_about_one_container(pod: Pod) -> None:
    first = pod.run("pause", WAIT + "; : pause")
    catch = "trap 'echo caught; exit 3' TERM; sleep 1000 & "
    second = pod.run("app", catch + WAIT.partition("; ")[2])
    said(second, "app", "up")

    shown = second.ok("exec", "app", "cat", "/proc/1/cmdline")
    assert shown.startswith("sh\0-c\0trap 'echo caught")
    seen = json.loads(second.ok("ps", "--format=json", "app"))
    assert len(seen) == len(json.loads(first.ok("ps", "--format=json", "pause"))) == 1
    inside = second.ok("exec", "app", "ps", "-o", "pid,args").splitlines()
    assert any("sleep 1000" in line for line in inside)
    assert not any(line.endswith("pause") for line in inside)
    assert "sleep 1000" not in first.ok("exec", "pause", "ps", "-o", "args")
    pidfd = os.pidfd_open(pod.pids["app"])
    second.ok("kill", "app", "TERM")
    wait_for_end(pidfd)
    assert "caught" in second.output("app")
    assert first.ok("exec", "pause", "echo", "alive") == "alive\n"


def test_container_shares_what_it_names_and_nothing_else(pod: Pod) -> None:
    first = pod.run("pause", change=lambda d: d.update(hostname="podname"))
    show = "hostname; for n in ipc net pid uts mnt cgroup; do readlink /proc/self/ns/$n; done; "
    of_first = first.ok("exec", "pause", "sh", "-c", show).splitlines()
    shared = joins(**{kind: pod.path("pause", kind) for kind in ("ipc", "pid", "uts")})
    pod.run("near", change=shared).ok("exec", "near", "true")
    pod.run("far", change=lambda d: d.update(hostname="other"))

    near = pod.client("near").ok("exec", "near", "sh", "-c", show).splitlines()
    far = pod.client("far").ok("exec", "far", "sh", "-c", show).splitlines()

    assert near[0] == "podname"
    same = [mine == theirs for mine, theirs in zip(near, of_first, strict=True)]
    assert same == [True, True, False, True, True, False, False]
    assert far[0] == "other"
    assert not set(far) & set(of_first)
    seen = pod.client("near").ok("exec", "near", "cat", "/proc/1/cmdline")
    assert "trap" in seen  # the process 1 of both is that of the pod
    assert len(json.loads(pod.client("near").ok("ps", "--format=json", "near"))) == 1


def test_shared_network_and_system_v_objects(pod: Pod) -> None:
    first = pod.run("pause")
    names = {"network": pod.path("pause", "net"), "ipc": pod.path("pause", "ipc")}
    second = pod.run("app", change=joins(**names))

    first.ok("exec", "pause", "sh", "-c", "nc -l -p 7000 -e echo hello >/dev/null 2>&1 &")
    ask = "until nc 127.0.0.1 7000 </dev/null; do sleep 0.05; done"
    assert second.ok("exec", "app", "sh", "-c", ask) == "hello\n"


def test_namespace_path_alone_joins(pod: Pod) -> None:
    first = pod.run("pause")
    client = pod.client("app")
    client.bundle.args("sh", "-c", WAIT).configure(joins(network=pod.path("pause", "net")))
    pod.pids["app"] = client.create("app")
    client.ok("start", "app")

    state = json.loads((first.root / "app" / "state.json").read_text())
    assert state["sandbox"] == "pause"
    net = "readlink", "/proc/self/ns/net"
    assert client.ok("exec", "app", *net) == first.ok("exec", "pause", *net)
    pid = "readlink", "/proc/self/ns/pid"
    assert client.ok("exec", "app", *pid) != first.ok("exec", "pause", *pid)


def test_parts_of_two_sandboxes_are_refused(pod: Pod) -> None:
    pod.run("pause")
    pod.run("alien", sandbox="alien")
    client = pod.client("app")
    both = joins(network=pod.path("pause", "net"), ipc=pod.path("alien", "ipc"))
    client.bundle.args("true").configure(both)

    error = client.error("create", f"--bundle={client.bundle.write()}", "app")

    assert 'parts of different sandboxes: "alien", "pause"' in error
    assert "app" not in client.remains()


@pytest.mark.parametrize("kind", ["ipc", "uts", "pid"])
def test_namespace_of_a_process_of_the_host_is_refused(pod: Pod, kind: str) -> None:
    pod.run("pause")
    client = pod.client("app")
    foreign = f"/proc/{os.getpid()}/ns/{kind}"
    paths = {kind: foreign, "network": pod.path("pause", "net")}
    client.bundle.args("true").configure(joins(**paths))

    error = client.error("create", f"--bundle={client.bundle.write()}", "app")

    assert f'the {kind} namespace {foreign} is none of the sandbox "pause"' in error


def test_sandbox_that_is_not_there_is_refused(pod: Pod) -> None:
    client = pod.client("app")
    client.bundle.args("true").document["annotations"] = {
        f"{CRI}container-type": "container",
        f"{CRI}sandbox-id": "nobody",
    }

    error = client.error("create", f"--bundle={client.bundle.write()}", "app")

    assert f'{CRI}sandbox-id: there is no sandbox "nobody" in {client.root}' in error


def test_host_uts_shows_the_name_of_the_host(pod: Pod) -> None:
    def without_uts(document: Document) -> None:
        namespaces = document["linux"]["namespaces"]
        document["linux"]["namespaces"] = [n for n in namespaces if n["type"] != "uts"]
        document["hostname"] = ""

    first = pod.run("pause", change=without_uts)
    second = pod.run("app", change=without_uts)

    assert first.ok("exec", "pause", "hostname").strip() == os.uname().nodename
    assert second.ok("exec", "app", "hostname").strip() == os.uname().nodename


@pytest.mark.parametrize("what", ["first process", "stand-in", "gofer"])
def test_death_of_one_harms_no_other(pod: Pod, what: str) -> None:
    first = pod.run("pause")
    second = pod.run("app")
    third = pod.run("other")
    state = json.loads((first.root / "app" / "state.json").read_text())
    pidfd = os.pidfd_open(pod.pids["app"])

    if what == "first process":
        second.ok("kill", "app", "KILL")
    else:
        os.kill(state["pid" if what == "stand-in" else "goferPid"], 9)
    wait_for_end(pidfd)

    assert second.state("app")["status"] == "stopped"
    for client, name in ((first, "pause"), (third, "other")):
        assert client.ok("exec", name, "echo", "alive") == "alive\n"
        assert client.state(name)["status"] == "running"
    second.ok("delete", "app")
    pod.run("app")
    assert second.ok("exec", "app", "cat", "/etc/passwd").startswith("root:")


def test_sandbox_ends_with_the_container_that_made_it(pod: Pod) -> None:
    first = pod.run("pause")
    second = pod.run("app")
    created = pod.create("other")
    ends = [os.pidfd_open(pod.pids[name]) for name in ("app", "other")]

    first.ok("kill", "pause", "KILL")

    for pidfd in ends:
        wait_for_end(pidfd)
    assert second.state("app")["status"] == created.state("other")["status"] == "stopped"
    error = second.error("create", f"--bundle={second.bundle.write()}", "late")
    assert 'the sandbox "pause" has stopped' in error


def test_pause_holds_one_container(pod: Pod) -> None:
    first = pod.run("pause", "while :; do echo x; sleep 0.01; done")
    second = pod.run("app", "while :; do echo x; sleep 0.01; done")
    said(second, "app", "x")

    second.ok("pause", "app")

    size = len(second.output("app"))
    before = len(first.output("pause"))
    while len(first.output("pause")) == before:
        os.sched_yield()
    assert len(second.output("app")) == size
    assert second.state("app")["status"] == "paused"
    assert first.state("pause")["status"] == "running"
    second.ok("resume", "app")
    while len(second.output("app")) == size:
        os.sched_yield()


def test_limit_of_tasks_is_each_containers(pod: Pod) -> None:
    def limited(document: Document) -> None:
        document["linux"]["resources"] = {"pids": {"limit": 4}}

    first = pod.run("pause", "exec sleep 1000")
    second = pod.run("app", "exec sleep 1000", change=limited)
    bomb = "for i in 1 2 3 4 5 6; do sleep 1000 >/dev/null 2>&1 & done; echo all"

    refused = second.call("exec", "app", "sh", "-c", bomb)
    assert "can't fork" in refused.stderr
    assert first.ok("exec", "pause", "sh", "-c", bomb + "; kill %1 %2 %3 %4 %5 %6") == "all\n"
    stats = json.loads(second.ok("events", "--stats", "app"))
    assert stats["data"]["pids"]["limit"] == 4
    second.ok("update", "--pids-limit=50", "app")
    assert second.ok("exec", "app", "sh", "-c", bomb) == "all\n"


def test_folder_of_two_containers_is_one_file_system(pod: Pod, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()

    def mounted(document: Document) -> None:
        document["mounts"].append(
            {"destination": "/v", "source": str(volume), "options": ["bind", "rw"]}
        )

    pod.run("pause")
    one = pod.run("one", change=mounted)
    two = pod.run("two", change=mounted)

    one.ok("exec", "one", "sh", "-c", "echo from one >/v/f; mkfifo /v/fifo")
    assert two.ok("exec", "two", "cat", "/v/f") == "from one\n"
    stat = "stat", "-c", "%d:%i", "/v/f"
    assert one.ok("exec", "one", *stat) == two.ok("exec", "two", *stat)
    reader = one.begin("exec", "one", "cat", "/v/fifo")
    two.ok("exec", "two", "sh", "-c", "echo through >/v/fifo")
    assert reader.communicate()[0] == "through\n"
    one.ok("delete", "--force", "one")
    assert two.ok("exec", "two", "cat", "/v/f") == "from one\n"
    assert two.ok("exec", "two", "sh", "-c", "echo more >>/v/f; wc -l </v/f").strip() == "2"
    three = pod.run("three", change=mounted)
    assert two.ok("exec", "two", *stat) == three.ok("exec", "three", *stat)


MEETS = """
import os, socket
server = socket.socket(socket.AF_UNIX)
server.bind("/v/sock")
server.listen()
print("ready", flush=True)
server.accept()[0].send(b"met")
"""
LOOKS = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/v/sock'); print(s.recv(9))"


def test_folder_that_was_first_mounted_read_only_is_one_file_system(
    tmp_path: Path, debian: Path, platform: str
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "f").write_text("there\n")

    def mounted(how: str) -> Callable[[Document], None]:
        mount = {"destination": "/v", "source": str(volume), "options": ["bind", how]}
        return lambda document: document["mounts"].append(mount)

    pod = Pod(tmp_path / "pod", debian, platform)
    pod.run("pause", "exec sleep 1000")
    reads = pod.run("reads", "cd /v; exec sleep 1000", change=mounted("ro"))
    assert reads.ok("exec", "reads", "cat", "/v/f") == "there\n"
    writes = pod.create("writes", change=mounted("rw"))
    writes.ok("start", "writes")
    server = writes.begin("exec", "writes", "python3", "-uc", MEETS)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"

    assert reads.ok("exec", "reads", "python3", "-c", LOOKS) == "b'met'\n"
    stat = "stat", "-c", "%d:%i", "/v/f"
    assert reads.ok("exec", "reads", *stat) == writes.ok("exec", "writes", *stat)
    refused = reads.call("exec", "reads", "touch", "/v/f", "/v/g")
    assert refused.stderr.count("Read-only file system") == 2
    assert reads.ok("exec", "reads", "sh", "-c", "cat /proc/1/cwd/f; grep -c ' /v ' /proc/mounts")
    writes.ok("delete", "--force", "writes")
    assert reads.ok("exec", "reads", "cat", "/v/f") == "there\n"
    server.communicate(timeout=60)
    pod.run("writes", change=mounted("rw"))
    assert reads.ok("exec", "reads", *stat) == pod.client("writes").ok("exec", "writes", *stat)
    pod.end()


def test_ends_of_threads_are_told_to_a_tracer(tmp_path: Path, pod: Pod) -> None:
    """By their numbers, which are others there than in the sandbox's first PID namespace."""
    program = compile_program("ptrace_events", tmp_path)
    mount = {"destination": "/events", "source": str(program), "options": ["bind", "ro"]}

    def mounted(document: Document) -> None:
        with_everything(document)
        document["mounts"].append(mount)

    pod.run("pause")
    second = pod.run("app", change=mounted)

    assert second.call("exec", "app", "/events").stderr == ""


def at_terminal(pod: Pod, tmp_path: Path, script: str) -> tuple[int, int]:
    """A container beside "pause" that has a terminal: its master, and a pidfd."""
    client = pod.client("app")
    client.bundle.args("sh", "-c", script)
    client.bundle.configure(joins(network=pod.path("pause", "net")))
    client.bundle.document["process"]["terminal"] = True
    console = ConsoleSocket(tmp_path / "console")
    pod.pids["app"] = client.create("app", f"--console-socket={console.path}")
    pidfd = os.pidfd_open(pod.pids["app"])
    master = console.take()
    client.ok("start", "app")
    return master, pidfd


def read_until(master: int, text: bytes) -> None:
    seen = b""
    while text not in seen:
        seen += os.read(master, 1000)


def test_terminal_of_its_own(pod: Pod, tmp_path: Path) -> None:
    first = pod.run("pause")
    master, pidfd = at_terminal(pod, tmp_path, "tty; read word; echo got $word")

    read_until(master, b"/dev/pts/0\r\n")
    os.write(master, b"it\n")
    read_until(master, b"got it")

    wait_for_end(pidfd)
    os.close(master)
    assert first.ok("exec", "pause", "echo", "alive") == "alive\n"


def test_new_size_of_its_terminal_reaches_the_program_at_once(pod: Pod, tmp_path: Path) -> None:
    pod.run("pause")
    script = "trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.01; done"
    master, pidfd = at_terminal(pod, tmp_path, script)
    read_until(master, b"ready\r\n")

    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 40, 100, 0, 0))

    read_until(master, b"40 100\r\n")
    wait_for_end(pidfd)
    os.close(master)


def test_run_in_the_foreground(pod: Pod) -> None:
    pod.run("pause")
    client = pod.client("app")
    client.bundle.args("sh", "-c", "echo hello; exit 5").configure(
        joins(network=pod.path("pause", "net"))
    )

    result = client.call("run", f"--bundle={client.bundle.write()}", "app")

    assert (result.returncode, result.stdout) == (5, "hello\n"), result.stderr
    assert "app" not in client.remains()


def test_limit_of_memory_is_each_containers(pod: Pod) -> None:
    def limited(document: Document) -> None:
        document["linux"]["resources"] = {"memory": {"limit": 64 << 20}}

    first = pod.run("pause", "exec sleep 1000")
    second = pod.run("app", "exec sleep 1000", change=limited)
    fill = "dd if=/dev/zero bs=%dM count=1 of=/dev/null 2>/dev/null; echo $?"

    assert second.ok("exec", "app", "cat", "/sys/fs/cgroup/memory.max") == f"{64 << 20}\n"
    assert second.ok("exec", "app", "sh", "-c", fill % 20) == "0\n"
    assert second.ok("exec", "app", "sh", "-c", fill % 200) == "137\n"
    assert first.ok("exec", "pause", "sh", "-c", fill % 200) == "0\n"
    stats = json.loads(second.ok("events", "--stats", "app"))["data"]["memory"]
    assert stats["usage"]["limit"] == 64 << 20
    events = second.ok("exec", "app", "cat", "/sys/fs/cgroup/memory.events")
    assert "oom_kill 1\n" in events
    assert "oom_kill 0\n" in first.ok("exec", "pause", "cat", "/sys/fs/cgroup/memory.events")


def test_quota_of_cpu_is_each_containers(pod: Pod) -> None:
    def limited(document: Document) -> None:
        document["linux"]["resources"] = {"cpu": {"quota": 10_000, "period": 100_000}}

    busy = "echo up; while :; do :; done"
    first = pod.run("pause", busy)
    second = pod.run("app", busy, change=limited)
    said(second, "app", "up")

    def used_ns(client: Client, name: str) -> int:
        stats = json.loads(client.ok("events", "--stats", name))
        return int(stats["data"]["cpu"]["usage"]["total"])

    before, began = used_ns(second, "app"), time.monotonic_ns()
    free = used_ns(first, "pause")
    while used_ns(first, "pause") < free + 1_000_000_000:
        pass
    used, passed = used_ns(second, "app") - before, time.monotonic_ns() - began

    assert 0 < used < passed * 0.1 + 2 * 10_000_000 + 50_000_000
    assert second.ok("exec", "app", "cat", "/sys/fs/cgroup/cpu.max") == "10000 100000\n"
    second.ok("pause", "app")
    second.ok("resume", "app")
    second.ok("update", "--cpu-quota=-1", "app")
    before = used_ns(second, "app")
    while used_ns(second, "app") < before + 300_000_000:
        pass
    second.ok("kill", "app", "KILL")


def test_container_that_has_ended_leaves_nothing_in_the_sandbox(pod: Pod, tmp_path: Path) -> None:
    def mounted(document: Document) -> None:
        document["mounts"].append(
            {"destination": "/v", "source": str(tmp_path), "options": ["bind", "rw"]}
        )

    first = pod.run("pause", "exec sleep 1000")

    def counts() -> dict[str, int]:
        found = json.loads(first.ok("debug", "--counts", "pause"))
        objects = ("Container", "Session", "Mount", "MountNamespace", "ControlServer", "PtySlave")
        return {
            name: value
            for name, value in found.items()
            if name.startswith(("descriptors_", "tasks", "processes", "sessions", "fibers"))
            or name in ("watches", "mounts", "ipc_namespaces", "bugs")
            or name.endswith(tuple(f".{each}" for each in objects))
        }

    def settled() -> dict[str, int]:
        """A Gofer's session goes when its process has gone, a moment after the answer."""
        for _ in range(50):
            found = counts()
            left = {name: number for name, number in found.items() if name.startswith("object")}
            if not left:
                break
        assert not left
        return found

    def once() -> None:
        client = pod.run("app", change=mounted)
        client.ok("exec", "app", "sh", "-c", "echo x >/v/x; echo y >/y; cat /v/x /y")
        client.ok("delete", "--force", "app")
        failed = client.call("create", f"--bundle={client.bundle.args('/nope').write()}", "app")
        assert failed.returncode == 1

    once()
    before = settled()
    once()
    once()

    assert settled() == before


SHARED = """
import ctypes, fcntl, mmap, os, socket, sys
here, there = sys.argv[1:]
os.chdir("/v")
file = open("f", "r+b")
if here == "one":
    fcntl.flock(file, fcntl.LOCK_EX)
    shared = mmap.mmap(file.fileno(), 4096)
    server = socket.socket(socket.AF_UNIX)
    server.bind("sock")
    server.listen()
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init()
    libc.inotify_add_watch(watch, b".", 0x100)
    print("ready", flush=True)
    peer, _ = server.accept()
    shared[0:5] = b"hello"
    peer.send(b".")
    assert peer.recv(1) == b"."
    assert shared[5:9] == b"back"
    name = os.read(watch, 4096)[16:].rstrip(b"\\0")
    print(name.decode())
else:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("locked")
    shared = mmap.mmap(file.fileno(), 4096)
    client = socket.socket(socket.AF_UNIX)
    client.connect("sock")
    assert client.recv(1) == b"."
    print(shared[0:5].decode())
    shared[5:9] = b"back"
    open("made", "w").close()
    client.send(b".")
"""


def test_programs_meet_in_a_shared_folder(tmp_path: Path, debian: Path, platform: str) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "f").write_bytes(bytes(4096))
    (volume / "meet.py").write_text(SHARED)

    def mounted(document: Document) -> None:
        document["mounts"].append(
            {"destination": "/v", "source": str(volume), "options": ["bind", "rw"]}
        )

    pod = Pod(tmp_path / "pod", debian, platform)
    pod.run("pause", "exec sleep 1000")
    one = pod.run("one", "exec python3 /v/meet.py one two", change=mounted)
    said(one, "one", "ready")
    two = pod.create("two", "exec python3 /v/meet.py two one", change=mounted)
    ends = [os.pidfd_open(pod.pids[name]) for name in ("one", "two")]
    two.ok("start", "two")
    for pidfd in ends:
        wait_for_end(pidfd)

    assert two.output("two") == "locked\nhello\n"
    assert one.output("one") == "ready\nmade\n"
    pod.end()


def test_end_of_a_container_ends_who_is_in_its_pid_namespace(pod: Pod) -> None:
    pod.run("pause")
    target = pod.run("app", "echo up; exec sleep 1000")
    said(target, "app", "up")
    debugs = pod.run("debugs", change=joins(pid=pod.path("app", "pid")))
    said(debugs, "debugs", "up")
    pidfds = [os.pidfd_open(pod.pids[name]) for name in ("app", "debugs")]

    target.ok("kill", "app", "KILL")
    for pidfd in pidfds:
        wait_for_end(pidfd)

    assert target.state("app")["status"] == "stopped"
    assert debugs.state("debugs")["status"] == "stopped"
    assert pod.client("pause").ok("exec", "pause", "echo", "alive") == "alive\n"
