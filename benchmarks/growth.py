"""How what an operation costs grows with what lies beside it, or with how much it is of.

    python -m benchmarks.growth [--rounds N] [--case WORD …] [--way NAME …] [--gvisor PROGRAM]
                                [--out DIR]

As root, with gcc, on an idle machine. Each operation of `growth.c` at four sizes, each ten times
the one before, natively, under gVisor and under ours in turns. Writes growth.json, growth.md (a
table) and growth.svg (a plot for each operation) to the folder `--out`. An *exponent* is the slope
of time over size where both are logarithms: 0 for what does not depend on it, 1 for what is in
proportion.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from html import escape
from math import log10
from pathlib import Path

from benchmarks.__main__ import rootfs
from benchmarks.machine import about, first_line
from benchmarks.report import human
from benchmarks.ways import (
    GVISOR,
    HERE,
    TREE,
    Stage,
    Way,
    compiled,
    enter_mount_namespace,
    gvisor,
    run,
)

MS = 50
"""For which an operation is repeated, at each size."""
COLOURS = {"native": "#888", "gVisor systrap": "#36c", "ours": "#c63"}
WIDTH, HEIGHT, COLUMNS, EDGE = 230, 170, 4, 34
"""Of a plot, in pixels; plots in a row; room for its words."""
Curve = dict[int, float]
"""Size → ns."""


@dataclass
class Operation:
    """A row of growth.c."""

    name: str
    unit: str
    largest: int

    @property
    def sizes(self) -> list[int]:
        """Over three orders."""
        return [self.largest // step for step in (1000, 100, 10, 1)]


class Growing(Stage):
    """A stage whose programs may have many descriptors, and may mount."""

    def __init__(self, original: Path) -> None:
        super().__init__(original)
        flags = ["-O2", "-static", "-pthread"]
        run("gcc", *flags, "-o", str(self.bench / "growth"), str(HERE / "growth.c"))

    def bundle(self, args: list[str]) -> Path:
        """config.json for this command."""
        path = super().bundle(args)
        config = json.loads((path / "config.json").read_text())
        process = config["process"]
        for names in process["capabilities"].values():
            names.append("CAP_SYS_ADMIN")
        process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 20000, "hard": 20000}]
        (path / "config.json").write_text(json.dumps(config))
        return path


def exponent(curve: Curve) -> float:
    """The slope of its logarithms, by least squares. Preconditions: two sizes."""
    sizes, times = zip(*((log10(n), log10(t)) for n, t in sorted(curve.items())), strict=True)
    return statistics.linear_regression(sizes, times).slope


def plot(operation: Operation, curves: dict[str, Curve]) -> str:
    """One of the small plots, as SVG; both axes are logarithms."""
    times = [t for curve in curves.values() for t in curve.values()]
    low, high = log10(min(times)), log10(max(times))
    left, top, right, bottom = EDGE, 30, WIDTH - 10, HEIGHT - 22
    sizes = operation.sizes

    def across(size: int) -> float:
        place = log10(size / sizes[0]) / log10(sizes[-1] / sizes[0])
        return left + (right - left) * place

    def up(time: float) -> float:
        return bottom - (bottom - top) * (log10(time) - low) / ((high - low) or 1)

    parts = [f'<text x="4" y="14" font-weight="bold">{escape(operation.name)}</text>']
    parts += [
        f'<text x="{across(n):.0f}" y="{HEIGHT - 8}" text-anchor="middle">{n}</text>' for n in sizes
    ]
    for time in (min(times), max(times)):
        parts.append(f'<text x="4" y="{up(time) + 3:.0f}">{escape(human(time, "ns"))}</text>')
    for way, curve in curves.items():
        points = " ".join(f"{across(n):.1f},{up(t):.1f}" for n, t in sorted(curve.items()))
        colour = COLOURS.get(way, "#333")
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    return "\n".join(parts)


def drawn(operations: list[Operation], found: dict[str, dict[str, Curve]]) -> str:
    """All plots on one sheet, as SVG."""
    shown = [operation for operation in operations if operation.name in found]
    height = -(-len(shown) // COLUMNS) * HEIGHT + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{COLUMNS * WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="10"><rect width="100%" height="100%" fill="white"/>'
    ]
    for index, (way, colour) in enumerate(COLOURS.items()):
        parts.append(f'<text x="{8 + 120 * index}" y="16" fill="{colour}">{escape(way)}</text>')
    for index, operation in enumerate(shown):
        x, y = index % COLUMNS * WIDTH, index // COLUMNS * HEIGHT + 24
        body = plot(operation, found[operation.name])
        parts.append(f'<g transform="translate({x},{y})">{body}</g>')
    return "\n".join([*parts, "</svg>", ""])


def table(operations: list[Operation], found: dict[str, dict[str, Curve]]) -> str:
    """Time at the smallest and largest size, and the exponents."""
    ways = list(dict.fromkeys(way for curves in found.values() for way in curves))
    lines = ["| | of | " + " | ".join(f"{way} | exponent" for way in ways) + " |"]
    lines.append("|---" * (2 + 2 * len(ways)) + "|")
    for operation in operations:
        curves = found.get(operation.name, {})
        cells = []
        for way in ways:
            curve = curves.get(way)
            if not curve or len(curve) < 2:
                cells += ["", ""]
                continue
            ends = (human(curve[n], "ns") for n in (min(curve), max(curve)))
            cells += [" … ".join(ends), f"{exponent(curve):.2f}"]
        smallest, largest = operation.sizes[0], operation.sizes[-1]
        of = f"{smallest} … {largest} {operation.unit}"
        lines.append(f"| {operation.name} | {of} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(
    operations: list[Operation], ways: list[Way], stage: Stage, rounds: int
) -> dict[str, dict[str, Curve]]:
    """Operation → way → its curve, of medians. What fails is said, and left out."""
    found: dict[str, dict[str, Curve]] = {}
    for operation in operations:
        for size in operation.sizes:
            told: dict[str, list[float]] = {}
            for way in ways * rounds:
                command = ["/mnt/growth", operation.name, str(size), str(MS)]
                try:
                    told.setdefault(way.name, []).append(float(way.run(stage, command)))
                except (RuntimeError, ValueError, subprocess.TimeoutExpired) as problem:
                    print(f"  left out: {operation.name} {size}: {problem}", file=sys.stderr)
            for name, values in told.items():
                if values:
                    curves = found.setdefault(operation.name, {})
                    curves.setdefault(name, {})[size] = statistics.median(values)
    return found


def main(arguments: list[str]) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", action="append", help="only cases whose name contains this")
    parser.add_argument("--way", action="append", help="ways of running, by name")
    parser.add_argument("--gvisor", default=GVISOR)
    parser.add_argument("--out", type=Path, default=TREE / "docs" / "benchmarks")
    options = parser.parse_args(arguments)
    original = rootfs("busybox")
    assert original is not None
    enter_mount_namespace()
    folder = Path(tempfile.mkdtemp(prefix="bench-state-"))
    ours = [sys.executable, "-m", "runsc", "--root", str(folder / "ours"), "--network=none"]
    ways = [Way("native", []), Way("ours", ours, compiled(folder / "compiled"))]
    if os.access(options.gvisor, os.X_OK):
        ways.insert(1, gvisor(options.gvisor, folder))
    ways = [way for way in ways if not options.way or way.name in options.way]
    stage = Growing(original)
    try:
        rows = [line.split("\t") for line in run(str(stage.bench / "growth"), "names").splitlines()]
        operations = [Operation(name, unit, int(largest)) for name, unit, largest in rows]
        chosen = [
            operation
            for operation in operations
            if not options.case or any(word in operation.name for word in options.case)
        ]
        found = measure(chosen, ways, stage, options.rounds)
    finally:
        stage.close()
        shutil.rmtree(folder, ignore_errors=True)
    machine = about(sys.executable) | {"gVisor": first_line([options.gvisor, "--version"])}
    options.out.mkdir(parents=True, exist_ok=True)
    data = {"about": machine, "results": found}
    (options.out / "growth.json").write_text(json.dumps(data, indent=1, ensure_ascii=False))
    page = [
        "# How costs grow",
        "Written by `python -m benchmarks.growth`; medians. First and last of four sizes, and the "
        "slope of time over size as logarithms: 0 does not depend on it, 1 is in proportion.",
        "\n".join(f"- {key}: {value}" for key, value in machine.items()),
        table(chosen, found),
        "![a plot for each operation](growth.svg)",
    ]
    (options.out / "growth.md").write_text("\n\n".join(page) + "\n")
    (options.out / "growth.svg").write_text(drawn(chosen, found))
    print(table(chosen, found))


if __name__ == "__main__":
    main(sys.argv[1:])
