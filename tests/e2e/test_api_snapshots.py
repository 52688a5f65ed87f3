"""Snapshots by the Python API: a sandbox goes on in others, with what ran and was written in it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc import AsyncSandbox, Mount, Sandbox, SandboxError
from runsc.api.blocking.serving import Connection
from runsc.containers import snapshots
from runsc.fs import MemoryFileSystem, ProcFile
from tests.e2e import sandboxes
from tests.e2e.bundle import TIMEOUT_S, kvm_is_usable
from tests.e2e.sandboxes import FLAGS

pytestmark = pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")
MUCH = 8 << 20
SERVER = "n=0; while read line; do n=$((n+1)); echo $n $line >/tmp/answer; done <>/tmp/ask"


@pytest.fixture
def warm(tmp_path: Path, busybox: Path) -> Iterator[Sandbox]:
    """One with a server in it, which counts what it is asked."""
    with sandboxes.made(tmp_path, busybox) as sandbox:
        sandbox.files.make_dir("/tmp")
        sandbox.commands.run("mkfifo /tmp/ask /tmp/answer")
        sandbox.commands.run(f"setsid sh -c '{SERVER}' >/dev/null 2>&1 </dev/null &")
        yield sandbox


def ask(sandbox: Sandbox, word: str) -> str:
    command = f"echo {word} >/tmp/ask; cat /tmp/answer"
    return sandbox.commands.run(command, timeout=TIMEOUT_S).stdout.strip()


def test_a_snapshot_goes_on_in_others_and_so_does_the_first(warm: Sandbox, tmp_path: Path) -> None:
    assert ask(warm, "first") == "1 first"
    warm.files.write("/root/note", "written")
    snapshot = warm.create_snapshot(tmp_path / "image")
    assert ask(warm, "here") == "2 here"
    warm.files.write("/root/note", "later")
    state = tmp_path / "state"
    for word in ("one", "two"):
        with Sandbox.restore(snapshot, state=state) as other:
            assert ask(other, word) == f"2 {word}"
            assert other.files.read("/root/note") == "written"
            assert other.commands.run("hostname").stdout == warm.commands.run("hostname").stdout
    assert ask(warm, "again") == "3 again"


def test_a_snapshot_outlives_its_sandbox_and_may_be_made_of_a_restored_one(
    warm: Sandbox, tmp_path: Path
) -> None:
    warm.create_snapshot(tmp_path / "image")
    warm.kill()
    state = tmp_path / "state"
    with Sandbox.restore(tmp_path / "image", state=state, detach=True) as other:
        found = Sandbox.connect(other.sandbox_id, state=state)
        assert ask(found, "x") == "1 x"
        found.create_snapshot(tmp_path / "second")
        found.kill()
    with Sandbox.restore(str(tmp_path / "second"), state=state) as third:
        assert ask(third, "y") == "2 y"


def test_who_asks_hears_how_far_a_restore_is(warm: Sandbox, tmp_path: Path) -> None:
    snapshot = warm.create_snapshot(tmp_path / "image")
    heard: list[tuple[str, int, int]] = []
    with Sandbox.restore(
        snapshot, state=tmp_path / "state", progress=lambda *told: heard.append(told)
    ):
        pass

    assert {what for what, _, _ in heard} == {"reading memory"}
    assert all(0 <= done <= total for _, done, total in heard)
    assert heard[-1][1] == heard[-1][2] > 0


def test_a_second_snapshot_builds_on_the_first(warm: Sandbox, tmp_path: Path) -> None:
    warm.files.write("/root/much", os.urandom(MUCH))
    first = warm.create_snapshot(tmp_path / "first")
    assert ask(warm, "here") == "1 here"
    second = warm.create_snapshot(tmp_path / "second", parent=first)
    sizes = [(tmp_path / name / "pages").stat().st_size for name in ("first", "second")]
    assert sizes[1] < MUCH <= sizes[0]
    with Sandbox.restore(second, state=tmp_path / "state") as other:
        assert ask(other, "there") == "2 there"
    with pytest.raises(SandboxError, match="not the last snapshot"):
        warm.create_snapshot(tmp_path / "third", parent=first)


SCATTERED = """
BEGIN {
    srand(1)
    for (i = 0; i < 40000; i++) kept[i] = i
    print "ready"; fflush()
    while ((getline many) > 0) {
        for (i = 0; i < many; i++) kept[int(rand() * 40000)] = rand()
        print "done"; fflush()
    }
}"""


def pages(folder: Path) -> bytes:
    """All of a snapshot's, in their order, from it and those that it builds on."""
    layers, at = [folder], snapshots.read(str(folder))
    origins = at.origins
    while at.parent is not None:
        layers.insert(0, layers[0] / at.parent.path)
        at = snapshots.read(str(layers[0]))
    files = [(each / "pages").read_bytes() for each in layers]
    parts = [files[layer][first << 12 : first + count << 12] for layer, first, count in origins]
    return b"".join(parts)


