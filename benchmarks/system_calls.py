"""The cost of single system calls: natively, under other sandboxes that are installed, under ours.

    python benchmarks/system_calls.py [--rounds 3] [--json FILE]

Runs interleaved; prints a Markdown table of medians in µs with ratios to Debian's
`runsc --platform=systrap`. Use an idle machine.
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
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS = [sys.executable, "-m", "runsc"]
GVISOR = "/usr/bin/runsc"


def ways(program: str) -> dict[str, list[str]]:
    """Name → command, for everything that can run here."""
    found = {"native": [program]}
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        found["ours"] = [*OURS, "do", program]
        found["ours, exits only"] = [*OURS, "--system-calls=exit", "do", program]
    if os.access(GVISOR, os.X_OK):
        found["gVisor systrap"] = [
            GVISOR, "--platform=systrap", "--network=none", "--ignore-cgroups", "do", program,
        ]  # fmt: skip
    return found


def run(command: list[str]) -> dict[str, float]:
    """One round: name of the call → ns."""
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        command, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        text=True, timeout=600,
    )  # fmt: skip
    lines = [line.rsplit(" ", 1) for line in done.stdout.splitlines()]
    return {name: float(value) for name, value in lines}


def table(results: dict[str, dict[str, float]]) -> str:
    """Markdown: one row a call."""
    names = list(results)
    reference = "gVisor systrap" if "gVisor systrap" in results else "native"
    lines = ["| µs | " + " | ".join(names) + f" | ours / {reference} |"]
    lines.append("|---" * (len(names) + 2) + "|")
    for call in results["native"]:
        values = [results[name][call] / 1000 for name in names]
        ratio = ""
        if "ours" in results:
            ratio = f"{results['ours'][call] / results[reference][call]:.2f}"
        lines.append(f"| {call} | " + " | ".join(f"{v:.2f}" for v in values) + f" | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="calls-", dir=Path.home()))
    try:
        program = folder / "calls"
        subprocess.run(["gcc", "-O2", "-static", "-o", program, HERE / "calls.c"], check=True)
        rounds: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for name, command in ways(str(program)).items():
                rounds.setdefault(name, []).append(run(command))
    finally:
        shutil.rmtree(folder)
    medians = {
        name: {call: statistics.median(r[call] for r in found) for call in found[0]}
        for name, found in rounds.items()
    }
    print(table(medians))
    if options.json:
        options.json.write_text(json.dumps(medians, indent=1))


if __name__ == "__main__":
    main()
