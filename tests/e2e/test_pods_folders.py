"""A folder of the host that containers of one sandbox have is one file system."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.e2e.bundle import Document
from tests.e2e.client import wait_for_end
from tests.e2e.pod import Pod, said


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


def test_volume_of_containers_own_is_one_in_a_pod_and_hears_of_the_host(
    pod: Pod, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()

    def mounted(document: Document) -> None:
        document["mounts"].append(
            {"destination": "/v", "source": str(volume), "options": ["bind", "rw"]}
        )

    pod.run("pause")
    containers = []
    for name in ("one", "two"):
        pod.client(name).flags.append("--file-access-mounts=exclusive")
        containers.append(pod.run(name, change=mounted))
    one, two = containers

    assert one.ok("exec", "one", "ls", "/v") == two.ok("exec", "two", "ls", "/v") == ""
    one.ok("exec", "one", "sh", "-c", "echo here > /v/f")
    assert two.ok("exec", "two", "cat", "/v/f") == "here\n"
    assert (volume / "f").read_text() == "here\n"

    (volume / "g").write_text("host\n")
    until = "until [ -e /v/g ]; do :; done; cat /v/g"
    assert two.ok("exec", "two", "timeout", "60", "sh", "-c", until) == "host\n"
