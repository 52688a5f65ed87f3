"""What `podman run`, `docker run` and a pod of the CRI take, over each runtime.

    python -m benchmarks.engines [--times N]

measures, in turns, containers of an engine that run `true` and are removed, and a pod with one
container that is started, from RunPodSandbox to RemovePodSandbox, over runc, gVisor (`ci/rootfs
gvisor`) and ours; medians, and ratios to gVisor's. The engines are those of the long tests
(`tests/full`), with folders of their own; what does not run with a runtime is left out. As root.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.ways import compiled

RUNTIMES = ("runc", "gvisor", "ours")
BASE = "gvisor"
CASES = {"podman run": RUNTIMES, "docker run": RUNTIMES, "pod": ("runc", "ours")}
"""What over which: Debian's package of gVisor has no shim, without which it runs no pod."""


def busybox() -> Path:
    """The root file system of what runs."""
    made = subprocess.run(["ci/rootfs", "busybox"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(made.stdout.strip())


@contextmanager
def engine(case: str, folder: Path) -> Iterator[Callable[[], object]]:
    """What is measured, over the runtime that RUNSC_TEST_RUNTIME names."""
    from tests.full.docker import NO_BRIDGE, Docker  # noqa: PLC0415  they ask for the runtime
    from tests.full.podman import Podman  # noqa: PLC0415
    from tests.full.pods import Pods, networked  # noqa: PLC0415

    rootfs = busybox()
    if case == "podman run":
        podman = Podman(folder, rootfs)
        yield lambda: check(podman.run(podman.image, "true"))
        podman.end()
    elif case == "docker run":
        docker = Docker(folder, rootfs, (), NO_BRIDGE)
        yield lambda: check(docker.run(docker.image, "true"))
        docker.stop()
    else:
        with networked(folder, rootfs, "installed") as containerd:
            pods = Pods(containerd, folder / "logs")

            def pod() -> None:
                made = pods.run()
                pods.start(made)
                pods.client.remove_pod(made)

            yield pod
            pods.client.close()


def check(done: subprocess.CompletedProcess[str]) -> None:
    """It has to have worked."""
    if done.returncode:
        raise RuntimeError(done.stderr)


def work(case: str) -> None:
    """One engine over one runtime: each line from the parent is answered by a time in ns."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, engine(case, Path(name)) as call:
        call()  # what is read for the first time
        print("ready", flush=True)
        for _ in sys.stdin:
            start = time.perf_counter_ns()
            call()
            print(time.perf_counter_ns() - start, flush=True)


@contextmanager
def worker(case: str, runtime: str, tree: dict[str, str]) -> Iterator[Callable[[], float] | None]:
    """Asks for one time more, in ms; None: it does not run."""
    command = [sys.executable, "-m", "benchmarks.engines", "--work", case]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | tree | {"RUNSC_TEST_RUNTIME": runtime},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines, answers = process.stdin, process.stdout

        def once() -> float:
            lines.write("\n")
            lines.flush()
            return int(answers.readline()) / 1e6

        yield once if answers.readline() == "ready\n" else None


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--work", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work)
        return
    for case in args.case or CASES:
        with ExitStack() as stack:
            tree = compiled(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyc-"))))
            ways = {name: stack.enter_context(worker(case, name, tree)) for name in CASES[case]}
            found: dict[str, list[float]] = {name: [] for name, way in ways.items() if way}
            for _ in range(args.times):
                for name, times in found.items():
                    way = ways[name]
                    assert way is not None
                    times.append(way())
        medians = {name: statistics.median(times) for name, times in found.items()}
        for name, taken in medians.items():
            ratio = f"{taken / medians[BASE]:.2f}" if BASE in medians else "-"
            print(f"{case:12} {name:8} {taken:8.0f} ms  {ratio} of gVisor's", flush=True)


if __name__ == "__main__":
    main()