def test_what_builds_on_another_has_what_one_by_itself_has(tmp_path: Path, busybox: Path) -> None:
    with sandboxes.made(tmp_path, busybox) as sandbox:
        sandbox.files.make_dir("/tmp")
        sandbox.files.write("/tmp/much", os.urandom(MUCH))
        with sandbox.commands.run(["awk", SCATTERED], background=True) as awk:
            lines = awk.stdout.lines()
            assert next(lines) == "ready"
            whole = sandbox.create_snapshot(tmp_path / "whole")
            for at, many in enumerate((1, 30, 0, 2000, 5, 20)):
                awk.send_stdin(f"{many}\n")
                assert next(lines) == "done"
                seek = 100 * at + 7
                sandbox.commands.run(
                    f"dd if=/dev/urandom of=/tmp/much bs=4000 count=3 seek={seek} conv=notrunc"
                )
                sandbox.pause()
                delta = sandbox.create_snapshot(tmp_path / f"delta{at}", parent=whole)
                whole = sandbox.create_snapshot(tmp_path / f"whole{at}")
                sandbox.resume()
                found = pages(tmp_path / f"delta{at}")
                assert found == pages(tmp_path / f"whole{at}")
                assert (tmp_path / f"delta{at}" / "pages").stat().st_size < len(found) // 2
            assert delta.path.endswith("delta5")


@pytest.mark.parametrize("detach", [False, True])
def test_rollback_puts_a_sandbox_back_under_its_name(
    detach: bool, tmp_path: Path, busybox: Path
) -> None:
    with sandboxes.made(tmp_path, busybox, detach=detach, timeout=3600) as sandbox:
        sandbox.files.write("/note", "first")
        snapshot = sandbox.create_snapshot(tmp_path / "image")
        name, left = sandbox.sandbox_id, sandbox.info().expires_in
        for background in (False, True):
            sandbox.files.write("/note", "later")
            sandbox.files.write("/other", "x")
            sandbox.rollback(snapshot, background=background)
            assert sandbox.files.read("/note") == "first"
            assert not sandbox.files.exists("/other")
            assert (sandbox.sandbox_id, sandbox.info().detached) == (name, detach)
            assert left is not None and 0 < (sandbox.info().expires_in or 0) <= left
        sandbox.kill()
    sandboxes.wait_until_gone(tmp_path, name)


LAYERED = """
setsid unshare -Urm sh -c 'mount -t tmpfs own /mnt && cd /mnt && mkdir low up work m
echo >low/file
mount -t overlay -o lowerdir=low,upperdir=up,workdir=work,userxattr own m || exit
echo first >m/file
while :; do cat m/file up/file >/told; test -e /change && echo second >m/file
sleep 0.01; done' >/dev/null 2>&1 </dev/null &
"""


def test_rollback_puts_back_what_was_written_to_an_overlay(tmp_path: Path, busybox: Path) -> None:
    with sandboxes.made(tmp_path, busybox, timeout=3600) as sandbox:

        def told(word: str) -> bool:
            deadline = time.monotonic() + TIMEOUT_S
            while sandbox.commands.run("cat /told").stdout != f"{word}\n{word}\n":
                if time.monotonic() > deadline:
                    return False
            return True

        sandbox.commands.run(LAYERED)
        assert told("first")
        snapshot = sandbox.create_snapshot(tmp_path / "image")
        for _ in range(2):
            sandbox.files.write("/change", "")
            assert told("second")
            sandbox.rollback(snapshot)
            sandbox.commands.run("rm /told")
            assert told("first")


