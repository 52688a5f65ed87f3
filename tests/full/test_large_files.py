"""4 GiB are written to a root that is kept, with 256 MiB of memory: files are no memory of the
sandbox, nor of its programs; in a cgroup they are cache that the host takes back.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runsc.cgroups import hierarchies
from runsc.cgroups.cgroup import at
from tests.e2e.bundle import KEPT, Bundle, execute, kvm_is_usable
from tests.e2e.processes import wait_for_state
from tests.e2e.talker import Talker
from tests.e2e.test_exhaustion import taken_mib

MIB = 1 << 20
MEMORY_MIB = 256
FILES, FILE_MIB = 16, 256
MOST_MIB = 128
"""Of the Sentry and RAM: half of what programs may have, of which they need a few."""
ROOM = 6 << 30
SCRIPT = f"""
    mkdir /files
    for n in $(seq {FILES}); do
        dd if=/dev/zero of=/files/$n bs=1M count={FILE_MIB} 2>/dev/null || echo failed
        echo $n >>/files/$n
        echo $n
    done
    sync
    grep MemFree /proc/meminfo
    read line
    rm /files/*
    echo alive
"""

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be opened"),
]


@pytest.fixture
def bundle(tmp_path: Path, busybox: Path) -> Iterator[Bundle]:
    """One with a root of its own, on a disk."""
    kind = subprocess.check_output(["stat", "-f", "-c", "%T", tmp_path], text=True).strip()
    if kind in ("tmpfs", "ramfs") or shutil.disk_usage(tmp_path).free < ROOM:
        pytest.skip(f"no room for 4 GiB on a disk ({kind})")
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", busybox, root], check=True)
    made = Bundle(tmp_path / "bundle", root).args("sh", "-c", SCRIPT)
    made.document["root"]["readonly"] = False
    yield made
    shutil.rmtree(root)


def nobody() -> int:
    return 0


def write_all(bundle: Bundle, kills: Callable[[], int] = nobody) -> None:
    """Run it; look at what it takes after each file. `kills`: how many the host has killed."""
    command = bundle.command(flags=[KEPT, f"--memory={MEMORY_MIB}M"])
    writer = Talker(command)
    most = 0
    for number in range(1, FILES + 1):
        assert writer.hear() == str(number)
        pid = wait_for_state(bundle.path / "state", "test")["sentryPid"]
        most = max(most, taken_mib(pid))
    free = re.fullmatch(r"MemFree:\s+(\d+) kB", writer.hear())
    assert free is not None
    left = taken_mib(pid)
    print(f"at most {most} MiB, after it {left}; free inside {int(free[1]) >> 10}")
    assert max(most, left) < MOST_MIB
    assert int(free[1]) >> 10 > MEMORY_MIB // 2
    done = execute([*command[: command.index("run")], "exec", "test", "cat", "/proc/loadavg"])
    assert done.returncode == 0, done.stderr
    assert kills() == 0
    for path in (bundle.rootfs / "files").iterdir():
        assert path.stat().st_size == FILE_MIB * MIB + len(path.name) + 1
        with path.open("rb") as file:
            file.seek(FILE_MIB * MIB - 1)
            assert file.read() == b"\0" + path.name.encode() + b"\n"
    writer.say("go on")
    assert writer.end() == ["alive"]
    assert writer.process.returncode == 0
    assert list((bundle.rootfs / "files").iterdir()) == []


def test_files_are_no_memory_of_the_sandbox(bundle: Bundle) -> None:
    write_all(bundle)


@pytest.fixture
def path() -> str:
    """Of a cgroup."""
    made = f"/runsc-test-{uuid.uuid4().hex[:8]}/c"
    cgroup = at(made, "c", hierarchies.read())
    if not cgroup.record.made or "memory" not in cgroup.record.controllers:
        pytest.skip("no cgroups with a memory controller here")
    return made


def killed(path: str) -> int:
    """How many processes the host has killed there for want of memory."""
    directory = at(path, "c", hierarchies.read()).directory("memory")
    assert directory is not None
    for name in ("memory.events", "memory.oom_control"):
        if os.path.exists(os.path.join(directory, name)):
            found = re.search(r"^oom_kill (\d+)$", Path(directory, name).read_text(), re.M)
            return int(found[1]) if found else 0
    raise AssertionError(f"{directory} tells no kills")


def test_in_a_cgroup_files_are_cache_that_the_host_takes_back(bundle: Bundle, path: str) -> None:
    """What is written is charged there: the limit holds, and nobody is killed for it."""
    bundle.document["linux"]["cgroupsPath"] = path
    bundle.document["linux"]["resources"] = {"memory": {"limit": MEMORY_MIB * MIB}}
    write_all(bundle, lambda: killed(path))
