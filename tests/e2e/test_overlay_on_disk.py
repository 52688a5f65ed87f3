"""--overlay2=root:self, root:dir=PATH: what is written is no memory of the sandbox, and lies in a
file of the host without a name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.abi.test_abi import compile_program, with_everything
from tests.e2e.bundle import Bundle, Document, Result
from tests.e2e.client import Client, wait_for_end
from tests.e2e.pod import Pod

MIB = 1 << 20
WRITE = "dd if=/dev/zero of=/big bs=1M count={} 2>&1 | grep error; stat -c %s /big"


def _sh(bundle: Bundle, platform: str, script: str, where: str) -> Result:
    done = bundle.args("sh", "-c", script).run(platform, flags=[f"--overlay2={where}"])
    assert (done.returncode, done.stderr) == (0, ""), done
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    return made


@pytest.fixture
def small(folder: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    if os.geteuid():
        pytest.skip("needs root to mount one")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bfree * found.f_frsize


def test_more_is_written_than_there_is_memory(bundle: Bundle, platform: str, folder: Path) -> None:
    bundle.args("sh", "-c", WRITE.format(96) + "; grep MemFree /proc/meminfo")

    done = bundle.run(platform, flags=["--memory=64M", f"--overlay2=root:dir={folder}"])

    assert done.returncode == 0, done.stderr
    size, free = done.stdout.splitlines()
    assert int(size) == 96 * MIB
    assert int(free.split()[1]) > 48 << 10
    assert not list(folder.iterdir())


def test_root_itself_has_the_file(tmp_path: Path, busybox: Path, platform: str) -> None:
    root = tmp_path / "rootfs"
    subprocess.run(["cp", "-a", busybox, root], check=True)
    before = sorted(os.listdir(root))
    bundle = Bundle(tmp_path / "bundle", root)

    done = _sh(bundle, platform, "echo new >/etc/new; rm -r /usr; cat /etc/new", "root:self")

    assert done.stdout == "new\n"
    assert sorted(os.listdir(root)) == before
    assert not (root / "etc/new").exists()


@pytest.mark.parametrize("where", ["all:memory", "all:self"])
def test_what_is_written_to_bind_mounts_is_the_sandboxs(
    bundle: Bundle, platform: str, folder: Path, where: str
) -> None:
    for name in ("kept", "gone"):
        (folder / name).write_text("host's\n")
    file = folder.parent / "file"
    file.write_text("host's\n")
    for options, source, target in (
        (["bind"], folder, "/rw"),
        (["bind", "ro"], folder, "/ro"),
        (["bind"], file, "/file"),
    ):
        mount = {"destination": target, "source": str(source), "options": options}
        bundle.document["mounts"].append({"type": "bind", **mount})
    script = """
        cat /rw/kept /file
        echo own >/rw/new; echo own >>/rw/kept; rm /rw/gone; echo own >/file
        (echo own >/ro/new) 2>&1
        cat /rw/kept /rw/new /file; ls /rw /ro
    """

    said = _sh(bundle, platform, script, where).stdout.splitlines()

    assert said == [
        "host's", "host's", "sh: can't create /ro/new: Read-only file system",
        "host's", "own", "own", "own",
        "/ro:", "gone", "kept", "", "/rw:", "kept", "new",
    ]  # fmt: skip
    assert sorted(os.listdir(folder)) == ["gone", "kept"]
    assert (folder / "kept").read_text() == file.read_text() == "host's\n"


def test_containers_of_a_pod_write_to_one_file_each_for_itself(pod: Pod, folder: Path) -> None:
    """Of the first container's folder; memory of a further one's limit it is not."""
    (folder / "shared").mkdir()
    (folder / "disk").mkdir()
    volume = {"destination": "/vol", "type": "bind", "source": str(folder / "shared")}

    def change(document: Document) -> None:
        document["mounts"].append({**volume, "options": ["bind"]})
        document["linux"]["resources"] = {"memory": {"limit": 64 * MIB}}

    for name in ("pause", "app"):
        pod.client(name).flags.append(f"--overlay2=all:dir={folder}/disk")
    pod.run("pause", change=lambda d: d["mounts"].append({**volume, "options": ["bind"]}))
    app = pod.run("app", change=change)

    script = "dd if=/dev/zero of=/vol/big bs=1M count=80; echo app >/etc/who; stat -c %s /vol/big"
    assert app.ok("exec", "app", "sh", "-c", script) == f"{80 * MIB}\n"

    look = "ls /vol; cat /etc/who 2>/dev/null || echo none"
    assert pod.client("pause").ok("exec", "pause", "sh", "-c", look) == "none\n"
    assert app.ok("exec", "app", "cat", "/etc/who") == "app\n"
    assert not [*(folder / "shared").iterdir(), *(folder / "disk").iterdir()]


@pytest.mark.parametrize("where", ["root:memory", "root:self"])
def test_size_bounds_what_is_written(bundle: Bundle, platform: str, where: str) -> None:
    script = WRITE.format(3) + "; rm /big; echo fits >/small; cat /small"

    done = _sh(bundle, platform, script, f"{where},size=1M")

    assert "No space left on device" in done.stdout
    assert done.stdout.splitlines()[-2:] == [str(MIB), "fits"]


def test_full_disk_is_enospc(bundle: Bundle, platform: str, small: Path) -> None:
    script = WRITE.format(20) + "; (echo x >/more) 2>&1; rm /big; echo fits >/small; cat /small"
    free = _free(small)

    said = _sh(bundle, platform, script, f"root:dir={small}").stdout.splitlines()

    assert said[0] == "dd: error writing '/big': No space left on device"
    assert int(said[1]) >= 6 * MIB
    assert said[2:] == ["sh: write error: No space left on device", "fits"]
    assert _free(small) == free


@pytest.mark.parametrize(
    "name", ["files_copy", "files_io", "files_partial", "memory_change", "memory_map"]
)
def test_program_finds_what_linux_has(
    name: str, bundle: Bundle, platform: str, tmp_path: Path
) -> None:
    program = compile_program(name, tmp_path)
    bundle.args(f"/abi/{name}").configure(with_everything)
    bundle.document["mounts"].append(
        {"destination": f"/abi/{name}", "source": str(program), "options": ["bind", "ro"]}
    )

    done = bundle.run(platform, flags=["--overlay2=root:self", "--network=none"])

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("root:dir=/missing", "a file in /missing: no such file or directory"),
        ("root:dir=/etc/passwd", "a file in /etc/passwd: not a directory"),
        ("root:dir=/sys", "a file in /sys: "),
        ("root:dir=here", "none, or root: or all: with memory, self or dir=/PATH"),
        ("root:self,size=0", "none, or root: or all: with memory, self or dir=/PATH"),
        ("root:self,size=many", "--overlay2: size: many is not a size"),
        ("self", "none, or root: or all: with memory, self or dir=/PATH"),
        ("none,size=1M", "none, or root: or all: with memory, self or dir=/PATH"),
    ],
)
def test_place_that_cannot_be_is_refused_by_name(bundle: Bundle, where: str, why: str) -> None:
    done = bundle.args("true").run(flags=[f"--overlay2={where}"])

    assert (done.returncode, done.stdout) == (1, "")
    assert why in done.stderr


def test_nothing_is_left_when_the_sandbox_is_killed(bundle: Bundle, small: Path) -> None:
    free = _free(small)
    client = Client(bundle.args("sh", "-c", "head -c 4000000 /dev/zero >/big; echo up; sleep 999"))
    client.flags.append(f"--overlay2=root:dir={small}")
    client.create("c")
    client.ok("start", "c")
    while "up" not in client.output("c"):
        time.sleep(0.001)
    assert _free(small) < free - 4000000
    state = json.loads((client.root / "c" / "state.json").read_text())
    pidfd = os.pidfd_open(state["sentryPid"])

    os.kill(state["sentryPid"], signal.SIGKILL)

    wait_for_end(pidfd)
    client.ok("delete", "--force", "c")
    assert (_free(small), list(small.iterdir())) == (free, [])
