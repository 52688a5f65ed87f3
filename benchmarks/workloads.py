"""Programs over many files of a root that is kept: what people wait for.

    python -m benchmarks.workloads [--place DIR …] [--disk GIB] [--case WORD …] [--way NAME …]
                                   [--rounds N] [--files N] [--packages N] [--transactions N]
                                   [--gvisor PROGRAM] [--short]

As root, with gcc and dpkg-deb. `--place`: where the root file system is copied to, and which file
system that is matters: name one on ext4 and one on a tmpfs. Prints a table for each, of medians in
ms: natively, under runc, under gVisor with its layer in memory and with `--overlay2=none`, and
under ours. The ways take turns in each round; a program that fails is left out, with its reason.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import archives
from benchmarks.__main__ import rootfs
from benchmarks.programs import has
from benchmarks.root import Copied, grow, print_table, ways
from benchmarks.ways import GVISOR, HERE, Way, enter_mount_namespace

HOME = "workloads"
"""Of `ci/rootfs`."""
DEFAULT = ("native", "runc", "gVisor", "gVisor none", "ours")


@dataclass(frozen=True)
class Workload:
    """`measure` is timed, once; what it leaves `finish` takes away. All by a shell in /files."""

    name: str
    needs: tuple[str, ...]
    measure: str
    prepare: str = ":"
    finish: str = ":"


@dataclass(frozen=True)
class Sizes:
    """How much there is of everything."""

    files: int
    packages: int
    transactions: int


def workloads(sizes: Sizes) -> tuple[Workload, ...]:
    """What is measured. /files/given is the same for all, and stays; it was made natively."""
    archives_of = " ".join(f"d{number}" for number in range(archives.DEBS))
    wheels = " ".join(f"w{number}" for number in range(archives.WHEELS))
    return (
        Workload("tar x", ("tar",), "tar xf /mnt/tree.tar", finish="rm -rf tree"),
        Workload("cp -r", (), "cp -r given/tree copy", finish="rm -rf copy"),
        Workload("rm -r", (), "rm -r copy", "cp -r given/tree copy; sync"),
        Workload("rsync", ("rsync",), "rsync -a given/tree/ copy/", finish="rm -rf copy"),
        Workload("git clone", ("git",), "git clone -q --no-hardlinks given/repository clone",
                 finish="rm -rf clone"),
        Workload("git status", ("git",), "git -C clone status -s",
                 "git clone -q --no-hardlinks given/repository clone", "rm -rf clone"),
        Workload("npm ci", ("npm", "node"), "sh -c 'cd node && npm ci --offline --silent'",
                 "mkdir node; cp /mnt/npm/package*.json node", "rm -rf node .npm"),
        Workload("pip install", ("pip3",),
                 f"pip3 install -q --no-index --find-links /mnt/wheels --target site {wheels}",
                 finish="rm -rf site"),
        Workload("apt-get install", ("apt-get",),
                 f"apt-get install -qq -y -o APT::Sandbox::User=root {archives_of}",
                 "sh /mnt/archive.sh", f"dpkg --purge {archives_of}"),
        Workload("make -j2", ("make", "gcc"), "make -s -C parts -j2", "sh /mnt/sources.sh .",
                 "rm -rf parts m.c"),
        Workload("sqlite, FULL", ("python3",),
                 f"python3 /mnt/durable.py /files/durable.db {sizes.transactions}"),
        Workload("pgbench, fsync", ("pgbench", "initdb"),
                 f"sh /mnt/postgres.sh bench /files/pg {sizes.transactions}",
                 "sh /mnt/postgres.sh start /files/pg",
                 "sh /mnt/postgres.sh stop /files/pg; rm -rf pg"),
    )  # fmt: skip


def prepared(original: Path, place: Path, disk: int, sizes: Sizes) -> Copied:
    """A stage whose root has /files/given, and archives at /mnt."""
    stage = Copied(original, place, disk)
    try:
        for script in (HERE / "inside").glob("*"):
            shutil.copy(script, stage.bench)
        grow(stage.bench / "tree.tar", sizes.files)
        archives.make_npm(stage.bench / "npm", sizes.packages)
        archives.make_wheels(stage.bench / "wheels")
        archives.make_debs(stage.bench / "archive")
        given = "mkdir -p /files/given; cd /files/given; tar xf /mnt/tree.tar"
        made = f"sh /mnt/repository.sh /files/given/repository {max(1, sizes.files // 50)}"
        Way("native", []).run(stage, ["/bin/sh", "-c", f"{given} && {made}"])
    except BaseException:
        stage.close()
        raise
    return stage


def measured(workload: Workload, way: Way, stage: Copied) -> float:
    """ns. Raises: RuntimeError with what it said."""
    lines = (
        "cd /files; export HOME=/files GIT_CONFIG_GLOBAL=/files/given/gitconfig",
        f"({workload.prepare}) >/tmp/said 2>&1",
        f"/mnt/cases time 1 {workload.measure} >/tmp/told 2>>/tmp/said",
        "status=$?",
        f"({workload.finish}) >>/tmp/said 2>&1",
        '[ $status = 0 ] && tail -n 1 /tmp/told || { echo failed; tail -n 5 /tmp/said; }',
    )
    output = way.run(stage, ["/bin/sh", "-c", "\n".join(lines)])
    try:
        return float(output.split()[0])
    except (ValueError, IndexError):
        raise RuntimeError(f"{way.name}: {workload.name}: {output.strip()[-400:]}") from None


def table(stage: Copied, chosen: list[Way], wanted: list[Workload], rounds: int) -> None:
    """Measure at one place, and print."""
    found: dict[str, dict[str, list[float]]] = {}
    failed: set[tuple[str, str]] = set()
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for workload in wanted:
            for way in chosen:
                if (workload.name, way.name) in failed:
                    continue
                stage.settle()
                try:
                    took = measured(workload, way, stage)
                except (RuntimeError, subprocess.TimeoutExpired) as problem:
                    print(f"  left out: {problem}", file=sys.stderr)
                    failed.add((workload.name, way.name))
                    continue
                found.setdefault(workload.name, {}).setdefault(way.name, []).append(took)
    print_table(found, [way.name for way in chosen])


def sizes_of(options: argparse.Namespace) -> Sizes:
    """As the flags say; `--short` is a tenth."""
    part = 10 if options.short else 1
    given = options.files, options.packages, options.transactions
    return Sizes(*(max(10, each // part) for each in given))


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workloads", description=__doc__)
    parser.add_argument("--place", type=Path, action="append", help="default: where /tmp is")
    parser.add_argument("--disk", type=int, default=0, metavar="GIB", help="see benchmarks.root")
    parser.add_argument("--case", action="append", help="only those whose name contains this")
    parser.add_argument("--way", action="append", help="ways of running, by name")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=50_000, help="of trees; git has a fifth")
    parser.add_argument("--packages", type=int, default=300, help="of npm, ten files each")
    parser.add_argument("--transactions", type=int, default=500)
    parser.add_argument("--gvisor", default=GVISOR)
    parser.add_argument("--short", action="store_true", help="a tenth of everything, one round")
    options = parser.parse_args(arguments)
    original = rootfs(HOME)
    if original is None:
        raise SystemExit(f"ci/rootfs {HOME} fails")
    sizes = sizes_of(options)
    wanted = [
        each
        for each in workloads(sizes)
        if not options.case or any(word in each.name for word in options.case)
    ]
    for each in wanted:
        missing = [need for need in each.needs if not has(original, need)]
        if missing:
            raise SystemExit(f"{each.name}: the root file system has no {missing[0]}")
    enter_mount_namespace()
    with tempfile.TemporaryDirectory(prefix="bench-state-") as folder:
        names = options.way or DEFAULT
        chosen = [way for way in ways(Path(folder), options.gvisor) if way.name in names]
        for place in options.place or [Path(tempfile.gettempdir())]:
            stage = prepared(original, place, options.disk, sizes)
            try:
                print(f"\n{place}, {sizes.files} files\n")
                table(stage, chosen, wanted, 1 if options.short else options.rounds)
            finally:
                stage.close()


if __name__ == "__main__":
    main(sys.argv[1:])
