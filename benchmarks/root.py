"""What files of the root cost: kept on the host, behind or at once, and thrown away.

    python -m benchmarks.root [--place DIR] [--disk GIB] [--files N] [--rounds N] [--gvisor PROGRAM]

As root, with gcc. `--place`: where the root file system is copied to, and a folder that is mounted;
what they lie on matters. `--disk`: on an ext4 of their own there, in a file, that each way finds as
it was mounted: one that has freed thousands of inodes looks at each of them for five minutes before
it makes a file, and who comes later waits longer. More programs: `benchmarks.workloads`.
Prints a table: single operations (`cases.c`) in µs, programs over a tree of so many files in ms,
and the CPU time of these together, of all processes, less that of an empty container. The ways
take turns in each round.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from benchmarks.__main__ import parse, rootfs
from benchmarks.ways import (
    GVISOR,
    HERE,
    Stage,
    Way,
    compiled,
    enter_mount_namespace,
    gvisor,
    run,
)

SINGLE = tuple(
    f"{case} {where}"
    for where in ("root", "bind")
    for case in ("create+unlink", "open+close", "stat", "pwrite 4K")
)
PROGRAMS = {
    "tar x": "tar xf /mnt/tree.tar -C /files",
    "cp -r": "cp -r /files/tree /files/copy",
    "rm -r": "rm -r /files/copy",
}
CPU = "the three, CPU time"


class Copied(Stage):
    """A stage whose root file system is a copy, on the file system of `place`, or on a disk of so
    many GiB there."""

    def __init__(self, original: Path, place: Path, disk: int = 0) -> None:
        self.path = self.home = Path(tempfile.mkdtemp(prefix="bench-root-", dir=place))
        if disk:
            self.path = self.home / "disk"
            self.path.mkdir()
            with self.image.open("wb") as image:
                image.truncate(disk << 30)
            run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,nodiscard", str(self.image))
            self._mount()
        self.bench, self.data = self.path / "bench", self.path / "data"
        for name in ("bench", "data", "bundle"):
            (self.path / name).mkdir()
        run("cp", "-a", str(original), str(self.path / "rootfs"))
        for name in ("mnt", "srv", "proc", "dev", "sys", "tmp", "run", "files"):
            (self.path / "rootfs" / name).mkdir(exist_ok=True)
        flags = ["-O2", "-static", "-pthread"]
        run("gcc", *flags, "-o", str(self.bench / "cases"), str(HERE / "cases.c"))

    @property
    def image(self) -> Path:
        """Of the disk, if there is one."""
        return self.home / "image"

    def _mount(self) -> None:
        run("mount", "-o", "loop", str(self.image), str(self.path))

    def settle(self) -> None:
        """The disk knows nothing of who was here before."""
        if self.path != self.home:
            run("umount", str(self.path))
            self._mount()

    def close(self) -> None:
        """Take everything away again."""
        if self.path != self.home:
            run("umount", str(self.path))
        run("rm", "-r", str(self.home))


def grow(path: Path, files: int) -> None:
    """An archive of small files, 100 a directory, a link in each."""
    with tarfile.open(path, "w") as archive:
        for number in range(files):
            folder, rest = divmod(number, 100)
            if not rest:
                for name, kind in ((f"tree/d{folder}", tarfile.DIRTYPE),
                                   (f"tree/d{folder}/link", tarfile.SYMTYPE)):  # fmt: skip
                    member = tarfile.TarInfo(name)
                    member.type, member.mode, member.linkname = kind, 0o755, "f0"
                    archive.addfile(member)
            member = tarfile.TarInfo(f"tree/d{folder}/f{rest}")
            member.size = 1000 + number % 3000
            archive.addfile(member, BytesIO(b"x" * member.size))


def ways(folder: Path, program: str) -> list[Way]:
    """The runtimes that are there, with and without a layer for what is written."""
    ours = [sys.executable, "-m", "runsc", "--root", str(folder / "ours"), "--network=none"]
    tree = compiled(folder / "compiled")
    found = [Way("native", []), Way("runc", ["runc", "--root", str(folder / "runc")])]
    if os.access(program, os.X_OK):
        theirs = gvisor(program, folder)
        found.append(Way("gVisor", theirs.runtime))
        found.append(Way("gVisor none", [*theirs.runtime, "--overlay2=none"]))
    found.append(Way("ours memory", [*ours, "--overlay2=root:memory"], tree))
    found.append(Way("ours shared", [*ours, "--file-access=shared"], tree))
    found.append(Way("ours", ours, tree))
    return found


def measured(way: Way, stage: Stage) -> dict[str, float]:
    """Case → ns."""
    found = parse(way.run(stage, ["/mnt/cases", ",".join(SINGLE), "60"]))
    told = {case: values["median"] for case, values in found.items()}
    lines = [f"/mnt/cases time 1 {command} | tail -1" for command in PROGRAMS.values()]
    empty = cpu_ns()
    way.run(stage, ["/bin/true"])
    began = cpu_ns()
    output = way.run(stage, ["/bin/sh", "-c", "\n".join((*lines, "rm -rf /files/tree"))])
    told[CPU] = cpu_ns() - began - (began - empty)
    for case, line in zip(PROGRAMS, output.splitlines(), strict=True):
        told[case] = float(line.split()[0])
    return told


def cpu_ns() -> float:
    """Of all processes that have been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1e9


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.root", description=__doc__)
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--disk", type=int, default=0, metavar="GIB")
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gvisor", default=GVISOR)
    options = parser.parse_args(arguments)
    original = rootfs("debian")
    assert original is not None
    enter_mount_namespace()
    with tempfile.TemporaryDirectory(prefix="bench-state-") as folder:
        chosen = ways(Path(folder), options.gvisor)
        stage = Copied(original, options.place, options.disk)
        found: dict[str, dict[str, list[float]]] = {}
        try:
            grow(stage.bench / "tree.tar", options.files)
            for _ in range(options.rounds):
                for way in chosen:
                    stage.settle()
                    try:
                        told = measured(way, stage)
                    except (RuntimeError, subprocess.TimeoutExpired) as problem:
                        print(f"  left out: {problem}", file=sys.stderr)
                        continue
                    for case, value in told.items():
                        found.setdefault(case, {}).setdefault(way.name, []).append(value)
        finally:
            stage.close()
    print_table(found, [way.name for way in chosen])


def print_table(found: dict[str, dict[str, list[float]]], names: list[str]) -> None:
    """Medians."""
    print("| | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for case, by_way in found.items():
        scale = 1e3 if case in SINGLE else 1e6
        cells = [
            f"{statistics.median(by_way[name]) / scale:.1f}" if name in by_way else ""
            for name in names
        ]
        print(f"| {case} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
