"""What snapshots cost: `python -m benchmarks.snapshots ROOT [--mib 100] [--rounds 5]`.

A sandbox whose files in memory hold so many MiB of random bytes, and one that has changed 8 MiB of
them. Times are medians in milliseconds, as the caller sees them; the state of the machine is said
with them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from runsc import Sandbox

DIRTY_MIB = 8


class Times:
    """Of what was done several times, by its name."""

    def __init__(self) -> None:
        self._found: dict[str, list[float]] = {}

    def of(self, name: str, work: Callable[[], object]) -> None:
        """Measure it once."""
        began = time.perf_counter()
        work()
        self._found.setdefault(name, []).append((time.perf_counter() - began) * 1000)

    def lines(self) -> list[str]:
        """One for each name."""
        return [
            f"{name:34} {statistics.median(found):8.1f}  (least {min(found):.1f})"
            for name, found in self._found.items()
        ]


def measure(root: Path, mib: int, rounds: int) -> list[str]:
    """All of it."""
    times = Times()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        given = {"root": root, "memory": (2 * mib + 256) << 20, "state": f"{folder}/state"}
        with Sandbox.create(**given) as sandbox:
            sandbox.files.make_dir("/tmp")
            for name, size in (("kept", mib - DIRTY_MIB), ("changed", DIRTY_MIB)):
                sandbox.commands.run(f"head -c {size << 20} /dev/urandom >/tmp/{name}")
            for at in range(rounds):
                base, delta = f"{folder}/base{at}", f"{folder}/delta{at}"
                times.of("snapshot", lambda base=base: sandbox.create_snapshot(base))
                sandbox.commands.run(f"head -c {DIRTY_MIB << 20} /dev/urandom >/tmp/changed")
                times.of(
                    f"delta, {DIRTY_MIB} MiB changed",
                    lambda base=base, delta=delta: sandbox.create_snapshot(delta, parent=base),
                )
            for at in range(rounds):
                for name, path, ahead in (
                    ("restore to the first call", f"{folder}/base{at}", False),
                    ("restore --background, the same", f"{folder}/base{at}", True),
                    ("restore of the delta, the same", f"{folder}/delta{at}", False),
                ):
                    made: list[Sandbox] = []

                    def restore(
                        path: str = path, ahead: bool = ahead, made: list[Sandbox] = made
                    ) -> None:
                        state = f"{folder}/state"
                        made.append(Sandbox.restore(path, state=state, background=ahead))
                        made[0].commands.run("true")

                    times.of(name, restore)
                    made[0].kill()
    return times.lines()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--mib", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(f"{given.mib} MiB, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs; ms")
    print("\n".join(measure(given.root, given.mib, given.rounds)))


if __name__ == "__main__":
    main()
