"""checkpoint and restore: a program goes on where it was; what cannot be is said by its name."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.abi.test_abi import compile_program, with_everything
from tests.e2e.bundle import REPOSITORY, RUNSC, TIMEOUT_S, Bundle, Result, execute
from tests.full.roundtrip import RoundTrip
from tests.unit.fs.erofs.images import Builder, directory, file

COUNTER = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"
"""Shell: each line is one more than the one before."""


class Machine:
    """Containers of one test."""

    def __init__(self, folder: Path, busybox: Path, platform: str) -> None:
        self.folder = folder
        self.image = folder / "image"
        self.flags = [f"--root={folder}/state", f"--platform={platform}", "--network=none"]
        self._busybox = busybox
        self._running: list[subprocess.Popen[bytes]] = []

    def bundle(self, script: str, name: str = "bundle") -> Bundle:
        """One that runs a script of the shell."""
        made = Bundle(self.folder / name, self._busybox).args("sh", "-c", script)
        made.document["mounts"].append({"destination": "/mem", "type": "tmpfs"})
        made.document["root"]["readonly"] = False
        made.write()
        return made

    def run(self, *words: str) -> Result:
        """A command to its end."""
        return execute([*RUNSC, *self.flags, *words])

    def begin(self, *words: str) -> Path:
        """A command that goes on; where its output goes."""
        out = self.folder / f"out{len(self._running)}"
        with open(out, "wb") as file:
            command = [*RUNSC, *self.flags, *words]
            self._running.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
            )
        return out

    def ended(self, which: int = -1) -> int:
        """The exit code of one of them."""
        return self._running[which].wait(TIMEOUT_S)

    def checkpoint(self, name: str, *flags: str) -> Result:
        """Write it."""
        return self.run("checkpoint", f"--image-path={self.image}", *flags, name)

    def restore(self, bundle: Bundle, name: str) -> Result:
        """Read it, and stay to its end."""
        return self.run("restore", f"--image-path={self.image}", f"--bundle={bundle.path}", name)

    def close(self) -> None:
        """Nothing is left."""
        for name in os.listdir(self.folder / "state") if (self.folder / "state").exists() else ():
            if not name.startswith("."):
                self.run("delete", "--force", name)
        for each in self._running:
            each.kill()
            each.wait()


@pytest.fixture
def machine(tmp_path: Path, busybox: Path, platform: str) -> Iterator[Machine]:
    made = Machine(tmp_path, busybox, platform)
    yield made
    made.close()


def wait_for(out: Path, lines: int) -> list[str]:
    """So many lines have come."""
    deadline = time.monotonic() + TIMEOUT_S
    while len(found := out.read_text().split("\n")[:-1]) < lines:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def test_checkpoint_counter_goes_on(machine: Machine) -> None:
    bundle = machine.bundle(COUNTER)
    before = machine.begin("run", f"--bundle={bundle.path}", "a")
    wait_for(before, 5)
    done = machine.checkpoint("a")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert machine.ended() == 137
    told = [int(line) for line in before.read_text().split()]
    after = machine.begin(
        "restore", f"--image-path={machine.image}", f"--bundle={bundle.path}", "b"
    )
    wait_for(after, 5)
    told += [int(line) for line in wait_for(after, 5)]
    assert told == list(range(1, len(told) + 1))


def test_checkpoint_keeps_what_programs_have_written_below_proc_sys(machine: Machine) -> None:
    """Limits that there is more of than they allow, too."""
    values = {"fs/mount-max": 1, "kernel/pid_max": 1000, "vm/overcommit_kbytes": 9_000_000}
    sets = "; ".join(f"echo {value} >/proc/sys/{name}" for name, value in values.items())
    show = "; ".join(f"cat /proc/sys/{name}" for name in (*values, "vm/overcommit_ratio"))
    bundle = machine.bundle(f"{sets}; while :; do echo $({show}); sleep 0.1; done")
    bundle.document["linux"]["readonlyPaths"] = []
    bundle.write()
    wait_for(machine.begin("run", f"--bundle={bundle.path}", "a"), 1)
    done = machine.checkpoint("a")
    assert (done.returncode, done.stderr) == (0, "")

    image = f"--image-path={machine.image}"
    after = machine.begin("restore", image, f"--bundle={bundle.path}", "b")

    assert wait_for(after, 2)[1] == "1 1000 9000000 0"


def test_checkpoint_leave_running_goes_on_and_can_be_restored_often(machine: Machine) -> None:
    bundle = machine.bundle(COUNTER)
    out = machine.begin("run", f"--bundle={bundle.path}", "a")
    wait_for(out, 3)
    done = machine.checkpoint("a", "--leave-running")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    written = len(out.read_text().split())
    found = [int(line) for line in wait_for(out, written + 5)]
    assert found == list(range(1, len(found) + 1))
    firsts = []
    for name in ("b", "c"):
        after = machine.begin(
            "restore", f"--image-path={machine.image}", f"--bundle={bundle.path}", name
        )
        firsts.append(wait_for(after, 3)[0])
    assert firsts[0] == firsts[1]


KEPT = """
echo root >/root.txt; mkdir /made; echo here >/mem/here; rm /etc/passwd
exec 4<>/mem/pipe 5>/mem/gone 6</proc/self/status
echo before >&5; rm /mem/gone
(trap 'echo child heard; exit 3' USR1; echo ready; while :; do sleep 0.01; done) & child=$!
trap 'echo heard $child' TERM
read line <&4
echo "$line; $(cat /root.txt /mem/here); $(ls -d /made /etc/passwd 2>/dev/null)"
echo after >&5; cat /proc/$$/fd/5; echo $(ls -l /proc/$$/fd/5 | grep -c deleted)
kill -USR1 $child; wait $child; echo status $?
"""


def test_restore_files_children_and_signals_come_back(machine: Machine) -> None:
    bundle = machine.bundle("mkfifo /mem/pipe; " + KEPT)
    out = machine.begin("run", f"--bundle={bundle.path}", "a")
    assert wait_for(out, 1) == ["ready"]
    done = machine.checkpoint("a")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    detached = machine.begin(
        "restore", f"--image-path={machine.image}", f"--bundle={bundle.path}", "b"
    )
    deadline = time.monotonic() + TIMEOUT_S
    while machine.run("exec", "b", "sh", "-c", "echo word >/mem/pipe").returncode:
        assert time.monotonic() < deadline
    assert machine.ended() == 0, detached.read_text()
    assert detached.read_text().split("\n") == [
        "word; root", "here; /made", "before", "after", "1", "child heard", "status 3", "",
    ]  # fmt: skip


REMOVED = """
stat -c %h /var; exec 3</etc/nsswitch.conf; rm /etc/nsswitch.conf; rmdir /var/tmp; mkfifo /mem/go
echo ready; read line </mem/go; stat -c %h /var; stat -Lc %h /proc/self/fd/3; wc -l <&3
ls /var /etc/nsswitch.conf 2>/dev/null; true
"""


@pytest.mark.parametrize(
    "name",
    ["signals_kept", "ns_kept", "ns_used_kept", "ns_mounts_kept", "files_overlay_kept"],
)
def test_restore_what_a_program_has_asked_for_comes(
    name: str, tmp_path: Path, busybox: Path, platform: str
) -> None:
    """Programs of tests/abi that make some hundred calls between asking and looking."""
    program = compile_program(name, tmp_path)
    bundle = Bundle(tmp_path / "bundle", busybox).args(f"/abi/{name}").configure(with_everything)
    bundle.document["mounts"].append(
        {"destination": f"/abi/{name}", "source": str(program), "options": ["bind", "ro"]}
    )
    trip = RoundTrip(bundle, platform, tmp_path)
    try:
        assert trip.hold(300)
        written = trip.write()
        assert (written.returncode, written.stderr) == (0, ""), written.stderr
        done = trip.read()
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    finally:
        trip.delete()


OWN_MOUNTS = """
exec unshare -Urm sh -c 'mount -t tmpfs own /root && echo own >/root/file && mount --rbind /dev /var
while :; do cat /root/file; sleep 0.01
test ! -e /mem/restored || { umount /proc/sys 2>/dev/null && echo apart || echo whole; }; done'
"""
"""umount(8) has a list of mounts open, with which no container is written: it comes afterwards."""


def test_restore_mounts_of_a_user_namespace_come_back_to_who_has_no_rights(
    machine: Machine,
) -> None:
    bundle = machine.bundle(OWN_MOUNTS)
    bundle.document["process"]["user"] = {"uid": 1000, "gid": 1000}
    bundle.write()
    out = machine.begin("run", f"--bundle={bundle.path}", "a")
    assert wait_for(out, 2)[:2] == ["own", "own"]
    done = machine.checkpoint("a")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    after = machine.begin(
        "restore", f"--image-path={machine.image}", f"--bundle={bundle.path}", "b"
    )
    assert wait_for(after, 3)[:3] == ["own"] * 3
    assert machine.run("exec", "b", "touch", "/mem/restored").returncode == 0
    assert set(wait_for(after, after.read_text().count("\n") + 200)) == {"own", "whole"}


OWN_LIST = """
exec unshare -Urm sh -c 'mount -t tmpfs own /root && exec 4</proc/$$/mounts
while :; do test ! -e /mem/restored && echo waits || { grep ^own <&4; echo ends; }; sleep 0.01
done'
"""


def test_restore_an_open_list_of_mounts_is_of_the_namespace_of_its_process(
    machine: Machine,
) -> None:
    bundle = machine.bundle(OWN_LIST)
    bundle.document["process"]["user"] = {"uid": 1000, "gid": 1000}
    bundle.write()
    out = machine.begin("run", f"--bundle={bundle.path}", "a")
    assert wait_for(out, 1)[0] == "waits"
    done = machine.checkpoint("a")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    after = machine.begin(
        "restore", f"--image-path={machine.image}", f"--bundle={bundle.path}", "b"
    )
    assert wait_for(after, 1)[0] == "waits"
    assert machine.run("exec", "b", "touch", "/mem/restored").returncode == 0
    lines = wait_for(after, after.read_text().count("\n") + 20)
    found = [each for each in lines if each != "waits"]
    assert found[0].startswith("own /root tmpfs ") and set(found[1:]) == {"ends"}


OWN_LAYERS = """
exec unshare -Urm sh -c 'mount -t tmpfs own /root && cd /root && mkdir up work m low
echo less >low/words
mount -t overlay -o lowerdir=low:/etc,upperdir=up,workdir=work,userxattr own m || exit 1
echo own >m/file; echo more >>m/words; exec 3<m/words; rm m/words m/group; read less <&3
while :; do cat m/file; echo $less; ls up; sleep 0.01; done; cat <&3'
"""


def test_restore_an_overlay_of_a_user_namespace_comes_back_to_who_has_no_rights(
    machine: Machine,
) -> None:
    bundle = machine.bundle(OWN_LAYERS)
    bundle.document["process"]["user"] = {"uid": 1000, "gid": 1000}
    bundle.write()
    out = machine.begin("run", f"--bundle={bundle.path}", "a")
    assert wait_for(out, 6)[:5] == ["own", "less", "file", "group", "words"], out.read_text()
    done = machine.checkpoint("a")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "overlay on …/" in machine.run("snapshot", "inspect", str(machine.image)).stdout
    after = machine.begin(
        "restore", f"--image-path={machine.image}", f"--bundle={bundle.path}", "b"
    )
    assert {*wait_for(after, 12)[:12]} == {"own", "less", "file", "group", "words"}


IMAGES = """
import ctypes, os, time
def mount(source, target, kind, flags, data):
    mount_ = ctypes.CDLL(None, use_errno=True).mount
    assert mount_(source, target, kind, flags, data) == 0, ctypes.get_errno()
