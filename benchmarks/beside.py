"""What a program costs those beside it: other processes of its container, and its operator.

    python -m benchmarks.beside ./static-program ARGUMENT...
    python -m benchmarks.beside --native ./static-program ARGUMENT...

While it runs in a container, another process writes a byte to /dev/null every half a millisecond;
`ps` and `exec /bin/true` are called from outside. Then it is killed by name, what the sandbox has
allocated beyond what it had before is looked at, and the container is killed. One line of a
Markdown table. `--native` runs both on the host as it is, in new namespaces, where there are only
the writes.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.ways import HERE, TREE, Stage, Way, compiled, enter_mount_namespace, run

HEAD = (
    "| program | writes: median µs | 99.9 % ms | longest ms | `ps` ms | `exec` ms | `kill` ms"
    " | MiB kept |\n|---|--:|--:|--:|--:|--:|--:|--:|"
)
EVERY_S = 1
"""Between two looks from outside."""
GONE_S = 10
"""For what the program had to be given back."""


class Beat:
    """The process that writes."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        if self._output.readline() != "ready\n":
            raise RuntimeError("the other process did not start")

    def figures(self) -> list[float]:
        """Median in µs, 99.9th percentile and longest in ms."""
        median, _, rarely, longest, _ = map(int, self._output.read().split())
        self._process.wait()
        return [median / 1e3, rarely / 1e6, longest / 1e6]


def milliseconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return (time.monotonic() - began) * 1e3


def allocated_mib(pid: int) -> int:
    """Of a Sentry: its own memory and the programs'."""
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(n) for n in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+)", status)) >> 10


def inside(folder: Path, stage: Stage, flags: list[str], program: list[str], seconds: int) -> str:
    """In a container of ours."""
    ours = [sys.executable, "-m", "runsc", "--root", str(folder), *flags]
    way = Way("ours", ours, compiled(folder / "compiled"))
    name = way.start(stage, ["/bin/sleep", "1000000"])
    try:
        pid = json.loads((folder / name / "state.json").read_text())["sentryPid"]
        before = allocated_mib(pid)
        beat = Beat([*ours, "exec", name, "/mnt/beat", str(seconds)])
        attack = subprocess.Popen(
            [*ours, "exec", name, *program], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + seconds
        ps, exec_ = [0.0], [0.0]
        while time.monotonic() < end:
            ps.append(milliseconds(lambda: way.manage("ps", name)))
            exec_.append(milliseconds(lambda: way.manage("exec", name, "/bin/true")))
            time.sleep(EVERY_S)
        figures = [*beat.figures(), max(ps), max(exec_)]
        ended = attack.poll()
        if ended is None:
            way.manage("exec", name, "/bin/killall", "-9", Path(program[0]).name)
            attack.wait()
        kept = settled(lambda: allocated_mib(pid) - before)
        kill = milliseconds(lambda: killed(way, name))
    finally:
        way.manage("delete", "--force", name)
    return " | ".join([*(f"{n:.1f}" for n in [*figures, kill]), str(kept)])


def settled(look: Callable[[], int]) -> int:
    """The least that is seen in a while."""
    end, least = time.monotonic() + GONE_S, look()
    while least > 0 and time.monotonic() < end:
        time.sleep(EVERY_S)
        least = min(least, look())
    return least


def killed(way: Way, name: str) -> None:
    way.manage("kill", name, "KILL")
    while '"stopped"' not in way.manage("state", name):
        pass


def natively(stage: Stage, program: list[str], seconds: int) -> str:
    """On the host."""
    beat = Beat([str(stage.bench / "beat"), str(seconds)])
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    attack = subprocess.Popen(
        [*apart, "--ipc", "--net", str(stage.bench / Path(program[0]).name), *program[1:]],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    figures = beat.figures()
    attack.kill()
    attack.wait()
    return " | ".join(f"{n:.1f}" for n in figures)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.beside")
    parser.add_argument("--native", action="store_true", help="On the host, not in a container.")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--flags", default="", help="Of the runtime, as in --flags=--memory=512M.")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="A static program, arguments.")
    options = parser.parse_args()
    enter_mount_namespace()
    stage = Stage(Path(run(str(TREE / "ci/rootfs"), "busybox").strip()))
    folder = Path(tempfile.mkdtemp(prefix="beside-"))
    try:
        run("gcc", "-O2", "-static", "-o", str(stage.bench / "beat"), str(HERE / "beat.c"))
        source = Path(options.program[0])
        shutil.copy(source, stage.bench / source.name)
        program = [f"/mnt/{source.name}", *options.program[1:]]
        if options.native:
            found = natively(stage, program, options.seconds)
        else:
            found = inside(folder, stage, options.flags.split(), program, options.seconds)
        print(HEAD, f"| `{' '.join([source.name, *program[1:]])}` | {found} |", sep="\n")
    finally:
        stage.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
