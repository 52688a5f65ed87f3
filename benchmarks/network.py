"""Programs over a veth, between a container and the host at its other end: iperf3, wrk, redis.

    python -m benchmarks.network [--rounds N] [--seconds N] [--files N] [--case TEXT] [--way NAME]

measures iperf3 with one and eight streams each way, the rate of UDP up to which nothing is lost,
wrk and ab against nginx inside, curl of many small files, redis-benchmark and the median of ping,
of our own stack, of ours with `--network=host`, runc and gVisor, in turns; medians, and ratios to
gVisor's, of which that of ping is better if it is small. Connections a second: `link.py`. Of
Debian's gVisor a copy is taken in which the name of one file in /proc/sys is another one: by that
file its stack takes a network namespace of this Linux for the host's. What is not installed is left
out. As root, on an idle machine; the root file system is `network` (`ci/rootfs`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.link import INSIDE, OUTSIDE, Way, namespaces
from benchmarks.ways import (
    CAPABILITIES,
    GVISOR,
    NATIVE,
    TREE,
    Stage,
    compiled,
    enter_mount_namespace,
    run,
)

NET_RAW = "CAP_NET_RAW"
NGINX = "nginx -c /mnt/bench.conf"
CONFIG = """
user root; daemon off; pid /tmp/pid; error_log stderr crit; worker_processes 1;
events {} http { access_log off; server { listen 80 reuseport; root /srv; } }
"""
UDP_MBITS = (100, 200, 400, 800, 1200, 1600, 2400, 3200, 4800, 6400)
MIB = 1 << 20
PATIENCE_S = 300


class Case(NamedTuple):
    """What is measured: a server, and a client at the other end whose output has the figure."""

    name: str
    unit: str
    server: str
    port: int
    client: str
    figure: Callable[[str], float]
    server_is_inside: bool = False


def _megabytes(output: str) -> float:
    """Of iperf3's JSON, as they were received."""
    return float(json.loads(output)["end"]["sum_received"]["bits_per_second"]) / 8 / MIB


def _without_loss(output: str) -> float:
    """The largest rate of several runs before the first that has lost something, Mbit/s."""
    decoder, best = json.JSONDecoder(), 0.0
    while output := output.strip():
        found, end = decoder.raw_decode(output)
        total = found["end"]["sum"]
        if total["lost_packets"]:
            break
        best, output = total["bits_per_second"] / 1e6, output[end:]
    return best


def _named(pattern: str) -> Callable[[str], float]:
    """A number in the output."""

    def figure(output: str) -> float:
        found = re.search(pattern, output)
        if found is None:
            raise ValueError(output[-300:])
        return float(found[1])

    return figure


def _median_ms(output: str) -> float:
    return statistics.median(map(float, re.findall(r"time=([\d.]+)", output)))


def cases(seconds: int, files: int) -> list[Case]:
    """All of them."""
    found = []
    for streams in (1, 8):
        for way, flag in (("out", ""), ("in", "-R")):
            client = f"iperf3 -c {OUTSIDE} -J -t {seconds} -P {streams} {flag}"
            name = f"iperf3, {streams} {way}"
            found.append(Case(name, "MiB/s", "iperf3 -s", 5201, client, _megabytes))
    udp = " ".join(map(str, UDP_MBITS))
    udp = f"for rate in {udp}; do iperf3 -c {OUTSIDE} -u -J -t 1 -l 1400 -b ${{rate}}M; done"
    requests = 2000 * seconds
    get = f"curl -s -o /dev/null -w '%{{time_total}}\\n' 'http://{OUTSIDE}/f[1-{files}]'"
    timed = f"s=$(date +%s.%N); {get} >/dev/null; e=$(date +%s.%N); "
    timed += f"echo rate $(awk \"BEGIN {{ print {files} / ($e - $s) }}\")"
    redis = f"redis-benchmark -h {INSIDE} -q -t get -n {5000 * seconds} -c 20"
    return [
        *found,
        Case("UDP without loss", "Mbit/s", "iperf3 -s", 5201, udp, _without_loss),
        Case("wrk, nginx", "/s", NGINX, 80, f"wrk -t2 -c32 -d{seconds} http://{INSIDE}/f1",
             _named(r"Requests/sec:\s+([\d.]+)"), True),
        Case("ab, nginx", "/s", NGINX, 80, f"ab -q -n {requests} -c 16 http://{INSIDE}/f1",
             _named(r"Requests per second:\s+([\d.]+)"), True),
        Case(f"curl, {files} files", "/s", NGINX, 80, timed, _named(r"rate ([\d.]+)")),
        Case("redis-benchmark, get", "/s", "redis-server --protected-mode no --save ''", 6379,
             redis, _named(r"GET: ([\d.]+) requests"), True),
        Case("ping", "ms", "iperf3 -s", 5201, f"ping -c 200 -i 0.002 {OUTSIDE}", _median_ms),
    ]  # fmt: skip


def bundle(stage: Stage, namespace: str, script: str) -> Path:
    """A container in a network namespace."""
    path = stage.bundle(["/bin/bash", "-c", script])
    config = json.loads((path / "config.json").read_text())
    rights = [*CAPABILITIES, NET_RAW]
    config["process"]["capabilities"] = dict.fromkeys(config["process"]["capabilities"], rights)
    others = [each for each in config["linux"]["namespaces"] if each["type"] != "network"]
    network = {"type": "network", "path": f"/run/netns/{namespace}"}
    config["linux"]["namespaces"] = [*others, network]
    config["linux"]["sysctl"] = {"net.ipv4.ping_group_range": "0 0"}
    made = stage.path / uuid.uuid4().hex
    made.mkdir()
    (made / "config.json").write_text(json.dumps(config))
    return made