for name in ("x", "up", "work", "m"):
    os.mkdir("/mem/" + name)
mount(b"/img/image", b"/mem/x", b"erofs", 1, None)
mount(b"it", b"/mem/m", b"overlay", 0, b"lowerdir=/mem/x,upperdir=/mem/up,workdir=/mem/work")
held, inner, before = open("/mem/x/file"), os.stat("/mem/m/dir/inner"), os.stat("/mem/x/file")
with open("/mem/m/file", "a") as file:
    file.write("!")
shown = open("/proc/self/mountinfo").read()
while True:
    held.seek(0)
    now = os.stat("/mem/m/dir/inner")
    assert (now.st_dev, now.st_ino) == (inner.st_dev, inner.st_ino)
    assert os.stat("/mem/x/file") == before and shown == open("/proc/self/mountinfo").read()
    print(held.read(), open("/mem/m/file").read(), open("/mem/m/dir/inner").read(), flush=True)
    time.sleep(0.01)
"""


def test_restore_an_image_and_an_overlay_over_it_come_back(
    tmp_path: Path, debian: Path, platform: str
) -> None:
    (tmp_path / "img").mkdir()
    top = directory({b"file": file(b"text"), b"dir": directory({b"inner": file(b"inner")})})
    (tmp_path / "img" / "image").write_bytes(Builder(top).build())
    machine = Machine(tmp_path, debian, platform)
    bundle = machine.bundle("").args("python3", "-c", IMAGES).configure(with_everything)
    bundle.document["mounts"].append(
        {"destination": "/img", "source": str(tmp_path / "img"), "options": ["bind", "ro"]}
    )
    bundle.write()
    try:
        out = machine.begin("run", f"--bundle={bundle.path}", "a")
        assert wait_for(out, 2)[0] == "text text! inner"
        done = machine.checkpoint("a")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        after = machine.begin(
            "restore", f"--image-path={machine.image}", f"--bundle={bundle.path}", "b"
        )
        assert wait_for(after, 3)[:3] == ["text text! inner"] * 3
    finally:
        machine.close()


def test_restore_what_was_removed_of_the_root_stays_away(machine: Machine) -> None:
    """Directories below which one was removed have a link less, open files without a name none."""
    bundle = machine.bundle(REMOVED)
    out = machine.begin("run", f"--bundle={bundle.path}", "a")
    assert wait_for(out, 2) == ["3", "ready"]
    done = machine.checkpoint("a")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    after = machine.begin(
        "restore", f"--image-path={machine.image}", f"--bundle={bundle.path}", "b"
    )
    deadline = time.monotonic() + TIMEOUT_S
    while machine.run("exec", "b", "sh", "-c", "echo go >/mem/go").returncode:
        assert time.monotonic() < deadline, after.read_text()
    assert machine.ended() == 0, after.read_text()
    lines = (bundle.rootfs / "etc/nsswitch.conf").read_text().count("\n")
    assert after.read_text().splitlines() == ["2", "0", str(lines), "/var:"]


TALK = """
mkfifo /mem/said /mem/hold; exec 3<>/mem/hold; (nc -l -p 5000 <&3; echo served) &
until grep -qs ":1388 .* 0A " /proc/net/tcp /proc/net/tcp6; do sleep 0.01; done
(echo before; cat /mem/said) | nc 127.0.0.1 5000
wait; echo over
"""


def test_restore_connections_inside_go_on(machine: Machine) -> None:
    bundle = machine.bundle(TALK)
    out = machine.begin("run", f"--bundle={bundle.path}", "a")
    wait_for(out, 1)
    done = machine.checkpoint("a")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    after = machine.begin(
        "restore", f"--image-path={machine.image}", f"--bundle={bundle.path}", "b"
    )
    deadline = time.monotonic() + TIMEOUT_S
    while machine.run("exec", "b", "sh", "-c", "echo word >/mem/said").returncode:
        assert time.monotonic() < deadline
    assert machine.ended() == 0
    assert after.read_text().split() == ["word", "served", "over"]


def test_checkpoint_compressed_is_smaller_and_damage_is_named(machine: Machine) -> None:
    pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    bundle = machine.bundle(f"head -c 4194304 /dev/zero | tr '\\0' x >/mem/much; {COUNTER}")
    out = machine.begin("run", f"--bundle={bundle.path}", "a")
    wait_for(out, 8)
    done = machine.checkpoint("a", "--compression=zstd")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    pages = machine.image / "pages"
    assert pages.stat().st_size < 4 << 20
    after = machine.begin(
        "restore", f"--image-path={machine.image}", f"--bundle={bundle.path}", "b"
    )
    first = int(wait_for(after, 3)[0])
    assert first == int(out.read_text().split()[-1]) + 1
    data = pages.read_bytes()
    for damaged in (data[:-100], data[:1000] + bytes(100) + data[1100:], b"", b"x" * 5000):
        pages.write_bytes(damaged)
        found = machine.restore(bundle, "c")
        assert found.returncode == 1 and "damaged" in found.stderr, found


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("umount /mem; echo; sleep 100", "a mount of the container that a program has taken off"),
        ("mkdir /mem/x; mount -t fusectl x /mem/x; echo; sleep 100",
         "a file system of type fusectl that a program has mounted"),
    ],
)
def test_checkpoint_what_has_no_record_is_named_and_goes_on(
    machine: Machine, script: str, what: str
) -> None:
    bundle = machine.bundle(script)
    names = sorted({*bundle.document["process"]["capabilities"]["bounding"], "CAP_SYS_ADMIN"})
    for kind in ("bounding", "effective", "permitted"):
        bundle.document["process"]["capabilities"][kind] = names
    bundle.write()
    out = machine.begin("run", f"--bundle={bundle.path}", "a")
    wait_for(out, 1)
    deadline = time.monotonic() + TIMEOUT_S
    while not (done := machine.checkpoint("a", "--leave-running")).returncode:
        assert time.monotonic() < deadline, "it has not come to it yet"
        for name in os.listdir(machine.image):
            os.unlink(machine.image / name)
    assert f"cannot checkpoint: {what}" in done.stderr
    assert not machine.image.exists() or os.listdir(machine.image) == []
    assert machine.run("exec", "a", "echo", "lives").stdout == "lives\n"


def test_checkpoint_of_nothing_or_into_a_snapshot_is_an_error(machine: Machine) -> None:
    assert "does not exist" in machine.checkpoint("nobody").stderr
    assert not machine.image.exists() or os.listdir(machine.image) == []
    bundle = machine.bundle(COUNTER)
    wait_for(machine.begin("run", f"--bundle={bundle.path}", "a"), 1)
    hostile = "sleep 1000; : '\x1b[31m\n'"
    begin = 'sh -c "$1" >/dev/null 2>&1 </dev/null &'
    assert machine.run("exec", "a", "sh", "-c", begin, "sh", hostile).returncode == 0
    assert machine.checkpoint("a", "--leave-running").returncode == 0
    before = (machine.image / "manifest.json").read_bytes()
    assert "has a snapshot already" in machine.checkpoint("a").stderr
    assert (machine.image / "manifest.json").read_bytes() == before
    told = machine.run("snapshot", "inspect", str(machine.image)).stdout
    assert "made         " in told and "\nprocess      1 " in told
    assert "sleep 1000; : '?[31m?'" in told and "\x1b" not in told


def test_restore_what_does_not_fit_is_named_and_nothing_is_left(machine: Machine) -> None:
    bundle = machine.bundle(COUNTER)
    assert "is no snapshot" in machine.restore(bundle, "b").stderr
    wait_for(machine.begin("run", f"--bundle={bundle.path}", "a"), 1)
    assert machine.checkpoint("a").returncode == 0
    other = machine.bundle(COUNTER, "other")
    other.document["mounts"].append({"destination": "/more", "type": "tmpfs"})
    other.write()
    assert "a mount of tmpfs at /more: the bundle differs" in machine.restore(other, "b").stderr
    manifest = machine.image / "manifest.json"
    document = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps({**document, "version": 99}))
    assert "version 99 is not known" in machine.restore(bundle, "b").stderr
    manifest.write_text(json.dumps({**document, "more": 1}))
    assert "unknown field `more`" in machine.restore(bundle, "b").stderr
    manifest.write_text(json.dumps({**document, "pages": document["pages"] + 1}))
    assert "damaged" in machine.restore(bundle, "b").stderr
    manifest.write_text(json.dumps(document))
    (machine.image / "pages").write_bytes(b"")
    assert "another size" in machine.restore(bundle, "b").stderr
    assert machine.run("list", "--quiet").stdout == ""


def started_at_a_terminal(command: Sequence[str]) -> tuple[int, int]:
    """(pid, the other end of its terminal)."""
    pid, fd = pty.fork()
    if not pid:
        os.chdir(REPOSITORY)
        os.execv(command[0], command)
    return pid, fd


def seen(fd: int, word: bytes) -> bytes:
    """What comes until this does."""
    found, deadline = b"", time.monotonic() + TIMEOUT_S
    while word not in found:
        assert time.monotonic() < deadline, found
        if select.select([fd], [], [], 1.0)[0]:
            found += os.read(fd, 4096)
    return found


def test_restore_terminal_has_the_line_that_was_typed_and_the_jobs(machine: Machine) -> None:
    bundle = machine.bundle("cat; echo status $?; exec sh -m -c 'sleep 100 & jobs; exit 3'")
    bundle.document["process"]["terminal"] = True
    bundle.write()
    command = [*RUNSC, *machine.flags]
    deadline = time.monotonic() + TIMEOUT_S
    first, fd = started_at_a_terminal([*command, "run", f"--bundle={bundle.path}", "a"])
    while machine.run("exec", "a", "true").returncode:  # then its terminal is raw
        assert time.monotonic() < deadline
    os.write(fd, b"whole\nhal")
    seen(fd, b"hal")
    done = machine.checkpoint("a")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    os.waitpid(first, 0)
    os.close(fd)
    second, fd = started_at_a_terminal(
        [*command, "restore", f"--image-path={machine.image}", f"--bundle={bundle.path}", "b"]
    )
    deadline = time.monotonic() + TIMEOUT_S
    while machine.run("exec", "b", "true").returncode:  # then its terminal is raw
        assert time.monotonic() < deadline
    os.write(fd, b"f\n\x04")
    text = seen(fd, b"sleep 100")
    assert b"half\r\n" in text and b"status 0" in text
    assert os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == 3
    os.close(fd)


GROWING = """
head -c 16777216 /dev/urandom >/mem/much; n=0
while :; do n=$((n+1)); echo $n >/mem/last; echo $n; read line <>/mem/next; done
"""


def test_checkpoint_with_a_parent_writes_what_has_changed(machine: Machine) -> None:
    bundle = machine.bundle("mkfifo /mem/next; " + GROWING)
    out = machine.begin("run", f"--bundle={bundle.path}", "a")
    wait_for(out, 1)
    folder, sizes = machine.folder, []
    parents = ("--leave-running",), ("--leave-running", f"--parent={folder}/image0")
    for at, flags in enumerate(parents):
        machine.image = folder / f"image{at}"
        done = machine.checkpoint("a", *flags)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        sizes.append((machine.image / "pages").stat().st_size)
        assert machine.run("exec", "a", "sh", "-c", "echo go >/mem/next").returncode == 0
        wait_for(out, at + 2)
    assert sizes[0] > 16 << 20 > 16 * sizes[1], sizes
    machine.image = folder / "image2"
    done = machine.checkpoint("a", f"--parent={folder}/image0")
    assert done.returncode == 1 and "is not the last snapshot" in done.stderr, done
    machine.run("delete", "--force", "a")
    machine.image = folder / "image1"
    after = machine.begin(
        "restore", f"--image-path={machine.image}", f"--bundle={bundle.path}", "b"
    )
    deadline = time.monotonic() + TIMEOUT_S
    while machine.run("exec", "b", "sh", "-c", "echo go >/mem/next").returncode:
        assert time.monotonic() < deadline
    assert wait_for(after, 1) == ["3"]
    machine.image = folder / "image2"
    done = machine.checkpoint("b", f"--parent={folder}/image1")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert (machine.image / "pages").stat().st_size < 1 << 20
    told = machine.run("snapshot", "inspect", str(machine.image))
    assert "builds on    ../image1" in told.stdout, told

    manifest = folder / "image0" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text + "\n")
    done = machine.restore(bundle, "c")
    assert done.returncode == 1 and "which is another snapshot now" in done.stderr, done
    manifest.unlink()
    done = machine.restore(bundle, "c")
    assert done.returncode == 1 and "image0 is no snapshot" in done.stderr, done


KEEPING = """
head -c 12582912 /dev/urandom >/mem/much; sum=$(md5sum </mem/much)
big=$(head -c 3000000 /dev/zero | tr '\\0' x)
mkfifo /mem/next; echo ready
while read line <>/mem/next; do
  [ "$(md5sum </mem/much)" = "$sum" ] && echo same ${#big}
  echo more >>/mem/much; sum=$(md5sum </mem/much); cp /mem/much /mem/copy; rm /mem/copy
done
"""


def test_restore_of_compressed_snapshots_that_build_on_each_other(machine: Machine) -> None:
    pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    bundle = machine.bundle(KEEPING)
    out = machine.begin("run", f"--bundle={bundle.path}", "a")
    wait_for(out, 1)
    flags = ["--leave-running", "--compression=zstd"]
    for at in range(3):
        machine.image = machine.folder / f"image{at}"
        done = machine.checkpoint("a", *flags)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert machine.run("exec", "a", "sh", "-c", "echo go >/mem/next").returncode == 0
        assert wait_for(out, at + 2)[-1] == "same 3000000"
        flags = ["--leave-running", "--compression=zstd", f"--parent={machine.image}"]
    after = machine.begin(
        "restore", f"--image-path={machine.image}", f"--bundle={bundle.path}", "b"
    )
    deadline = time.monotonic() + TIMEOUT_S
    while machine.run("exec", "b", "sh", "-c", "echo go >/mem/next").returncode:
        assert time.monotonic() < deadline
    assert wait_for(after, 1) == ["same 3000000"]


def test_restore_in_the_background_shows_the_same_and_changes_nothing(machine: Machine) -> None:
    bundle = machine.bundle(KEEPING)
    out = machine.begin("run", f"--bundle={bundle.path}", "a")
    wait_for(out, 1)
    done = machine.checkpoint("a")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    before = {path.name: path.read_bytes() for path in machine.image.iterdir()}
    flags = f"--image-path={machine.image}", f"--bundle={bundle.path}", "--background"
    outs = {name: machine.begin("restore", *flags, name) for name in ("b", "c")}
    for count in (1, 2):
        for name, after in outs.items():
            deadline = time.monotonic() + TIMEOUT_S
            while machine.run("exec", name, "sh", "-c", "echo go >/mem/next").returncode:
                assert time.monotonic() < deadline, after.read_text()
            assert wait_for(after, count) == ["same 3000000"] * count
    assert before == {path.name: path.read_bytes() for path in machine.image.iterdir()}
    machine.image = machine.folder / "again"
    done = machine.checkpoint("b", "--leave-running")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    last = machine.begin("restore", f"--image-path={machine.image}", flags[1], "d")
    deadline = time.monotonic() + TIMEOUT_S
    while machine.run("exec", "d", "sh", "-c", "echo go >/mem/next").returncode:
        assert time.monotonic() < deadline, last.read_text()
    assert wait_for(last, 1) == ["same 3000000"]


def test_an_image_that_changes_below_a_container_harms_it_alone(machine: Machine) -> None:
    bundle = machine.bundle(KEEPING)
    out = machine.begin("run", f"--bundle={bundle.path}", "a")
    wait_for(out, 1)
    assert machine.checkpoint("a").returncode == 0
    flags = f"--image-path={machine.image}", f"--bundle={bundle.path}"
    eager = machine.begin("restore", *flags, "b")
    deadline = time.monotonic() + TIMEOUT_S
    while machine.run("exec", "b", "sh", "-c", "echo go >/mem/next").returncode:
        assert time.monotonic() < deadline
    wait_for(eager, 1)
    machine.begin("restore", *flags, "--background", "c")
    while machine.run("state", "c").returncode:
        assert time.monotonic() < deadline
    (machine.image / "pages").write_bytes(b"")
    machine.run("exec", "c", "sh", "-c", "md5sum /mem/much")
    assert machine.run("exec", "b", "sh", "-c", "echo go >/mem/next").returncode == 0
    assert wait_for(eager, 2) == ["same 3000000"] * 2
    assert machine.run("delete", "--force", "c").returncode == 0
