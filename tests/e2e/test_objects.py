"""What a program serves to its sandboxes: files, devices, /proc, connections."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.honeypot import honeypot
from gofer.p9.messages import Rwrite
from runsc import AsyncSandbox, Sandbox, SandboxError
from runsc.api.blocking.serving import Connection
from runsc.fs import (
    Device,
    FileSystem,
    MemoryFileSystem,
    OpenDevice,
    ProcFile,
    Stat,
    folder,
    regular,
)
from sentry.fs.served.device import REST_NS
from tests.e2e.bundle import REPOSITORY, kvm_is_usable
from tests.e2e.sandboxes import FLAGS, MEMORY, made, noted, wait_until_gone

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
CHANGES = """
cd /data && mkdir d && echo one > d/f && echo two >> d/f && mv d/f g && ln -s g l && cat l &&
chmod 600 g && touch -d @77 g && stat -c '%a %s %Y' g && exec 3<g && rm g l && rmdir d &&
cat <&3 && ls -A && ! cat g
"""


@pytest.fixture
def sandbox(tmp_path: Path, busybox: Path) -> Iterator[Sandbox]:
    with made(tmp_path, busybox) as found:
        yield found
    assert noted(tmp_path) == []


def test_file_system_is_changed_as_any_other(sandbox: Sandbox) -> None:
    served = MemoryFileSystem({"/there": bytes(range(256)) * 4096})
    sandbox.mount("/data", served)
    result = sandbox.commands.run(CHANGES)
    assert result.stdout.split() == ["one", "two", "600", "8", "77", "one", "two", "there"]
    assert "No such file" in result.stderr
    copied = sandbox.commands.run("cp /data/there /data/copy && cmp /data/there /data/copy")
    assert copied.exit_code == 0
    assert served.get("/copy") == served.get("/there")
    sandbox.unmount("/data")
    assert sandbox.commands.run("ls -A /data").stdout == ""


def test_read_only_mount_and_rights_are_the_kernels(sandbox: Sandbox) -> None:
    sandbox.mount("/data", MemoryFileSystem({"/f": b"x"}), readonly=True)
    assert "Read-only" in sandbox.commands.run("echo y > /data/f").stderr
    sandbox.unmount("/data")
    served = MemoryFileSystem()
    served.put("/secret", b"x", mode=0o600)
    sandbox.mount("/data", served)
    assert "denied" in sandbox.commands.run("cat /data/secret", user=1000).stderr
    with pytest.raises(SandboxError, match="EINVAL"):
        sandbox.unmount("/tmp")


def test_server_that_is_late_or_raises_is_eio_and_holds_nobody_else_up(sandbox: Sandbox) -> None:
    let_go = threading.Event()

    class Stuck(FileSystem):
        def stat(self, path: str) -> Stat:
            if path == "/stuck":
                let_go.wait()
            if path == "/broken":
                raise RuntimeError("a defect of the server's")
            return folder() if path == "/" else regular(1)

    sandbox.mount("/data", Stuck(), timeout=0.3)
    assert "Input/output error" in sandbox.commands.run("cat /data/broken").stderr
    with sandbox.commands.run("cat /data/stuck; ls /data", background=True) as stuck:
        assert sandbox.commands.run("echo on").stdout == "on\n"
        said = stuck.wait().stderr
    assert said.count("Input/output error") == 2, said
    let_go.set()


STUCK = {
    "stat": "cat f", "list": "ls", "opened": "cat f", "read": "cat f", "create": "touch new",
    "write": "echo x > f", "make_folder": "mkdir d", "make_link": "ln -s f l", "remove": "rm f",
    "remove_folder": "rmdir e", "rename": "mv f g", "truncate": "truncate -s 1 f",
    "set_mode": "chmod 600 f", "set_times": "touch f", "sync": "dd if=g of=f conv=fsync",
    "room": "df .",
}  # fmt: skip


class Waits(MemoryFileSystem):
    """A method does not return before it may; then it has done what it is for."""

    def __init__(self, method: str) -> None:
        super().__init__({"/f": b"text", "/g": b"other", "/e/x": b""})
        self.remove("/e/x")
        self.asked, self.may = threading.Event(), threading.Event()
        self.is_mounted = False
        then = getattr(self, method)

        def waits(*values: object) -> object:
            if self.is_mounted:
                self.asked.set()
                self.may.wait()
            return then(*values)

        setattr(self, method, waits)


@pytest.mark.parametrize("method", [
    pytest.param(name, marks=() if name in ("create", "rename") else pytest.mark.full)
    for name in STUCK
])  # fmt: skip
def test_who_waits_for_a_server_can_be_killed_and_paused(
    sandbox: Sandbox, tmp_path: Path, method: str
) -> None:
    served = Waits(method)
    sandbox.mount("/data", served, timeout=1000)
    served.is_mounted = True
    opens = "exec 3<g; " if method in ("rename", "set_mode", "truncate") else ""
    command = f"cd /data; {opens}exec {STUCK[method]}"
    with sandbox.commands.run(command, background=True) as stuck:
        assert served.asked.wait(60)
        sandbox.pause()
        sandbox.resume()
        with pytest.raises(SandboxError):
            sandbox.create_snapshot(tmp_path / "saved")
        stuck.kill()
        assert stuck.wait().exit_code == 128 + signal.SIGKILL
    assert sandbox.commands.run("echo on").stdout == "on\n"
    served.may.set()
    assert sandbox.commands.run("ls /data; echo more > /data/more").exit_code == 0
    assert served.get("/more") == b"more\n"
    sandbox.unmount("/data")


def test_sandbox_ends_while_a_program_waits_for_a_server(tmp_path: Path, busybox: Path) -> None:
    served = Waits("make_folder")
    with made(tmp_path, busybox, mounts={"/data": served}) as sandbox:
        served.is_mounted = True
        stuck = sandbox.commands.run("mkdir /data/d", background=True)
        assert served.asked.wait(60)
    stuck.close()
    assert noted(tmp_path) == []
    served.may.set()


@pytest.mark.full
def test_sandbox_and_mount_end_with_the_program_that_serves(
    tmp_path: Path, busybox: Path
) -> None:
    code = (
        "from runsc import Sandbox; from runsc.fs import MemoryFileSystem\n"
        f"s = Sandbox.create(root={str(busybox)!r}, state={str(tmp_path / 'state')!r},"
        f" memory={MEMORY}, flags={FLAGS!r}, mounts={{'/data': MemoryFileSystem()}})\n"
        "print(s.sandbox_id, flush=True)\n"
        "s.commands.run('while :; do ls /data; done >/dev/null')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert process.stdout is not None
    with process.stdout as told:
        name = told.readline().strip()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert name
    wait_until_gone(tmp_path, name)


def test_mount_of_a_program_that_has_gone_is_eio(tmp_path: Path, busybox: Path) -> None:
    with made(tmp_path, busybox) as sandbox:
        code = (
            "import sys\nfrom runsc import Sandbox; from runsc.fs import MemoryFileSystem\n"
            f"s = Sandbox.connect({sandbox.sandbox_id!r}, state={str(tmp_path / 'state')!r})\n"
            "s.mount('/data', MemoryFileSystem({'/f': b'x'}))\n"
            "print(s.commands.run('cat /data/f').stdout, flush=True); sys.stdin.read()\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, cwd=REPOSITORY,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout as told:
            assert told.readline().strip() == "x"
            process.kill()
            process.wait()
        assert "Input/output error" in sandbox.commands.run("cat /data/f").stderr
        assert sandbox.commands.run("umount /data && ls /data").exit_code == 0


def test_methods_may_be_coroutines(tmp_path: Path, busybox: Path) -> None:
    class Slow(MemoryFileSystem):
        under_way = most = 0

        async def read(self, path: str, offset: int, size: int) -> bytes:  # type: ignore[override]
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            while path in ("/a", "/b") and self.most < 2:
                await asyncio.sleep(0.001)
            self.under_way -= 1
            return super().read(path, offset, size)

    async def run() -> tuple[str, int]:
        served = Slow({"/a": b"a\n", "/b": b"b\n"})
        async with await AsyncSandbox.create(
            root=busybox, memory=MEMORY, state=tmp_path / "state", flags=FLAGS,
            mounts={"/data": served},
        ) as sandbox:  # fmt: skip
            result = await sandbox.commands.run("cat /data/a & cat /data/b; wait")
            return result.stdout, served.most

    output, most = asyncio.run(run())
    assert (sorted(output.split()), most) == (["a", "b"], 2)


def test_coroutines_need_a_loop(sandbox: Sandbox) -> None:
    class Slow(FileSystem):
        async def stat(self, path: str) -> Stat:
            return folder()

    with pytest.raises(TypeError, match="AsyncSandbox"):
        sandbox.mount("/data", Slow())


class Echo(Device):
    def __init__(self) -> None:
        self.opened: list[OpenEcho] = []

    def open(self, flags: int) -> OpenDevice:
        self.opened.append(OpenEcho())
        return self.opened[-1]


class OpenEcho(OpenDevice):
    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[bytes] = []
        self.is_closed = threading.Event()

    def read(self, size: int) -> bytes:
        if not self.waiting:
            raise BlockingIOError(11, "nothing")
        return self.waiting.pop(0)[:size]

    def write(self, data: bytes) -> int:
        self.waiting.append(data.upper())
        return len(data)

    def poll(self) -> int:
        return select.POLLOUT | (select.POLLIN if self.waiting else 0)

    def close(self) -> None:
        self.is_closed.set()


def test_device_has_data_wakes_readers_and_is_closed(sandbox: Sandbox) -> None:
    device = Echo()
    sandbox.add_device("/dev/echo", device, mode=0o600)
    run = sandbox.commands.run
    assert run("exec 3<>/dev/echo; echo abc >&3; head -n1 <&3").stdout == "ABC\n"
    assert device.opened[0].is_closed.wait(60)
    assert "denied" in run("cat /dev/echo", user=1000).stderr
    with run("head -n1 /dev/echo", background=True) as reader:
        while len(device.opened) < 2:
            time.sleep(0.01)
        device.opened[1].waiting.append(b"late\n")
        device.opened[1].changed()
        assert reader.wait().stdout == "late\n"
    with run("cat /dev/echo", background=True) as reader:
        reader.kill(signal.SIGTERM)
        assert reader.wait().exit_code == 128 + signal.SIGTERM
    with pytest.raises(SandboxError, match="EEXIST"):
        sandbox.add_device("/dev/echo", device)


def test_program_opens_a_device_as_often_as_it_may(tmp_path: Path, debian: Path) -> None:
    """All of its files are told of changes, others are refused, and the device lives."""
    code = (
        "import os, select, resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
        "files = []\n"
        "try:\n"
        "    while True: files.append(os.open('/dev/echo', os.O_RDWR | os.O_NONBLOCK))\n"
        "except OSError as error: print(len(files), error.errno, flush=True)\n"
        "poll = select.poll()\n"
        "for fd in files: poll.register(fd, select.POLLIN)\n"
        "os.write(files[0], b'x')\n"
        "while len(poll.poll()) < len(files): pass\n"
        "for fd in files: os.close(fd)\n"
        "print(os.read(os.open('/dev/echo', os.O_RDWR), 9))\n"
    )
    shared: list[OpenEcho] = []

    class Shared(OpenEcho):
        def write(self, data: bytes) -> int:
            for each in shared:
                each.waiting.append(data.upper())
                each.changed()
            return len(data)

    class Many(Device):
        def open(self, flags: int) -> OpenDevice:
            shared.append(Shared())
            shared[-1].waiting += [b"last"] if len(shared) > 512 else []
            return shared[-1]

    with made(tmp_path, debian) as sandbox:
        sandbox.add_device("/dev/echo", Many())
        result = sandbox.commands.run(["python3", "-c", code])
    assert result.stdout.splitlines() == [f"512 {errno.EBUSY}", "b'last'"], result


def test_device_that_is_ready_with_nothing_keeps_nobody_from_signals(
    tmp_path: Path, debian: Path
) -> None:
    class Nothing(OpenDevice):
        def __init__(self) -> None:
            super().__init__()
            self.reads_ns: list[int] = []
            self.is_asked_again = threading.Event()

        def read(self, size: int) -> bytes:
            self.reads_ns.append(time.monotonic_ns())
            if len(self.reads_ns) == 20:
                self.is_asked_again.set()
            raise BlockingIOError(11, "poll says that there is something")

    class Contradicting(Device):
        opened = Nothing()

        def open(self, flags: int) -> OpenDevice:
            return self.opened

    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGALRM, lambda *_: sys.exit(7))\n"
        "os.read(os.open('/dev/nothing', os.O_RDONLY), 1)\n"
    )
    device = Contradicting()
    with made(tmp_path, debian) as sandbox:
        sandbox.add_device("/dev/nothing", device)
        with sandbox.commands.run(["python3", "-c", code], background=True) as reader:
            assert device.opened.is_asked_again.wait(60)
            reader.kill(signal.SIGALRM)
            assert reader.wait().exit_code == 7
    reads_ns = device.opened.reads_ns
    assert (len(reads_ns) - 2) * REST_NS <= reads_ns[-1] - reads_ns[0]


def test_many_that_wait_to_write_to_a_device_take_turns(sandbox: Sandbox) -> None:
    writers = 30

    class Narrow(OpenDevice):
        def __init__(self) -> None:
            super().__init__()
            self.asked = self.room = 0
            self.taken: list[bytes] = []
            self.all_wait, self.has_taken = threading.Event(), threading.Event()

        def write(self, data: bytes) -> int:
            self.asked += 1
            if self.asked >= writers:
                self.all_wait.set()
            if not self.room:
                raise BlockingIOError(errno.EAGAIN, "no room")
            self.room -= 1
            self.taken.append(data)
            self.has_taken.set()
            return len(data)

        def poll(self) -> int:
            return select.POLLOUT if self.room else 0

    class One(Device):
        opened = Narrow()

        def open(self, flags: int) -> OpenDevice:
            return self.opened

    sandbox.add_device("/dev/narrow", One())
    opened = One.opened
    script = f"for i in $(seq {writers}); do echo $i & done >/dev/narrow; wait"
    with sandbox.commands.run(script, background=True) as command:
        assert opened.all_wait.wait(60)
        for _ in range(writers):
            opened.has_taken.clear()
            opened.room = 1
            opened.changed()
            assert opened.has_taken.wait(60)
        assert command.wait().exit_code == 0
    assert sorted(map(int, opened.taken)) == list(range(1, writers + 1))
    assert opened.asked < 5 * writers  # not all of them at each change: some 500


def test_what_a_server_says_was_written_is_no_more_than_was_given(
    tmp_path: Path, debian: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runsc.fs.tree.Rwrite", lambda count: Rwrite(count + 100))
    code = "import os; print(os.write(os.open('/data/f', os.O_WRONLY), b'abc'))"
    with made(tmp_path, debian, mounts={"/data": MemoryFileSystem({"/f": b""})}) as sandbox:
        assert sandbox.commands.run(["python3", "-c", code]).stdout == "3\n"


def test_proc_file_is_made_when_it_is_read(sandbox: Sandbox) -> None:
    class Count(ProcFile):
        mode = 0o644
        count = 0

        def show(self) -> str:
            self.count += 1
            return f"{self.count}\n"

        def store(self, data: bytes) -> None:
            self.count = int(data)

    sandbox.add_proc_file("count", Count())
    script = "cat /proc/count /proc/count; echo 40 > /proc/count; cat /proc/count; ls /proc"
    result = sandbox.commands.run(script)
    assert result.stdout.split()[:3] == ["1", "2", "41"]
    assert "count" in result.stdout.split()[3:]
    for name in ("count", "uptime", "self", "7", "a//b", ".", "a/..", "1/x", "net/x"):
        with pytest.raises(SandboxError, match=r"EEXIST|EINVAL"):
            sandbox.add_proc_file(name, Count())


def test_proc_file_may_be_below_folders(sandbox: Sandbox) -> None:
    class Name(ProcFile):
        def __init__(self, text: str) -> None:
            self.text = text

        def show(self) -> str:
            return f"{self.text}\n"

    sandbox.add_proc_file("/proc/sys/my/thing", Name("my"))
    sandbox.add_proc_file("/proc/sys/kernel/other", Name("other"))
    sandbox.add_proc_file("tree/deep/leaf", Name("leaf"))
    sandbox.add_proc_file("tree/leaf", Name("second"))
    shown = sandbox.commands.run(
        "cd /proc; cat sys/my/thing sys/kernel/other tree/deep/leaf tree/leaf; ls sys/my tree;"
        " stat -c '%F %h' tree sys/my/thing; find tree -type f; ls sys/kernel | grep -c '^other$';"
        " cat sys/kernel/ostype; mkdir tree/x || ls tree/nothing"
    )
    assert shown.stdout.split("\n") == [
        "my", "other", "leaf", "second", "sys/my:", "thing", "", "tree:", "deep", "leaf",
        "directory 3", "regular empty file 1", "tree/deep/leaf", "tree/leaf", "1", "Linux", "",
    ]  # fmt: skip
    refused = {
        "tree": "EEXIST", "tree/leaf": "EEXIST", "tree/leaf/x": "ENOTDIR", "uptime/x": "ENOTDIR",
        "sys/kernel": "EEXIST", "sys/kernel/ostype/x": "ENOTDIR", "fs": "EEXIST",
        "sys/net/ipv4/conf/lo/x": "EINVAL", "/".join("x" * 17): "EINVAL",
        "a/" + "x" * 256: "EINVAL",
    }  # fmt: skip
    for path, error in refused.items():
        with pytest.raises(SandboxError, match=error):
            sandbox.add_proc_file(path, Name("no"))


def test_proc_file_that_is_served_anew_is_the_new_one_though_somebody_has_the_old_one_open(
    sandbox: Sandbox,
) -> None:
    class Silent(ProcFile):
        may = threading.Event()

        def show(self) -> str:
            self.may.wait()
            return "old"

    class New(ProcFile):
        def show(self) -> str:
            return "new\n"

    for path in ("mine", "sys/my/thing", "sys/other/thing"):
        sandbox.add_proc_file(path, Silent(), timeout=0.2)
    sandbox.commands.run(
        "exec 3</proc/mine 4</proc/sys/my/thing 5</proc/sys/my; cd /proc/sys/other;"
        " sleep 1000 >/dev/null 2>&1 &"
    )
    for path in ("mine", "sys/my/thing", "sys/other/thing"):
        assert sandbox.commands.run(f"cat /proc/{path}").exit_code == 1
    assert sandbox.commands.run("ls /proc/mine /proc/sys/my /proc/sys/other").stdout == ""
    for path in ("mine", "sys/my/thing", "sys/other"):
        sandbox.add_proc_file(path, New())
    shown = sandbox.commands.run("cd /proc; cat mine sys/my/thing sys/other")
    assert (shown.stdout, shown.stderr) == ("new\n" * 3, "")
    Silent.may.set()


def test_connections_are_handed_over(
    tmp_path: Path, busybox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        tempfile.TemporaryDirectory() as place,
        made(tmp_path, busybox, network="private") as sandbox,
    ):
        monkeypatch.setattr(tempfile, "tempdir", place)
        seen = []

        @sandbox.on_connect("api.internal:80")
        def api(connection: Connection) -> None:
            seen.append(connection.told)
            connection.sendall(b"from outside: " + connection.recv(100))

        run = sandbox.commands.run
        assert run("echo hello | nc api.internal 80").stdout == "from outside: hello\n"
        assert (seen[0].name, seen[0].port, seen[0].uid) == ("api.internal", 80, 0)
        assert run("echo hello | nc -w 1 other.example 80").exit_code
        assert os.listdir(place) == []
        with pytest.raises(ValueError, match="place"):
            sandbox.on_connect("nowhere", api)


def test_honeypot_tells_who_took_the_bait(tmp_path: Path, busybox: Path) -> None:
    taken: list[str] = []
    served = honeypot.Honeypot(taken.append)
    with made(tmp_path, busybox, mounts={"/root/.secrets": served}) as sandbox:
        found = sandbox.commands.run("find /root/.secrets -type f | sort").stdout.split()
        assert [path.removeprefix("/root/.secrets") for path in found] == sorted(honeypot.BAIT)
        assert not taken
        sandbox.commands.run("cat /root/.secrets/ssh/id_ed25519")
        assert taken == ["/ssh/id_ed25519"]


def test_snapshot_of_a_sandbox_with_a_mount_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.mount("/data", MemoryFileSystem())
    with pytest.raises(SandboxError, match="mount"):
        sandbox.create_snapshot(tmp_path / "snapshot")


def test_fork_has_nothing_of_what_is_served(tmp_path: Path, busybox: Path) -> None:
    with made(tmp_path, busybox, forkable=True) as sandbox:
        sandbox.mount("/data", MemoryFileSystem({"/f": b"x"}))
        sandbox.clock.freeze()
        fork = sandbox.fork()[0]
        assert "Input/output error" in fork.commands.run("cat /data/f").stderr
        assert sandbox.commands.run("cat /data/f").stdout == "x"
        fork.clock.advance("1 day")
        assert (fork.clock.now() - sandbox.clock.now()).days == 1
        fork.kill()
