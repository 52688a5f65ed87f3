"""What of the host a program can learn, against the list in docs/isolation.md.

A program reads what there is to read, and the values of the host are looked for in that.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.bundle import REPOSITORY, Bundle, Document, kvm_is_usable
from tests.e2e.test_hostile import with_all_rights

LOOK = r"""
find /proc /sys /etc -type f ! -name kmsg ! -name mem ! -name pagemap 2>/dev/null |
xargs head -q -c 65536 2>/dev/null | tr '\0' ' '
uname -a; hostname; id; env; mount; df; df /folder
ls -lid /folder /folder/*; ls -l /proc/self/fd; stat -L /proc/self/fd/[012]; stat -f / /folder
stat /folder/file; ps; echo nproc $(nproc)
"""
MARK = "a-word-that-nobody-else-says"


def read(path: str) -> str:
    """A file of the host, empty if there is none."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def word(value: object) -> str:
    """A pattern that finds it as a word; nothing is found of what the host has not."""
    return rf"(?<![\w.-]){re.escape(str(value))}(?![\w-])" if str(value) else "(?!)"


def facts(folder: Path, bundle: Bundle, pipes: list[int]) -> dict[str, list[str]]:
    """By name: patterns, any of which is the fact."""
    memory = int(re.findall(r"MemTotal:\s+(\d+)", read("/proc/meminfo"))[0])
    boot = int(re.findall(r"btime (\d+)", read("/proc/stat"))[0])
    model = re.findall(r"^model\s+: (\d+)", read("/proc/cpuinfo"), re.MULTILINE)[0]
    disks = [line.split()[3] for line in read("/proc/partitions").splitlines()[2:]]
    cards = [each.name for each in Path("/sys/class/net").iterdir() if each.name != "lo"]
    addresses = [read(f"/sys/class/net/{name}/address") for name in cards]
    file, place = os.stat(folder / "file"), os.statvfs(folder)
    host = os.uname()
    return {
        "time since boot": [rf"btime {boot + late}\b" for late in (-1, 0, 1)],
        "memory": [rf"MemTotal:\s+{memory // part // 4 * 4} kB" for part in (1, 2)],
        "number of CPUs": [rf"nproc {os.cpu_count()}\b"],
        "CPU model": [rf"(?m)^model\s+: {model}$"],
        "sizes of file systems": [rf"Total: {place.f_blocks}\b"],
        "numbers of files": [word(file.st_ino)],
        "device numbers": [rf"Device: {os.major(file.st_dev):x}h?[,/]{os.minor(file.st_dev)}\b"],
        "numbers of pipes": [word(number) for number in pipes],
        "kernel release": [word(host.release), word(host.version)],
        "host name": [word(host.nodename)],
        "boot id": [word(read("/proc/sys/kernel/random/boot_id"))],
        "kernel command line": [re.escape(read("/proc/cmdline")) or "(?!)"],
        "load": [word(" ".join(read("/proc/loadavg").split()[:3]))],
        "disks": [word(name) for name in disks],
        "network interfaces": [
            *(word(name) for name in cards),
            *(word(each) for each in addresses if each.strip(":0")),
        ],
        "processes": [word("pytest")],
        "paths of the bundle": [
            re.escape(str(each)) for each in (folder, bundle.path, bundle.rootfs)
        ],
        "environment of the caller": [word(MARK)],
    }


def written() -> dict[str, bool]:
    """The list, by name."""
    text = (REPOSITORY / "docs" / "isolation.md").read_text()
    part = text[text.index("## What of the host a program can learn") :]
    rows = re.findall(r"^\| ([^|]+) \| (yes|no) \|", part, re.MULTILINE)
    return {name: seen == "yes" for name, seen in rows}


@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be opened")
def test_program_learns_of_the_host_what_is_written_and_no_more(
    bundle: Bundle, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("text")

    def change(document: Document) -> None:
        with_all_rights(document)
        document["mounts"].append(
            {"destination": "/folder", "type": "bind", "source": str(folder)}
        )

    bundle.configure(change)
    process = subprocess.Popen(
        bundle.args("/bin/sh", "-c", LOOK).command(),
        cwd=REPOSITORY, env={**os.environ, "A_MARK": MARK},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    pipes = [os.fstat(each.fileno()).st_ino for each in (process.stdin, process.stdout)]
    said = process.communicate(timeout=60)[0].decode(errors="replace")

    seen = {
        name: any(re.search(pattern, said) for pattern in patterns)
        for name, patterns in facts(folder, bundle, pipes).items()
    }

    assert process.returncode == 0, said[-2000:]
    assert seen == written()
