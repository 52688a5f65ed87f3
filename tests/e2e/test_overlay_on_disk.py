"""--overlay2=root:self, root:dir=PATH: what is written is no memory of the sandbox, and lies in a
file of the host without a name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.abi.test_abi import compile_program, with_everything
from tests.e2e.bundle import Bundle, Result
from tests.e2e.client import Client, wait_for_end

MIB = 1 << 20
WRITE = "dd if=/dev/zero of=/big bs=1M count={} 2>&1 | grep error; wc -c </big"


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
        ("root:dir=here", "none, or root:memory, root:self or root:dir=/PATH"),
        ("root:self,size=0", "none, or root:memory, root:self or root:dir=/PATH"),
        ("root:self,size=many", "--overlay2: size: many is not a size"),
        ("none,size=1M", "none, or root:memory, root:self or root:dir=/PATH"),
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
        os.sched_yield()
    assert _free(small) < free - 4000000
    state = json.loads((client.root / "c" / "state.json").read_text())
    pidfd = os.pidfd_open(state["sentryPid"])

    os.kill(state["sentryPid"], signal.SIGKILL)

    wait_for_end(pidfd)
    client.ok("delete", "--force", "c")
    assert (_free(small), list(small.iterdir())) == (free, [])