@contextmanager
def serving(
    command: list[str], end: list[list[str]], environment: dict[str, str]
) -> Iterator[None]:
    """While it runs; it ends by other commands."""
    nothing = subprocess.DEVNULL
    with subprocess.Popen(
        command, stdin=nothing, stdout=nothing, stderr=nothing, env=environment
    ) as server:
        try:
            yield
        finally:
            for each in end:
                subprocess.run(each, env=environment, check=False, stderr=nothing)
            server.kill()


def measure(way: Way, stage: Stage, case: Case) -> float:
    """The figure. Raises: RuntimeError."""
    environment = os.environ | way.environment
    with namespaces() as (inside, outside):
        name = f"bench-{uuid.uuid4().hex[:8]}"

        def here(script: str) -> list[str]:
            return [*way.command, "run", "--bundle", str(bundle(stage, inside, script)), name]

        def there(script: str) -> list[str]:
            enter = ["ip", "netns", "exec", outside, "unshare", "--mount", "--pid", "--fork"]
            shell = ["--kill-child", "sh", "-c", NATIVE, "sh", str(stage.path)]
            return [*enter, *shell, "/bin/bash", "-c", script]

        address = INSIDE if case.server_is_inside else OUTSIDE
        ready = f"until (: </dev/tcp/{address}/{case.port}) 2>/dev/null; do sleep 0.05; done; "
        first, second = (here, there) if case.server_is_inside else (there, here)
        kill = [*way.command, "kill", name, "KILL"]
        delete = [*way.command, "delete", "--force", name]
        end = [kill, delete] if case.server_is_inside else []
        with serving(first(f"exec {case.server}"), end, environment):
            done = subprocess.run(
                second(ready + case.client), stdin=subprocess.DEVNULL, env=environment,
                capture_output=True, text=True, timeout=PATIENCE_S, check=False,
            )  # fmt: skip
        try:
            return case.figure(done.stdout)
        except (ValueError, KeyError, statistics.StatisticsError) as error:
            said = f"{done.stdout[-200:]} {done.stderr[-200:]}"
            raise RuntimeError(f"{way.name}: {case.name}: {error}: {said}") from None


def patched(program: Path, folder: Path) -> str:
    """gVisor's runsc with the name of another file, of the same length, in it."""
    old, new = b"/proc/sys/net/core/rmem_default", b"///proc/sys/net/core/dev_weight"
    made = folder / "gvisor-runsc"
    made.write_bytes(program.read_bytes().replace(old, new))
    made.chmod(0o755)
    return str(made)


def ways(folder: Path, gvisor: Path) -> list[Way]:
    """In the order of the columns."""
    tree = compiled(folder / "compiled", TREE)
    ours = [sys.executable, "-m", "runsc", "--root", str(folder / "ours")]
    found = [
        Way("own stack", [*ours, "--network=sandbox"], tree),
        Way("--network=host", [*ours, "--network=host"], tree),
    ]
    if (runc := shutil.which("runc")) is not None:
        found.append(Way("runc", [runc, "--root", str(folder / "runc")], {}))
    if gvisor.exists():
        flags = ["--platform=systrap", "--network=sandbox", "--ignore-cgroups", "--net-raw"]
        command = [patched(gvisor, folder), "--root", str(folder / "gvisor"), *flags]
        found.append(Way("gVisor", command, {}))
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.network")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each program")
    parser.add_argument("--files", type=int, default=10_000, help="for curl")
    parser.add_argument("--case", action="append", help="only those whose name contains this")
    parser.add_argument("--way", action="append", help="only these")
    parser.add_argument("--gvisor", type=Path, default=Path(GVISOR))
    options = parser.parse_args()
    enter_mount_namespace()
    stage = Stage(Path(run(str(TREE / "ci/rootfs"), "network").strip()))
    try:
        (stage.bench / "bench.conf").write_text(CONFIG)
        for number in range(1, options.files + 1):
            (stage.data / f"f{number}").write_bytes(b"%d " % number * 200)
        with tempfile.TemporaryDirectory(prefix="bench-state-") as folder:
            chosen = [
                each for each in ways(Path(folder), options.gvisor)
                if not options.way or each.name in options.way
            ]  # fmt: skip
            wanted = [
                each for each in cases(options.seconds, options.files)
                if not options.case or any(word in each.name for word in options.case)
            ]  # fmt: skip
            table(chosen, stage, wanted, options.rounds)
    finally:
        stage.close()


def table(chosen: list[Way], stage: Stage, wanted: list[Case], rounds: int) -> None:
    """Measure, and print a line of Markdown for each case."""
    names = [way.name for way in chosen]
    print(f"| | {' | '.join(names)} | of gVisor's |\n|---|{'--:|' * (len(names) + 1)}")
    for case in wanted:
        found: dict[str, list[float]] = {}
        for _ in range(rounds):
            for way in chosen:
                try:
                    found.setdefault(way.name, []).append(measure(way, stage, case))
                except (RuntimeError, subprocess.TimeoutExpired) as problem:
                    print(f"left out: {problem}", file=sys.stderr)
        medians = {name: statistics.median(rates) for name, rates in found.items() if rates}
        row = [f"{medians[name]:.4g}" if name in medians else "-" for name in names]
        ratio = "-"
        if "gVisor" in medians and names[0] in medians and medians["gVisor"]:
            ratio = f"{medians[names[0]] / medians['gVisor']:.2f}"
        print(f"| {case.name}, {case.unit} | {' | '.join(row)} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
