"""Whom does a program talk to? It runs in a sandbox whose only way out is this script.

    python3 examples/egress_audit.py --root ROOT [--allow NAME:PORT[=HOST:PORT]]... COMMAND [ARG]...

Connections to places that are allowed are relayed (to HOST:PORT, if that is said), and counted. All
else is refused: names that programs ask for (told by `runsc egress log`), connections and datagrams
to addresses (a policy asks here). Each is a line in the end, with the program that it was. The exit
code is 1 if anything was refused, else the command's.
"""

from __future__ import annotations

import argparse
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from runsc import Sandbox, SandboxError

PIECE = 1 << 16
PATIENCE_S = 30
REFUSED = re.compile(r"\S+ (?P<what>.+) by (?P<program>.+)\[\d+\] uid \d+: .*")
"""A line of `runsc egress log`."""
MOST = 1000
"""Different ones that are told: a program can make up any number."""
OURS = "192.0.2."
"""Addresses that names have inside which are relayed."""
POLICY = """
from runsc.policy import ALLOW, DENY, ask, in_network, on

@on.connect
async def told(event):
    if event.family not in ("inet", "inet6") or in_network(event.address, "127.0.0.0/8", "::1"):
        return ALLOW
    return await ask(deadline=30, otherwise=DENY("ENETUNREACH"))
"""


@dataclass
class Report:
    """What came of a program."""

    exit_code: int = 0
    out: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Bytes that went to a place, of a program: what was relayed."""
    into: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often: what the program wanted, and which program that was."""

    def lines(self) -> list[str]:
        """For people: names of programs are the programs' own."""
        sizes = "{} relayed for {}: {} bytes out, {} back"
        lines = [
            *(sizes.format(*key, self.out[key], self.into[key]) for key in sorted(self.out)),
            *(f"{what} refused to {who}" for what, who in sorted(self.refused)),
        ]
        return ["".join(c if c.isprintable() else "?" for c in line) for line in lines]


def audit(command: list[str], allowed: dict[str, str], **options: Any) -> Report:
    """Run it to its end. `allowed`: places inside, and where they are outside; `options`: of
    `Sandbox.create`."""
    report = Report()
    lock = threading.Lock()
    ports = {place.rpartition(":")[2] for place in allowed}

    def relay(place: str, outside: str, connection: Any) -> None:
        key = place, connection.told.program
        with lock:
            report.out[key] += 0
        host, _, port = outside.rpartition(":")
        with socket.create_connection((host, int(port)), PATIENCE_S) as other:
            back = threading.Thread(
                target=_pump, args=(other, connection.socket, partial(count, report.into, key))
            )
            back.start()
            _pump(connection.socket, other, partial(count, report.out, key))
            back.join()

    def count(counter: Counter[tuple[str, str]], key: tuple[str, str], size: int) -> None:
        with lock:
            counter[key] += size

    def refuse(sandbox: Sandbox) -> None:
        with suppress(SandboxError):  # it has ended
            for question in sandbox.policy.questions():
                address, _, port = question.what.partition(" ")[2].rpartition(":")
                is_name = address.startswith(OURS) and port in ports
                may = is_name or f"{address}:{port}" in allowed
                if not may and len(report.refused) < MOST:
                    report.refused[question.what, question.program] += 1
                sandbox.policy.answer(question.number, "allow" if may else "deny ENETUNREACH")

    with Sandbox.create(network="private", policy=POLICY, **options) as sandbox:
        threading.Thread(target=refuse, args=(sandbox,), daemon=True).start()
        for place, outside in allowed.items():
            sandbox.on_connect(place, partial(relay, place, outside))
        done = sandbox.commands.run(
            command, on_stdout=sys.stdout.write, on_stderr=sys.stderr.write
        )
        report.exit_code = done.exit_code
        report.refused += _refused(sandbox.sandbox_id, options.get("state"))
    return report


def _pump(source: socket.socket, target: socket.socket, count: Any) -> None:
    """To the end of what comes; then the other side hears of that."""
    with suppress(OSError):
        while data := source.recv(PIECE):
            target.sendall(data)
            count(len(data))
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _refused(sandbox_id: str, state: str | None) -> Counter[tuple[str, str]]:
    root = ["--root", state] if state else []
    command = [sys.executable, "-m", "runsc", *root, "egress", "log", sandbox_id]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = map(REFUSED.fullmatch, said.splitlines())
    return Counter((line["what"], line["program"]) for line in found if line)


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="a folder with the program in it; the host's files else")
    parser.add_argument("--allow", action="append", default=[], metavar="NAME:PORT[=HOST:PORT]")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    allowed = {place: real or place for place, _, real in (a.partition("=") for a in given.allow)}
    report = audit(given.command, allowed, root=given.root)
    print(*report.lines(), sep="\n")
    sys.exit(1 if report.refused else report.exit_code)


if __name__ == "__main__":
    main()
