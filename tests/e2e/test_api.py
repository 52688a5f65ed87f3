"""The Python API over real sandboxes: commands, their limits, terminals, files."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from runsc import (
    AsyncSandbox,
    CommandNotStarted,
    CpuLimitExceeded,
    EgressLimitExceeded,
    LimitExceeded,
    Limits,
    MemoryLimitExceeded,
    Mount,
    OutputLimitExceeded,
    ProcessLimitExceeded,
    Sandbox,
    SandboxError,
    Size,
    TimeLimitExceeded,
    WriteLimitExceeded,
)
from tests.e2e.bundle import Bundle, kvm_is_usable
from tests.e2e.sandboxes import FLAGS, MEMORY, made, noted, wait_until_idle

SPIN = "while :; do :; done"
GROW = """awk 'BEGIN { for (;;) a[i++] = sprintf("%1000s", "") }'"""
needs_kvm = pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")


@pytest.fixture
def sandbox(tmp_path: Path, busybox: Path, platform: str) -> Iterator[Sandbox]:
    with made(tmp_path, busybox, platform) as found:
        yield found
    assert noted(tmp_path) == []


@pytest.fixture
def on_kvm(tmp_path: Path, busybox: Path) -> Iterator[Sandbox]:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    with made(tmp_path, busybox) as found:
        yield found


# --- commands


def test_commands_run_as_they_are_asked_for(sandbox: Sandbox) -> None:
    run = sandbox.commands.run
    result = run("echo out; echo err >&2; exit 42")
    assert (result.exit_code, result.stdout, result.stderr) == (42, "out\n", "err\n")
    assert run("kill -9 $$").exit_code == 137
    result = run("pwd; echo $A; id -u; id -g", cwd="/tmp", env={"A": "b c"}, user="1000:1001")
    assert result.stdout.split("\n")[:4] == ["/tmp", "b c", "1000", "1001"]
    assert run(["echo", "a  b"]).stdout == "a  b\n"
    assert run("wc -c", stdin=b"x" * 100_000).stdout.strip() == "100000"
    assert run("env").stdout.count("\n") < 8
    with pytest.raises(CommandNotStarted, match="not found"):
        run(["no-such-program"])


def test_usage_is_that_of_all_that_came_of_a_command(sandbox: Sandbox) -> None:
    usage = sandbox.commands.run("(head -c 100000 /dev/zero > /x; true) & wait").usage

    assert usage.written >= 100_000
    assert usage.processes >= 2
    assert usage.cpu > 0
    assert usage.memory >= 4096
    assert usage.wall > 0
    stats = sandbox.stats()
    assert stats.processes == 1
    assert stats.memory_limit == MEMORY


def test_what_a_command_leaves_goes_on_unless_it_has_limits(sandbox: Sandbox) -> None:
    run = sandbox.commands.run
    left = run("sleep 1000 & echo $!").stdout.strip()
    assert run(f"kill -0 {left}").exit_code == 0
    assert sandbox.stats().processes == 2
    run("sleep 1000 & echo $!", limits=Limits(processes=50))
    assert sandbox.stats().processes == 2


@pytest.mark.parametrize(
    ("command", "timeout", "limits", "kind"),
    [
        ("sleep 1000 & sleep 1000", 0.3, Limits(), TimeLimitExceeded),
        (f"({SPIN}) & {SPIN}", None, Limits(cpu=0.3), CpuLimitExceeded),
        (GROW, None, Limits(memory=32 << 20), MemoryLimitExceeded),
        ("for i in 1 2 3 4 5 6; do sleep 1000 & done; wait", None, Limits(processes=4),
         ProcessLimitExceeded),
        ("cat /dev/zero > /x", None, Limits(written=1 << 20), WriteLimitExceeded),
        ("yes", None, Limits(output=1 << 16), OutputLimitExceeded),
    ],
    ids=["time", "cpu", "memory", "processes", "written", "output"],
)  # fmt: skip
def test_a_limit_ends_a_command_and_all_that_it_has_started(
    sandbox: Sandbox, command: str, timeout: float | None, limits: Limits,
    kind: type[LimitExceeded],
) -> None:  # fmt: skip
    with pytest.raises(kind) as raised:
        sandbox.commands.run(command, timeout=timeout, limits=limits)

    assert raised.value.used >= raised.value.limit > 0
    assert raised.value.result.exit_code == 137
    assert sandbox.stats().processes == 1
    assert sandbox.commands.run("echo on").stdout == "on\n"


def test_a_limit_is_not_left_by_root_inside(on_kvm: Sandbox) -> None:
    escape = "mkdir /c; mount -t cgroup2 none /c; echo $$ > /c/cgroup.procs; setsid sleep 1000"
    with pytest.raises(TimeLimitExceeded):
        on_kvm.commands.run(f"({escape}) & {escape}; sleep 1000", timeout=0.5)
    assert on_kvm.stats().processes == 1


@needs_kvm
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_bytes_that_leave_are_counted_and_bounded(tmp_path: Path, busybox: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        made(tmp_path, busybox, network="host") as sandbox,
    ):
        taker = threading.Thread(target=take, args=(server, 1000))
        taker.start()
        send = f"head -c %d /dev/zero | nc 127.0.0.1 {server.getsockname()[1]}"
        assert sandbox.commands.run(send % 1000).usage.egress == 1000
        taker.join()

        taker = threading.Thread(target=take, args=(server, 1 << 40))
        taker.start()
        with pytest.raises(EgressLimitExceeded) as raised:
            sandbox.commands.run(send % (1 << 30), limits=Limits(egress=1 << 20))
        taker.join()
        assert raised.value.used > 1 << 20
        assert sandbox.commands.run("head -c 1000 /dev/zero > /x").usage.egress == 0


def take(server: socket.socket, size: int) -> None:
    """So many bytes of a connection, or all that come."""
    sock, _ = server.accept()
    with sock, suppress(ConnectionResetError):
        while size > 0 and (data := sock.recv(1 << 16)):
            size -= len(data)


def test_handles_stream_and_kill(sandbox: Sandbox) -> None:
    with sandbox.commands.run("while read l; do echo got $l; done", background=True) as handle:
        lines = handle.stdout.lines()
        for word in ("one", "two"):
            handle.send_stdin(f"{word}\n")
            assert next(lines) == f"got {word}"
        handle.close_stdin()
        assert handle.wait().exit_code == 0
    handle = sandbox.commands.run("sleep 1000 & sleep 1000", background=True)
    handle.kill()
    assert handle.wait().exit_code == 137
    assert sandbox.stats().processes == 1
    sandbox.commands.run("sleep 1000 & sleep 1000", background=True).close()
    wait_until_idle(sandbox)


def test_who_does_not_read_stops_the_program_alone(on_kvm: Sandbox) -> None:
    with on_kvm.commands.run(["yes"], background=True) as handle:
        assert on_kvm.commands.run("echo on").stdout == "on\n"
        first = next(iter(handle.stdout))
        assert 0 < len(first) <= 2 << 20
        before = on_kvm.stats().user
        assert on_kvm.commands.run("sleep 0.3").exit_code == 0
        assert on_kvm.stats().user - before < 0.2  # the pipe is full


def test_a_terminal_shows_takes_and_changes_its_size(sandbox: Sandbox) -> None:
    shown = bytearray()
    command = "stty size; read a; stty size; echo got $a; exit 4"
    with sandbox.pty.create(command, size=Size(30, 100)) as shell:
        for data in shell:
            shown += data
            if b"30 100" in shown and b"typed" not in shown:
                shell.resize(Size(40, 50))
                shell.send_stdin("typed\n")
        assert shell.wait().exit_code == 4
    assert b"40 50" in shown and b"got typed" in shown

    heard: list[bytes] = []
    result = sandbox.pty.create("tty; echo end", on_data=heard.append).wait()
    assert (result.exit_code, result.stdout) == (0, "")
    assert b"/dev/pts/" in b"".join(heard) and b"end" in b"".join(heard)


# --- files


def test_files_are_those_of_the_sandbox(sandbox: Sandbox, tmp_path: Path) -> None:
    files = sandbox.files
    files.write("/made/a/f", "text ä\n")
    assert sandbox.commands.run("cat /made/a/f").stdout == "text ä\n"
    sandbox.commands.run("chmod 600 /made/a/f; ln -s f /made/a/link; mkfifo /made/fifo")
    assert files.read("made/a/link") == "text ä\n"
    entry = files.stat("/made/a/f")
    assert (entry.type, entry.mode, entry.size, entry.uid) == ("file", 0o600, 8, 0)
    assert files.stat("/made/a/link", follow=False).target == "f"
    names = {entry.path: entry.type for entry in files.list("/made", depth=2)}
    assert names == {
        "/made/a": "dir", "/made/a/f": "file", "/made/a/link": "link", "/made/fifo": "fifo",
    }  # fmt: skip
    assert files.make_dir("/made/b/c") and not files.make_dir("/made/b/c")
    files.rename("/made/a/f", "/made/b/c/g")
    assert files.exists("/made/b/c/g") and not files.exists("/made/a/link")
    with pytest.raises(FileNotFoundError):
        files.read("/made/a/link")
    with pytest.raises(IsADirectoryError):
        files.write("/made/b", "x")
    files.remove("/made")
    assert not files.exists("/made")


def test_no_link_leads_to_the_host(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    sandbox.commands.run(f"ln -s {tmp_path}/secret /link; ln -s {tmp_path} /folder")
    with pytest.raises(FileNotFoundError):
        sandbox.files.read("/link")
    with pytest.raises(OSError):
        sandbox.files.write("/folder/made/x", "x")
    assert os.listdir(tmp_path / "state") != []
    assert not (tmp_path / "made").exists()


def test_rights_are_those_of_who_is_named(sandbox: Sandbox) -> None:
    sandbox.files.write("/f", "x", mode=0o600)
    with pytest.raises(PermissionError):
        sandbox.files.read("/f", user=1000)
    assert sandbox.files.read("/f") == "x"
    sandbox.commands.run("mkdir /theirs; chown 1000:1000 /theirs")
    sandbox.files.write("/theirs/f", "y", user="1000:1000")
    assert sandbox.files.stat("/theirs/f").uid == 1000
    assert sandbox.commands.run("id -un", user="root").stdout == "root\n"
    sandbox.commands.run("rm /etc/passwd; mkfifo /etc/passwd")
    with (
        sandbox.commands.run("exec 3<>/etc/passwd; sleep 1000", background=True),
        pytest.raises(SandboxError, match="/etc/passwd: Invalid argument"),
    ):
        sandbox.commands.run("id -un", user="root")


def test_what_has_changed_is_told(sandbox: Sandbox) -> None:
    assert sandbox.files.diff() == []
    sandbox.commands.run("echo x >> /etc/passwd; rm /etc/group; mkdir /new; echo y > /new/f")
    found = {change.path: (change.change, change.type) for change in sandbox.files.diff()}

    assert found == {
        "/etc/passwd": ("modified", "file"),
        "/etc/group": ("removed", "unknown"),
        "/new": ("added", "dir"),
        "/new/f": ("added", "file"),
    }


def test_a_folder_is_watched(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("/d")
    with sandbox.files.watch_dir("/d") as watch:
        sandbox.commands.run("echo 1 > /d/a; mv /d/a /d/b; mkdir /d/c; rm /d/b")
        found = []
        while ("remove", "b") not in found:
            found += [(event.type, event.name) for event in watch.get_new_events(timeout=30)]
    assert {("create", "a"), ("write", "a"), ("rename", "a"), ("rename", "b")} <= set(found)
    assert ("create", "c") in found


def test_trees_go_in_and_come_out(sandbox: Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "sub" / "deep").mkdir(parents=True)
    (source / "program").write_text("#!/bin/sh\necho ran\n")
    (source / "program").chmod(0o755)
    (source / "sub" / "deep" / "data").write_bytes(os.urandom(3 << 20))
    sandbox.files.upload(source, "/up")
    assert sandbox.commands.run("/up/program").stdout == "ran\n"
    sandbox.commands.run("ln -s /etc /up/link; chmod 4711 /up/program")
    sandbox.files.download("/up", tmp_path / "out")

    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")}
    assert found == {"program", "sub", "sub/deep", "sub/deep/data"}
    data = (tmp_path / "out" / "sub" / "deep" / "data").read_bytes()
    assert data == (source / "sub" / "deep" / "data").read_bytes()
    assert stat.S_IMODE((tmp_path / "out" / "program").stat().st_mode) == 0o711


# --- what it is made of


@needs_kvm
def test_a_sandbox_is_made_as_it_is_asked_for(tmp_path: Path, busybox: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "f").write_text("host\n")
    mounts = {"/ro": str(shared), "/rw": Mount(str(shared), readonly=False)}
    with made(
        tmp_path, busybox, mounts=mounts, env={"A": "b"}, cpus=1, user=1000, readonly=True
    ) as sandbox:
        run = sandbox.commands.run
        assert run("cat /ro/f; echo $A; id -u; nproc").stdout.split() == ["host", "b", "1000", "1"]
        assert run("touch /ro/x", user=0).exit_code != 0
        assert run("touch /x", user=0).exit_code != 0
        assert run("echo new > /rw/g", user=0).exit_code == 0
        for text in ("first", "second"):
            sandbox.files.write("/rw/h", text, user=0)
            assert (shared / "h").read_text() == text
        assert run("grep -c : /proc/net/dev").stdout == "1\n"
        info = sandbox.info()
        found = info.status, info.root, info.detached
        assert found == ("running", os.path.realpath(busybox), False)
    assert (shared / "g").read_text() == "new\n"
    assert not (shared / "x").exists()


@needs_kvm
def test_a_bundle_says_root_environment_and_user(tmp_path: Path, bundle: Bundle) -> None:
    bundle.document["process"]["user"] = {"uid": 7, "gid": 8}
    bundle.document["process"]["env"] = ["PATH=/bin:/usr/bin", "FROM=bundle"]
    bundle.write()
    state = tmp_path / "state"
    with Sandbox.create(bundle=bundle.path, state=state, flags=FLAGS, env={"A": "b"}) as sandbox:
        result = sandbox.commands.run("id -u; id -g; echo $FROM $A")
        assert result.stdout.split() == ["7", "8", "bundle", "b"]


@needs_kvm
def test_what_cannot_be_made_says_why(tmp_path: Path, busybox: Path) -> None:
    with pytest.raises(SandboxError, match="invalid rootfs"):
        made(tmp_path, tmp_path / "none")
    with pytest.raises(SandboxError, match="no such file or directory"):
        made(tmp_path, busybox, mounts={"/x": str(tmp_path / "none")})
    with pytest.raises(SandboxError, match="is less than 64M"):
        made(tmp_path, busybox, memory=1 << 20)
    with pytest.raises(ValueError, match="root, bundle or image"):
        Sandbox.create(root="/", bundle="/")
    with pytest.raises(SandboxError, match="invalid container ID"):
        made(tmp_path, busybox, sandbox_id="a/b")
    with made(tmp_path, busybox, sandbox_id="x"), pytest.raises(SandboxError, match="exists"):
        made(tmp_path, busybox, sandbox_id="x")
    assert noted(tmp_path) == []


@needs_kvm
def test_threads_make_sandboxes_at_once(tmp_path: Path, busybox: Path) -> None:
    found: dict[int, str] = {}
    mask = os.umask(0o022)
    os.umask(mask)

    def one(number: int) -> None:
        with made(tmp_path, busybox) as sandbox:
            found[number] = sandbox.commands.run(f"echo {number}").stdout

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == {number: f"{number}\n" for number in range(6)}
    assert os.umask(mask) == mask
    assert noted(tmp_path) == []


@needs_kvm
def test_asyncio_has_the_same(tmp_path: Path, busybox: Path) -> None:
    async def one(number: int) -> str:
        async with await AsyncSandbox.create(
            root=busybox, state=tmp_path / "state", flags=FLAGS, memory=MEMORY
        ) as sandbox:
            await sandbox.files.write("/f", str(number))
            results = await asyncio.gather(*(sandbox.commands.run("cat /f") for _ in range(5)))
            async with await sandbox.commands.run("cat", background=True) as handle:
                await handle.send_stdin("in")
                handle.close_stdin()
                assert [data async for data in handle.stdout] == [b"in"]
            async with await sandbox.files.watch_dir("/") as watch:
                await sandbox.commands.run("mkdir /made")
                assert (await anext(watch)).name == "made"
            with pytest.raises(TimeLimitExceeded):
                await sandbox.commands.run("sleep 100", timeout=0.2)
            return "".join(result.stdout for result in results)

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*map(one, range(3)))

    assert asyncio.run(all_of_them()) == ["00000", "11111", "22222"]
    assert noted(tmp_path) == []