def test_who_uses_a_sandbox_goes_on_with_it_after_a_rollback(
    tmp_path: Path, busybox: Path
) -> None:
    """It begins again on the host: what is known of it, and where it is, is as before."""
    (tmp_path / "data").mkdir()
    mounts = {"/data": Mount(str(tmp_path / "data"), readonly=False)}
    with sandboxes.made(tmp_path, busybox, mounts=mounts, env={"A": "b"}) as sandbox:
        snapshot = sandbox.create_snapshot(tmp_path / "image")
        other = Sandbox.connect(sandbox.sandbox_id, state=tmp_path / "state")
        running = sandbox.commands.run("echo begun; sleep 1000", background=True)
        assert running.stdout.read() == b"begun\n"
        limit, hostname = sandbox.stats().memory_limit, other.commands.run("hostname").stdout
        sandbox.rollback(snapshot)
        with pytest.raises(SandboxError):
            running.wait()
        running.close()
        for each in (sandbox, other):
            assert each.commands.run("hostname; echo $A; ps").stdout.startswith(f"{hostname}b\n")
            assert "sleep 1000" not in each.commands.run("ps").stdout
            assert each.stats().memory_limit == limit
            each.files.write("/data/word", each.sandbox_id)
        assert (tmp_path / "data/word").read_text() == sandbox.sandbox_id
        assert sandboxes.noted(tmp_path) == [sandbox.sandbox_id]


class Told(ProcFile):
    def show(self) -> str:
        return "told\n"


EGRESS = 'default = "deny"\nlimits = { connections = 2 }\n'
DENIES = """
from runsc.policy import on, DENY

@on("openat", path="/note")
def reads(event):
    return DENY
"""


def test_rollback_leaves_a_sandbox_its_policies_and_what_is_used_of_them(
    tmp_path: Path, busybox: Path
) -> None:
    with sandboxes.made(tmp_path, busybox, network="private", egress=EGRESS) as sandbox:

        @sandbox.on_connect("api.internal:80")
        def api(connection: Connection) -> None:
            connection.sendall(b"from outside: " + connection.recv(100))

        run = sandbox.commands.run
        sandbox.files.write("/note", "text")
        snapshot = sandbox.create_snapshot(tmp_path / "image")
        sandbox.policy.load(DENIES)
        for _ in range(2):
            assert run("echo hello | nc api.internal 80").stdout == "from outside: hello\n"
            sandbox.rollback(snapshot)
            assert "not permitted" in run("cat /note").stderr
        assert run("echo hello | nc -w 1 api.internal 80").exit_code  # it would be the third
        sandbox.policy.load(None)
        sandbox.rollback(snapshot)
        assert run("cat /note").stdout == "text"


def test_rollback_leaves_a_sandbox_what_is_served_and_its_faults(
    tmp_path: Path, busybox: Path
) -> None:
    files = MemoryFileSystem({"/file": b"served\n"})
    fault = "openat: errno=EIO, path=/note, after=1, count=1"
    with sandboxes.made(tmp_path, busybox, flags=(*FLAGS, f"--inject={fault}")) as sandbox:
        sandbox.files.write("/note", "")
        run = sandbox.commands.run
        snapshot = sandbox.create_snapshot(tmp_path / "image")
        sandbox.mount("/data", files)
        sandbox.add_proc_file("told", Told())
        sandbox.inject(fault, "openat: errno=EACCES, path=/etc/hosts")
        assert run("cat /note; cat /note").stderr
        for _ in range(2):
            sandbox.rollback(snapshot)
            assert run("cat /data/file /proc/told").stdout == "served\ntold\n"
            assert [(each.fitted, each.injected) for each in sandbox.faults()] == [(2, 1), (0, 0)]
        assert not run("cat /note; cat /note").stderr
        sandbox.inject()
        sandbox.unmount("/data")
        sandbox.rollback(snapshot)
        assert sandbox.faults() == []
        assert run("ls /data").exit_code and run("cat /proc/told").stdout == "told\n"


