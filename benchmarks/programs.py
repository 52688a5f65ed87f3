"""Whole programs: one line each. Time is taken inside, of a command, after a preparation.

A program runs in the first root file system of `ci/rootfs` that has what it needs; one that no
root file system has is left out. Servers are started by the preparation, in the background.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.ways import Stage, Way

LIBRARY = "/usr/lib/python3*"


@dataclass(frozen=True)
class Program:
    """`measure` is timed `times` times by `cases time`; `prepare` and `finish` are not."""

    name: str
    needs: tuple[str, ...]
    measure: str
    prepare: str = ":"
    finish: str = ":"
    times: int = 1


PROGRAMS = (
    Program("python3 start", ("python3",), "python3 -c pass", times=5),
    Program("python3 imports", ("python3",), "python3 -c 'import asyncio,json,email'", times=3),
    Program(
        "compileall", ("python3",), "python3 -m compileall -q -f /tmp/lib",
        f"mkdir /tmp/lib; cp -r {LIBRARY}/asyncio {LIBRARY}/email {LIBRARY}/xml /tmp/lib",
    ),
    Program("tar x", ("tar",), "tar xf /tmp/x.tar -C /tmp",
            f"tar cf /tmp/x.tar {LIBRARY}/asyncio {LIBRARY}/encodings {LIBRARY}/email", times=3),
    Program("sh loop of 100 commands", ("bash",),
            "bash -c 'for i in $(seq 100); do /bin/true; done'"),
    Program("sqlite inserts", ("python3",), "python3 /mnt/sqlite.py"),
    Program("gcc", ("gcc",), "gcc -O2 -c -o /tmp/m.o /tmp/m.c", "sh /mnt/sources.sh /tmp"),
    Program("make -j2", ("make", "gcc"), "sh -c 'cd /tmp/parts && make -s clean && make -s -j2'",
            "sh /mnt/sources.sh /tmp"),
    Program("git status", ("git",), "git -C /tmp/repo status -s", "sh /mnt/repository.sh", times=3),
    Program("git clone", ("git",), "sh -c 'rm -rf /tmp/r2; git clone -q /tmp/repo /tmp/r2'",
            "sh /mnt/repository.sh"),
    Program("redis SET/GET", ("redis-server", "redis-benchmark"),
            "redis-benchmark -q -t set,get -n 20000 -c 10",
            "redis-server --save '' --daemonize yes --dir /tmp; sleep 1",
            "redis-cli shutdown nosave"),
    Program("nginx requests", ("nginx", "ab"), "ab -q -n 2000 -c 4 http://127.0.0.1:8080/",
            "mkdir -p /tmp/n/logs; nginx -p /tmp/n -c /mnt/nginx.conf; sleep 1",
            "nginx -p /tmp/n -c /mnt/nginx.conf -s quit"),
    Program("pgbench", ("pgbench", "initdb"), "sh /mnt/postgres.sh bench",
            "sh /mnt/postgres.sh start", "sh /mnt/postgres.sh stop"),
    Program("node start", ("node",), "node -e 0", times=3),
)  # fmt: skip


def has(rootfs: Path, name: str) -> bool:
    """Whether a program is there, in a directory of PATH or among PostgreSQL's."""
    folders = ("usr/bin", "bin", "usr/sbin", "sbin", "usr/lib/postgresql/*/bin")
    return any(list(rootfs.glob(f"{folder}/{name}")) for folder in folders)


def home_of(program: Program, roots: dict[str, Path]) -> str | None:
    """The first root file system that has all the program needs."""
    for name, rootfs in roots.items():
        if all(has(rootfs, need) for need in program.needs):
            return name
    return None


def measure(program: Program, way: Way, stage: Stage) -> dict[str, float]:
    """Median and best in ns."""
    lines = (
        f"({program.prepare}) >/dev/null 2>&1",
        f"exec 3>&1; /mnt/cases time {program.times} {program.measure} 2>&1 | tail -1 >&3",
        f"({program.finish}) >/dev/null 2>&1",
        "exit 0",
    )
    output = way.run(stage, ["/bin/bash", "-c", "\n".join(lines)])
    try:
        median, best = output.split()
        return {"median": float(median), "best": float(best)}
    except ValueError:
        raise RuntimeError(f"{way.name}: {program.name}: {output.strip()[-300:]}") from None
