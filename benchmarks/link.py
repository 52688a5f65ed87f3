"""TCP between a container and the host at the other end of a veth: streams, connections.

    python -m benchmarks.link [--times N] [--mib N] [--rounds N] [--runc FILE] [--gvisor FILE]

measures `streams.c`: one stream out and one in (`--mib`), and connect and close (`--rounds`) from
inside and from outside, of our own stack, of ours with `--network=host`, and of what else is named,
in turns; medians, and ratios to `--network=host`. Each container gets a network namespace and a
veth of its own. As root.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.ways import TREE, compiled

INSIDE, OUTSIDE = "10.77.0.2", "10.77.0.1"
PORT = "5000"
CASES = ("out", "in", "rounds out", "rounds in")


class Way:
    """A runtime."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.command = command
        self.environment = environment


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def namespaces() -> Iterator[tuple[str, str]]:
    """The container's and the other one, with a veth between them."""
    inside, outside = (f"bench-{uuid.uuid4().hex[:8]}" for _ in range(2))
    try:
        for name in (inside, outside):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", inside, "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", outside)
        for name, address in ((inside, INSIDE), (outside, OUTSIDE)):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", inside, "route", "add", "default", "via", OUTSIDE)
        yield inside, outside
    finally:
        for name in (inside, outside):
            ip("netns", "del", name)


def bundle(folder: Path, namespace: str, args: list[str]) -> Path:
    """A container that has the program alone."""
    config = {
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/", "env": []},
        "root": {"path": str(folder / "rootfs")},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": [
                *({"type": kind} for kind in ("pid", "ipc", "uts", "mount")),
                {"type": "network", "path": f"/run/netns/{namespace}"},
            ],
        },
    }
    path = folder / uuid.uuid4().hex
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return path


def measure(way: Way, folder: Path, case: str, amount: int) -> float:
    """Seconds."""
    kind, _, is_from = case.partition(" ")
    with namespaces() as (inside, outside):
        there = ["ip", "netns", "exec", outside, str(folder / "rootfs/streams")]
        name = f"bench-{uuid.uuid4().hex[:8]}"

        def here(*args: str) -> list[str]:
            path = bundle(folder, inside, ["/streams", *args])
            return [*way.command, "run", "--bundle", str(path), name]

        if is_from == "in":
            server = here("serve", PORT)
            client = [*there, kind, INSIDE, PORT, str(amount)]
        else:
            server = [*there, "serve", PORT]
            client = here(kind, OUTSIDE, PORT, str(amount))
        environment = os.environ | way.environment
        with subprocess.Popen(
            server, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment, text=True
        ) as serving:
            try:
                assert serving.stdout is not None
                assert serving.stdout.readline() == "ready\n"
                found = subprocess.check_output(
                    client, stdin=subprocess.DEVNULL, env=environment, text=True, timeout=600
                )
            finally:
                if is_from == "in":
                    kill = [*way.command, "kill", name, "KILL"]
                    subprocess.run(kill, check=True, env=environment)
                else:
                    serving.kill()
        if is_from == "in":
            subprocess.run([*way.command, "delete", "--force", name], check=False, env=environment,
                           stderr=subprocess.DEVNULL)  # fmt: skip
        return float(found)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--runc")
    parser.add_argument("--gvisor", help="runsc of gVisor, with a network of its own")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "rootfs/proc").mkdir(parents=True)
        here = Path(__file__).with_name("streams.c")
        subprocess.run(
            ["gcc", "-O2", "-static", "-o", str(folder / "rootfs/streams"), str(here)], check=True
        )
        tree = compiled(folder / "compiled", TREE)
        ours = [sys.executable, "-m", "runsc", "--root", str(folder / "ours")]
        ways = [
            Way("ours, own stack", [*ours, "--network=sandbox"], tree),
            Way("ours, --network=host", [*ours, "--network=host"], tree),
        ]
        if args.runc:
            ways.append(Way("runc", [args.runc, "--root", str(folder / "runc")], {}))
        if args.gvisor:
            flags = ["--platform=systrap", "--network=sandbox", "--ignore-cgroups"]
            command = [args.gvisor, "--root", str(folder / "gvisor"), *flags]
            ways.append(Way("gVisor", command, {}))
        for case in CASES:
            amount = args.rounds if case.startswith("rounds") else args.mib
            found: dict[str, list[float]] = {way.name: [] for way in ways}
            for _ in range(args.times):
                for each in ways:
                    found[each.name].append(amount / measure(each, folder, case, amount))
            unit = "/s" if case.startswith("rounds") else "MiB/s"
            medians = {name: statistics.median(rates) for name, rates in found.items()}
            base = medians["ours, --network=host"]
            for way, rate in medians.items():
                print(f"{case:12} {way:24} {rate:10.1f} {unit:6} {rate / base:6.2f}", flush=True)


if __name__ == "__main__":
    main()