def test_a_restored_one_has_what_was_decided_by_then(tmp_path: Path, busybox: Path) -> None:
    state = tmp_path / "state"
    with sandboxes.made(
        tmp_path, busybox, network="private", egress=EGRESS, policy=DENIES
    ) as sandbox:
        sandbox.files.write("/note", "text")
        sandbox.files.write("/other", "text")
        sandbox.policy.load(DENIES.replace("/note", "/other"))
        sandbox.inject("openat: errno=EIO, path=/etc/hosts")
        sandbox.on_connect("api.internal:80", lambda it: it.sendall(b"first " + it.recv(9)))
        after = sandbox.create_snapshot(tmp_path / "after")
        sandbox.policy.load(None)
        later = sandbox.create_snapshot(tmp_path / "later")
    found = []
    for snapshot in (after, later):
        with Sandbox.restore(snapshot, state=state) as other:
            files = [other.commands.run(f"cat {path}").exit_code for path in ("/note", "/other")]
            found.append((files, len(other.faults())))
            asks = "echo line | nc api.internal 80"
            assert other.commands.run(asks).exit_code  # who served it is not there
            other.on_connect("api.internal:80", lambda it: it.sendall(b"second " + it.recv(9)))
            assert other.commands.run(asks).stdout == "second line\n"
    assert found == [([0, 1], 1), ([0, 0], 1)]


def test_rollback_of_a_sandbox_that_could_not_begin_again_leaves_it(
    tmp_path: Path, busybox: Path
) -> None:
    with sandboxes.made(tmp_path, busybox, network="private") as sandbox:
        snapshot = sandbox.create_snapshot(tmp_path / "image")
        other = Sandbox.connect(sandbox.sandbox_id, state=tmp_path / "state")
        other.on_connect("api.internal:80", lambda _: None)
        with pytest.raises(SandboxError, match="a broker that is gone"):
            sandbox.rollback(snapshot)
        assert sandbox.commands.run("echo lives").stdout == "lives\n"
        other.rollback(snapshot)  # who serves it can
        other.kill()


def test_rollback_to_what_does_not_fit_leaves_the_sandbox(
    warm: Sandbox, tmp_path: Path, busybox: Path
) -> None:
    with sandboxes.made(tmp_path / "other", busybox, env={"A": "b"}) as other:
        foreign = other.create_snapshot(tmp_path / "foreign")
    for path, why in ((foreign, "with other arguments"), (tmp_path / "nothing", "is no snapshot")):
        with pytest.raises(SandboxError, match=why):
            warm.rollback(path)
    assert ask(warm, "lives") == "1 lives"


def test_what_cannot_be_is_said(warm: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="is no snapshot"):
        Sandbox.restore(tmp_path / "nothing", state=tmp_path / "state")
    warm.create_snapshot(tmp_path / "image")
    with pytest.raises(SandboxError, match="has a snapshot already"):
        warm.create_snapshot(tmp_path / "image")
    (tmp_path / "image" / "objects.json").write_bytes(b"{}")
    with pytest.raises(SandboxError, match="ends early"):
        Sandbox.restore(tmp_path / "image", state=tmp_path / "state")
    assert ask(warm, "lives") == "1 lives"


def test_asyncio_has_the_same(warm: Sandbox, tmp_path: Path) -> None:
    async def both() -> list[str]:
        first = await AsyncSandbox.connect(warm.sandbox_id, state=tmp_path / "state")
        snapshot = await first.create_snapshot(tmp_path / "image")
        began = time.monotonic()
        found = []
        async with await AsyncSandbox.restore(snapshot, state=tmp_path / "state") as other:
            done = await other.commands.run("echo word >/tmp/ask; cat /tmp/answer")
            found.append(done.stdout)
        assert time.monotonic() - began < TIMEOUT_S
        return found

    assert asyncio.run(both()) == ["1 word\n"]
